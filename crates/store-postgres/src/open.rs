//! Opens the database: connects, checks that sessions are kept, and brings the schema up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::backend::Reading;
use store::shared::{ClockReading, Losing, MemberStatus};
use store::{Epoch, FollowerParts, Leadership, LeadershipError, Objects, Parts, Shared};
use tokio::sync::watch;
use tokio_postgres::error::SqlState;
use url::Url;
use uuid::Uuid;

use crate::backend::{Leader, Parked, Submitter};
use crate::error::{DbError, OpenError};
use crate::io::Io;
use crate::leadership::PostgresLeadership;
use crate::link::{Link, Purpose};
use crate::members::members;
use crate::reads::{self, Readers};
use crate::rows;
use crate::schema;
use crate::target::Target;
use crate::watching::{Watch, clock_reading, watch_events};

/// Pause before a database that is starting or cannot be reached is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after a migration has waited in vain for a table, as long as that wait, during which statements of running coordinators
/// wait behind it.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// Most connections of a coordinator: those of its reads, and one each for submissions, the lease, new events and the changes of a
/// leader.
const CONNECTIONS: usize = reads::CONNECTIONS + 4;

/// Place of a store.
#[derive(Clone)]
pub struct StoreSettings {
    /// The database, as libpq's connection URI: `postgres://user:password@host:port,host:port/database?sslmode=…`.
    pub url: String,
    /// Place of results above 64 KiB, which all coordinators share.
    pub results_url: Option<Url>,
    /// Duration of this coordinator's leases of the leadership. Other coordinators may have another one.
    pub lease: Duration,
    /// How long a start waits for a database that cannot be reached.
    pub patience: Duration,
}

impl std::fmt::Debug for StoreSettings {
    /// Leaves out the database, whose URI may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url: _, results_url, lease, patience } = self;
        f.debug_struct("StoreSettings")
            .field("results_url", results_url)
            .field("lease", lease)
            .field("patience", patience)
            .finish_non_exhaustive()
    }
}

/// An opened database. A drop ends its watch.
pub struct PostgresStore {
    // Drives the pools and the watch.
    _io: Arc<Io>,
    target: Arc<Target>,
    lease: Duration,
    readers: Arc<Readers>,
    parked: Parked,
    objects: Objects,
    latest_event: watch::Sender<u64>,
    lost: watch::Sender<Option<String>>,
    clock: watch::Sender<ClockReading>,
    _alive: Arc<()>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("target", &self.target)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

/// Opens the database, and brings its schema up to date if no other coordinator has. Blocks, for up to
/// [`StoreSettings::patience`] while the database cannot be reached.
///
/// # Errors
/// The database cannot be reached or used, or has a newer schema; or the results' place cannot be used.
pub fn open(settings: &StoreSettings) -> Result<PostgresStore, OpenError> {
    let results_url = settings.results_url.as_ref().ok_or(OpenError::NoResultsUrl)?;
    let target = Arc::new(Target::parse(&settings.url)?);
    let io = Io::start("store-reads-io")?;
    let Prepared { id, latest, clock, named } = io.run(prepare(&target, settings.patience))?;
    let objects = Objects::open(results_url)?.of_store(id);
    if let Some(name) = named {
        let objects = objects.clone();
        drop(io.handle().spawn(async move { look_for(&objects, &name).await }));
    }
    let latest_event = watch::Sender::new(latest);
    let alive = Arc::new(());
    let (lost, clock) = (watch::Sender::new(None), watch::Sender::new(clock));
    let watch = Watch { latest: latest_event.clone(), lost: lost.clone(), clock: clock.clone() };
    let watching = watch_events(target.clone(), watch, Arc::downgrade(&alive));
    drop(io.handle().spawn(watching));
    drop(io.handle().spawn(target.pulse.clone().beat(Arc::downgrade(&alive))));
    let readers = Arc::new(Readers::new(&io, &target));
    let (lease, parked) = (settings.lease, Parked::default());
    Ok(PostgresStore { _io: io, target, lease, readers, parked, objects, latest_event, lost, clock, _alive: alive })
}

/// State of an opened database.
pub(crate) struct Prepared {
    /// The store's own id.
    pub(crate) id: Uuid,
    /// The newest event.
    latest: u64,
    clock: ClockReading,
    /// The object of a result, if any result has one.
    named: Option<String>,
}

pub(crate) async fn prepare(target: &Target, patience: Duration) -> Result<Prepared, OpenError> {
    let link = connect_to_schema(target, patience).await?;
    let failed = |error: DbError| unusable(target, &error);
    let sql = "SELECT store, event, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM fence, counter";
    // Prepared first, so that the timing does not include it.
    link.query_opt(sql, &[]).await.map_err(failed)?;
    let asked_at = Instant::now();
    let row = link.query_opt(sql, &[]).await.map_err(failed)?;
    let row = row.ok_or_else(|| failed(DbError::Damaged("the fence's row is gone".to_owned())))?;
    let clock = clock_reading(asked_at, Instant::now(), &row, 2).map_err(failed)?;
    let (id, latest) = (rows::get(&row, 0).map_err(failed)?, rows::count(&row, 1).map_err(failed)?);
    // Read last: an error here, as of a damaged page, does not stop the start.
    let named = named_object(&link).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the name of any large result");
        None
    });
    Ok(Prepared { id, latest, clock, named })
}

