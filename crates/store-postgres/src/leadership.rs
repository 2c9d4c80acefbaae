//! The lease, on a connection and a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::shared::{Acquired, LEASE, Leadership, LeadershipLease, MEMBER_KEPT, Member};
use store::{Epoch, LeadershipError};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::error::{DbError, leadership_error};
use crate::io::Io;
use crate::link::{FlightError, Link, Purpose, Step};
use crate::rows::{self, Column};
use crate::target::Target;

const LOOK: &str = "SELECT holder, epoch, (extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint, \
     (extract(epoch FROM expires_at) * 1000000)::bigint, (SELECT ms FROM lease_duration) FROM lease";
/// The last two are a lease that has not been renewed for too long, whatever the server's clock says; or 0.
const TAKE: &str = "UPDATE lease SET holder = $1, epoch = epoch + 1, \
     expires_at = clock_timestamp() + $2::bigint * interval '1 ms' \
     WHERE expires_at <= clock_timestamp() OR holder = $1 \
     OR (epoch = $3 AND (extract(epoch FROM expires_at) * 1000000)::bigint = $4) RETURNING epoch";
/// Sets the fence only to an epoch that [`TAKE`] has raised.
const FENCE: &str = "UPDATE fence SET epoch = (SELECT epoch FROM lease), batch = 0 \
     WHERE epoch < (SELECT epoch FROM lease)";
/// Notes the duration of a lease that [`TAKE`] has taken.
const NOTE_DURATION: &str = "UPDATE lease_duration SET ms = $2::bigint \
     WHERE ms <> $2::bigint AND (SELECT holder FROM lease) = $1";
const RENEW: &str = "UPDATE lease SET expires_at = clock_timestamp() + $2::bigint * interval '1 ms' \
     WHERE epoch = $1 AND expires_at > clock_timestamp() RETURNING epoch";
const RESIGN: &str = "UPDATE lease SET expires_at = least(expires_at, clock_timestamp()) WHERE epoch = $1";
const ANNOUNCE: &str = "INSERT INTO members (id, name, public_address, internal_address, version, started_at, seen_at) \
     VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
     public_address = excluded.public_address, internal_address = excluded.internal_address, \
     version = excluded.version, started_at = excluded.started_at, seen_at = excluded.seen_at";
const FORGET: &str = "DELETE FROM members WHERE seen_at < clock_timestamp() - $1::bigint * interval '1 ms'";
const LEAVE: &str = "DELETE FROM members WHERE id = $1";
/// Ends the transaction of an earlier leader that is stuck with the fence: a transaction that has changed that row holds this
/// lock.
const END_WRITERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'divvy.fence'::regclass \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()";
/// Number of times that a takeover is tried while an earlier leader's transaction blocks it.
const TAKEOVERS: usize = 3;

pub(crate) struct PostgresLeadership {
    io: Result<Arc<Io>, String>,
    target: Arc<Target>,
    /// Duration of this coordinator's leases.
    lease: Duration,
    link: Option<Arc<Link>>,
    watched: Watched,
}

/// The last seen lease of another member.
///
/// The server's clock may be set back, and a lease that is not renewed would last as much longer. A leader renews within the
/// duration of its lease or leads no more, so a lease that stays the same for this long by this process's clock is over.
#[derive(Debug, Default)]
struct Watched {
    /// Epoch of the lease, and its expiry in microseconds.
    lease: (i64, i64),
    since: Option<Instant>,
}

impl Watched {
    /// Notes the present lease. Returns whether it has been the same for longer than its duration.
    fn is_over(&mut self, lease: (i64, i64), lasts: Duration, now: Instant) -> bool {
        if self.lease != lease {
            *self = Self { lease, since: None };
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) > lasts
    }
}

impl PostgresLeadership {
    pub(crate) fn new(target: &Arc<Target>, lease: Duration) -> Self {
        let io = Io::start("store-lease").map_err(|error| error.to_string());
        Self { io, target: target.clone(), lease, link: None, watched: Watched::default() }
    }

    /// Asks within [`answer_timeout`], and once more if the connection was lost since the last question.
    fn ask<T>(&mut self, mut question: impl AsyncFnMut(Arc<Link>) -> Result<T, DbError>) -> Result<T, LeadershipError> {
        let io = self.io.clone().map_err(LeadershipError::Unavailable)?;
        let open = self.link.take().filter(|link| !link.client.is_closed());
        let asking = async {
            if let Some(link) = open {
                let answer = question(link.clone()).await;
                if !is_of_the_session(&answer, &link) {
                    return (answer, Some(link));
                }
            }
            match Link::connect(&self.target, Purpose::Leasing).await.map(Arc::new) {
                Ok(link) => {
                    let answer = question(link.clone()).await;
                    let keeps = !is_of_the_session(&answer, &link);
                    (answer, keeps.then_some(link))
                }
                Err(error) => (Err(error), None),
            }
        };
        let within = answer_timeout(self.lease);
        let (answer, link) = io.run(async { timeout(within, asking).await }).unwrap_or((Err(DbError::NoAnswer), None));
        self.link = link;
        self.target.pulse.note(&answer);
        answer.map_err(|error| leadership_error(&error))
    }
}

/// Whether the session is at fault, so that another session may succeed.
fn is_of_the_session<T>(answer: &Result<T, DbError>, link: &Link) -> bool {
    answer.as_ref().is_err_and(|error| error.is_of_the_session() || link.client.is_closed())
}

/// Bound on the time of an answer about the lease. Several questions fit into a long lease, so that one connection that hangs does
/// not end a term.
fn answer_timeout(lease: Duration) -> Duration {
    LEASE.max(lease / 3)
}

/// A duration from a column. A negative one is over.
fn lasting(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// A duration as a column's integer.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

async fn acquire(link: &Link, member: Uuid, own: Duration, watched: &mut Watched) -> Result<Acquired, DbError> {
    let mut takeovers = 0;
    loop {
        let Some(lease) = link.query_opt(LOOK, &[]).await? else {
            return Err(DbError::Damaged("the lease's row is gone".to_owned()));
        };
        let (holder, expires_in): (Option<Uuid>, i64) = (rows::get(&lease, 0)?, rows::get(&lease, 2)?);
        let found = (rows::get(&lease, 1)?, rows::get(&lease, 3)?);
        // A coordinator of an earlier release does not note its duration, which is the shortest.
        let lasts = rows::get::<Option<i64>>(&lease, 4)?.map_or(LEASE, lasting).max(LEASE);
        let is_over = watched.is_over(found, lasts, Instant::now());
        if let Some(by) = holder.filter(|&holder| holder != member && expires_in > 0 && !is_over) {
            let epoch = Epoch(rows::count(&lease, 1)?);
            return Ok(Acquired::Held { by, epoch, expires_in: lasting(expires_in).min(lasts) });
        }
        if let Some(term) = take_over(link, member, own, if is_over { found } else { (0, 0) }).await? {
            return Ok(Acquired::Leads(term));
        }
        takeovers += 1;
        if takeovers == TAKEOVERS {
            return Err(DbError::NoAnswer);
        }
    }
}

/// Takes the lease over; `None` if another member was faster, or if an earlier leader's transaction was in the way and is ended
/// now.
async fn take_over(
    link: &Link,
    member: Uuid,
    lasts: Duration,
    over: (i64, i64),
) -> Result<Option<LeadershipLease>, DbError> {
    let lasts_ms = milliseconds(lasts);
    let params: Vec<_> =
        vec![Box::new(member) as _, Box::new(lasts_ms) as _, Box::new(over.0) as _, Box::new(over.1) as _];
    let take = Step::Run { sql: TAKE, params };
    let fence = Step::Run { sql: FENCE, params: Vec::new() };
    let note = Step::Run { sql: NOTE_DURATION, params: vec![Box::new(member) as _, Box::new(lasts_ms) as _] };
    match link.fly(vec![Step::Plain("BEGIN"), take, fence, note, Step::Plain("COMMIT")]).await {
        Ok(answers) => {
            let epoch = answers[1].first().map(|row| rows::count(row, 0)).transpose()?;
            Ok(epoch.map(|epoch| LeadershipLease { epoch: Epoch(epoch), lasts }))
        }
        Err(FlightError { step, error }) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => {
            if step == 2 {
                let ended = link.query(END_WRITERS, &[]).await?.len();
                tracing::warn!(ended, "ended the transaction of an earlier leader, which held the fence");
            }
            Ok(None)
        }
        Err(FlightError { error, .. }) => Err(error),
    }
}

async fn current(link: &Link) -> Result<Epoch, DbError> {
    let lease = link.query_opt(LOOK, &[]).await?;
    lease.map_or(Ok(Epoch::default()), |lease| rows::count(&lease, 1).map(Epoch))
}

impl Leadership for PostgresLeadership {
    fn announce(&mut self, member: &Member) -> Result<(), LeadershipError> {
        let started_at = member.started_at.column();
        self.ask(async |link: Arc<Link>| {
            let Member { id, name, public_address, internal_address, version, .. } = member;
            link.query(ANNOUNCE, &[id, name, public_address, internal_address, version, &started_at]).await?;
            link.query(FORGET, &[&milliseconds(MEMBER_KEPT)]).await?;
            Ok(())
        })
    }

    fn acquire(&mut self, member: Uuid) -> Result<Acquired, LeadershipError> {
        let mut watched = std::mem::take(&mut self.watched);
        let own = self.lease;
        let acquired = self.ask(async |link: Arc<Link>| acquire(&link, member, own, &mut watched).await);
        self.watched = watched;
        acquired
    }

    fn renew(&mut self, epoch: Epoch) -> Result<LeadershipLease, LeadershipError> {
        let lasts = self.lease;
        let renewed = self.ask(async |link: Arc<Link>| {
            let renewed = link.query(RENEW, &[&epoch.0.column(), &milliseconds(lasts)]).await?;
            if renewed.is_empty() { current(&link).await.map(Err) } else { Ok(Ok(())) }
        })?;
        match renewed {
            Ok(()) => Ok(LeadershipLease { epoch, lasts }),
            Err(current) => Err(LeadershipError::Lost { epoch, current }),
        }
    }

    fn resign(&mut self, epoch: Epoch) -> Result<(), LeadershipError> {
        self.ask(async |link: Arc<Link>| link.query(RESIGN, &[&epoch.0.column()]).await.map(|_| ()))
    }

    fn leave(&mut self, member: Uuid) -> Result<(), LeadershipError> {
        self.ask(async |link: Arc<Link>| link.query(LEAVE, &[&member]).await.map(|_| ()))
    }
}