/// Connects, and brings the schema up to date: again if a running coordinator was in its way.
async fn connect_to_schema(target: &Target, patience: Duration) -> Result<Link, OpenError> {
    let since = Instant::now();
    let left = || patience.saturating_sub(since.elapsed());
    loop {
        let link = connect(target, left()).await?;
        check_sessions(&link, target, left()).await?;
        let Err(error) = schema::migrate(&link.client, &target.place).await else { return Ok(link) };
        let pause = match error.passing() {
            Some(error) if !left().is_zero() => {
                tracing::warn!(%error, database = target.place, "the schema is not up to date yet: trying again");
                if error.is(&SqlState::LOCK_NOT_AVAILABLE) { LOCK_PAUSE } else { PAUSE }
            }
            _ => return Err(error.told(&target.place)),
        };
        // Ends the session with its transaction.
        drop(link);
        tokio::time::sleep(pause.min(left())).await;
    }
}

/// The object that comes last by its name: retention deletes it late.
async fn named_object(link: &Link) -> Result<Option<String>, DbError> {
    const SQL: &str = "SELECT object FROM results WHERE object IS NOT NULL ORDER BY object DESC LIMIT 1";
    let row = link.query_opt(SQL, &[]).await?;
    row.map(|row| rows::get(&row, 0)).transpose()
}

/// Warns if an object that the database names is not in the place of results, as where the other coordinators have another one.
async fn look_for(objects: &Objects, name: &str) {
    match objects.has_result(name).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            object = name,
            "a result is not in the place of results: all coordinators need the same one (DIVVY_RESULTS_URL)"
        ),
        Err(error) => {
            tracing::warn!(%error, object = name, "cannot look into the place of results (DIVVY_RESULTS_URL)");
        }
    }
}

pub(crate) async fn connect(target: &Target, patience: Duration) -> Result<Link, OpenError> {
    let (since, mut is_told) = (Instant::now(), false);
    loop {
        match Link::connect(target, Purpose::Leasing).await {
            Ok(link) => return Ok(link),
            Err(error) if error.may_pass() && since.elapsed() < patience => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, database = target.place, "waiting for the database");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(unusable(target, &error)),
        }
    }
}

/// The reason why the database cannot be used. A statement that was prepared in another session, or a name that another client
/// has used there, is a sign of a pooler, too.
fn unusable(target: &Target, error: &DbError) -> OpenError {
    let place = target.place.clone();
    if error.is(&SqlState::INVALID_SQL_STATEMENT_NAME) || error.is(&SqlState::DUPLICATE_PSTATEMENT) {
        return OpenError::Pooler { place };
    }
    let mut detail = error.to_string();
    if error.is_full() {
        detail += &format!(
            "; end other sessions, or raise max_connections or the limit of the role or the database: a coordinator has up to \
             {CONNECTIONS} connections"
        );
    }
    OpenError::Unavailable { place, detail }
}

/// Refuses a pooler that gives one session's transactions to another: settings of one connection would appear in another.
async fn check_sessions(link: &Link, target: &Target, patience: Duration) -> Result<(), OpenError> {
    let failed = |error: DbError| unusable(target, &error);
    let other = connect(target, patience).await?;
    for _ in 0..3 {
        let mark = Uuid::new_v4();
        let set = format!("SET divvy.session = '{mark}'");
        link.client.batch_execute(&set).await.map_err(|error| failed(error.into()))?;
        let ask = "SELECT current_setting('divvy.session', true)";
        let mut found = Vec::new();
        for asked in [&other, link] {
            let row = asked.client.query_one(ask, &[]).await.map_err(|error| failed(error.into()))?;
            found.push(row.get::<_, Option<String>>(0) == Some(mark.to_string()));
        }
        if found != [false, true] {
            return Err(OpenError::Pooler { place: target.place.clone() });
        }
    }
    Ok(())
}

impl Shared for PostgresStore {
    fn lost(&self) -> Losing {
        let mut lost = self.lost.subscribe();
        Box::pin(async move {
            let found = lost.wait_for(Option::is_some).await.ok().and_then(|lost| lost.clone());
            match found {
                Some(lost) => lost,
                // The store is closed.
                None => std::future::pending().await,
            }
        })
    }

    fn clock(&self) -> Option<watch::Receiver<ClockReading>> {
        Some(self.clock.subscribe())
    }

    fn leadership(&self) -> Box<dyn Leadership> {
        Box::new(PostgresLeadership::new(&self.target, self.lease))
    }

    fn lead(&self, epoch: Epoch) -> Result<Parts, LeadershipError> {
        let latest_event = self.latest_event.clone();
        let lost = self.lost.clone();
        let (leader, last_batch) = Leader::open(&self.target, &self.parked, epoch, latest_event.clone(), lost)?;
        let (reads, objects) = (self.readers.clone(), self.objects.clone());
        Ok(Parts { backend: Box::new(leader), reads, objects, epoch, last_batch, latest_event })
    }

    fn follow(&self) -> Result<FollowerParts, LeadershipError> {
        let latest_event = self.latest_event.clone();
        let submitter = Submitter::open(&self.target, &self.parked, latest_event.clone());
        let submitter = Box::new(submitter.map_err(|error| LeadershipError::Unavailable(error.to_string()))?);
        let (reads, objects) = (self.readers.clone(), self.objects.clone());
        Ok(FollowerParts { submitter, reads, objects, latest_event })
    }

    fn members(&self) -> Reading<'_, Vec<MemberStatus>> {
        self.readers.any.read(|link| async move { members(&link).await })
    }
}
