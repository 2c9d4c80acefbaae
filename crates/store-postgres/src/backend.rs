//! The writing halves: the leader's, whose batches pass the fence, and a follower's, which submits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use store::backend::{Applied, Backend, BatchError, raise_latest};
use store::{Answer, Batch, Epoch, LeadershipError, WriteError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::error::{DbError, batch_error, leadership_error, write_error};
use crate::io::Io;
use crate::link::{Link, Purpose};
use crate::rows;
use crate::target::Target;
use crate::transaction::{Failed, Manner, Work};

/// Number of times that a batch is tried again at once after a conflict with another coordinator or the end of its session.
const TRIES: usize = 4;
/// Longest time that an idle connection may take to answer a check.
const CHECK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
/// Announces a new event after the commit: a hint that nothing depends on.
const HINT: &str = "NOTIFY divvy_events";
const FENCE: &str = "SELECT epoch, batch, (SELECT event FROM counter) FROM fence";

/// The connection of a writer, made again when it is lost.
#[derive(Debug)]
struct Line {
    io: Arc<Io>,
    target: Arc<Target>,
    link: Option<Link>,
}

/// Whether another coordinator has accepted a job under the same id or key meanwhile, or waited for one of these names while it
/// held another; or whether the server reports that a repetition may succeed.
fn was_in_the_way(error: &DbError) -> bool {
    error.is(&SqlState::UNIQUE_VIOLATION)
        || error.is(&SqlState::T_R_DEADLOCK_DETECTED)
        || error.is(&SqlState::T_R_SERIALIZATION_FAILURE)
}

impl Line {
    fn new(target: &Arc<Target>) -> std::io::Result<Self> {
        Ok(Self { io: Io::start("store-writer-io")?, target: target.clone(), link: None })
    }

    async fn link<'a>(link: &'a mut Option<Link>, target: &Target) -> Result<&'a Link, DbError> {
        if link.as_ref().is_none_or(|link| link.client.is_closed()) {
            *link = None;
            return Ok(link.insert(Link::connect(target, Purpose::Writing).await?));
        }
        link.as_ref().ok_or(DbError::NoAnswer)
    }

    /// Writes a batch, unless the database is silent. The connection is usable or closed afterwards.
    fn write(
        &mut self,
        work: &mut Work,
        batch: &Batch,
        manner: Manner,
        prepared: &mut Option<Vec<Answer>>,
    ) -> Result<Applied, Failed> {
        let Self { io, target, link } = self;
        let target: &Target = target;
        let written = io.run(async {
            let mut tries = 0;
            loop {
                *prepared = None;
                let writing = async {
                    let link = Self::link(link, target).await.map_err(Failed::RolledBack)?;
                    work.write(link, batch, manner, prepared).await
                };
                let written = target.pulse.unless_silent(writing).await.unwrap_or_else(|| {
                    work.ledgers.forget();
                    let error = DbError::NoAnswer;
                    // The commit is sent once the answers are prepared.
                    Err(if prepared.is_some() { Failed::Unknown(error) } else { Failed::RolledBack(error) })
                });
                match written {
                    Err(Failed::RolledBack(error)) if was_in_the_way(&error) && tries < TRIES => tries += 1,
                    // The end of a session does not mean that the next one fails.
                    Err(Failed::RolledBack(error)) if error.is_of_the_session() && tries < TRIES => {
                        tries += 1;
                        *link = None;
                    }
                    written => return written,
                }
            }
        });
        if let Err(Failed::RolledBack(error) | Failed::Unknown(error)) = &written
            && (!error.is_answer() || error.is_of_the_session())
        {
            self.link = None;
        }
        written
    }

    /// Announces a new event to the others, without waiting for the answer.
    fn hint(&self) {
        if let Some(link) = &self.link {
            let _ = link.client.batch_execute(HINT).now_or_never();
        }
    }

    /// Whether the database answers.
    fn check(&mut self) -> Result<(), WriteError> {
        let Self { io, target, link } = self;
        let checked = io.run(async {
            let link = Self::link(link, target).await?;
            timeout(CHECK_TIMEOUT, link.client.batch_execute("")).await.map_err(|_| DbError::NoAnswer)??;
            Ok::<_, DbError>(())
        });
        self.target.pulse.note(&checked);
        checked.map_err(|error| {
            self.link = None;
            write_error(&error)
        })
    }
}

/// A follower's connection while the follower does not use it. A coordinator that comes to lead takes it if the server allows no
/// more connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked(Arc<Mutex<Option<Link>>>);

impl Parked {
    fn slot(&self) -> MutexGuard<'_, Option<Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Link> {
        self.slot().take()
    }

    /// Parks a connection if none is there.
    fn put(&self, link: &mut Option<Link>) {
        let mut slot = self.slot();
        if slot.is_none() {
            *slot = link.take();
        }
    }
}

/// The error of a batch that was sent before with an unknown outcome. A failure to send it again, as when the server refuses
/// connections, leaves the outcome unknown. An error in its entries settles it: such a batch is never committed.
fn still_in_doubt(error: BatchError) -> BatchError {
    match error {
        BatchError::RolledBack(error) => BatchError::Unknown(error),
        known @ (BatchError::Deterministic { .. }
        | BatchError::Damaged { .. }
        | BatchError::Unknown(_)
        | BatchError::Superseded { .. }) => known,
    }
}

/// Writes for the leader of an epoch.
#[derive(Debug)]
pub(crate) struct Leader {
    line: Line,
    work: Work,
    epoch: Epoch,
    latest_event: watch::Sender<u64>,
    /// Description of a loss of the database's data.
    lost: watch::Sender<Option<String>>,
    /// The last batch that was committed, with its answers.
    last: Option<(u64, Applied)>,
    /// A batch that may be committed, with its answers.
    in_doubt: Option<(u64, Vec<Answer>)>,
}

/// The committed epoch, its last batch, and the newest event.
struct Fence {
    epoch: Epoch,
    batch: u64,
    event: u64,
}

async fn read_fence(link: &Link) -> Result<Fence, DbError> {
    let row = link.query_opt(FENCE, &[]).await?;
    let row = row.ok_or_else(|| DbError::Damaged("the fence's row is gone".to_owned()))?;
    Ok(Fence { epoch: Epoch(rows::count(&row, 0)?), batch: rows::count(&row, 1)?, event: rows::count(&row, 2)? })
}

impl Leader {
    /// The leader's writer, with the last committed batch of the epoch.
    pub(crate) fn open(
        target: &Arc<Target>,
        parked: &Parked,
        epoch: Epoch,
        latest_event: watch::Sender<u64>,
        lost: watch::Sender<Option<String>>,
    ) -> Result<(Self, u64), LeadershipError> {
        let mut line = Line::new(target).map_err(|error| LeadershipError::Unavailable(error.to_string()))?;
        let (io, slot) = (line.io.clone(), &mut line.link);
        let reading = async {
            let failure = Line::link(slot, target).await.err();
            if let Some(error) = failure {
                *slot = if error.is_full() { parked.take() } else { None };
                if slot.is_none() {
                    return Err(error);
                }
            }
            read_fence(Line::link(slot, target).await?).await
        };
        let read = io.run(target.pulse.answer(reading));
        let fence = read.map_err(|error| leadership_error(&error))?;
        if fence.epoch != epoch {
            return Err(LeadershipError::Lost { epoch, current: fence.epoch });
        }
        raise_latest(&latest_event, fence.event);
        let leader = Self { line, work: Work::default(), epoch, latest_event, lost, last: None, in_doubt: None };
        Ok((leader, fence.batch))
    }

    fn write(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let was_in_doubt = self.in_doubt.as_ref().is_some_and(|(id, _)| *id == batch.id);
        let mut prepared = None;
        match self.line.write(&mut self.work, batch, Manner::Fenced, &mut prepared) {
            Ok(applied) => {
                self.in_doubt = None;
                Ok(applied)
            }
            Err(Failed::Fenced) => self.find_out(batch),
            Err(Failed::RolledBack(error)) if was_in_doubt => Err(still_in_doubt(batch_error(&error))),
            Err(Failed::RolledBack(error)) => Err(batch_error(&error)),
            Err(Failed::Unknown(error)) => {
                if let Some(answers) = prepared {
                    self.in_doubt = Some((batch.id, answers));
                }
                Err(BatchError::Unknown(write_error(&error)))
            }
        }
    }

    /// Finds out why the fence has not let the batch pass: it was committed before, or its epoch has passed, or it is out of
    /// order.
    fn find_out(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let Line { io, target, link } = &mut self.line;
        let target: &Target = target;
        let reading = async { read_fence(Line::link(link, target).await?).await };
        let fence = match io.run(target.pulse.answer(reading)) {
            Ok(fence) => fence,
            Err(error) if self.in_doubt.is_some() => return Err(BatchError::Unknown(write_error(&error))),
            Err(error) => return Err(BatchError::RolledBack(write_error(&error))),
        };
        if fence.epoch != batch.epoch {
            return Err(BatchError::Superseded { current: fence.epoch });
        }
        if let Some(last) = self.last.as_ref().map(|(id, _)| *id).filter(|last| *last > fence.batch) {
            return Err(self.note_lost(last, fence.batch));
        }
        match self.in_doubt.take() {
            Some((id, answers)) if id == batch.id && fence.batch == id => {
                Ok(Applied { answers, latest_event: fence.event })
            }
            _ => {
                let reason = format!("batch {} cannot follow batch {}", batch.id, fence.batch);
                Err(BatchError::Deterministic { entry: None, reason })
            }
        }
    }

    /// Notes that the database lacks a committed batch. The batches after it are valid: their error is temporary, until this
    /// coordinator ends.
    fn note_lost(&self, last: u64, found: u64) -> BatchError {
        let place = &self.line.target.place;
        let lost = format!(
            "the database {place} has lost commits: it had batches of epoch {} up to {last}, and now has them up to {found}",
            self.epoch
        );
        let error = BatchError::RolledBack(WriteError::Unavailable(lost.clone()));
        self.lost.send_replace(Some(lost));
        if self.in_doubt.is_some() { still_in_doubt(error) } else { error }
    }
}

impl Backend for Leader {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        if let Some((_, applied)) = self.last.as_ref().filter(|(id, _)| *id == batch.id && batch.epoch == self.epoch) {
            return Ok(applied.clone());
        }
        let mut applied = self.write(batch)?;
        applied.latest_event = applied.latest_event.max(*self.latest_event.borrow());
        self.last = Some((batch.id, applied.clone()));
        Ok(applied)
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.line.check()
    }
}

/// Submits for a follower.
#[derive(Debug)]
pub(crate) struct Submitter {
    line: Line,
    parked: Parked,
    work: Work,
    latest_event: watch::Sender<u64>,
    in_doubt: Option<u64>,
}

impl Submitter {
    pub(crate) fn open(
        target: &Arc<Target>,
        parked: &Parked,
        latest_event: watch::Sender<u64>,
    ) -> std::io::Result<Self> {
        let (line, parked) = (Line::new(target)?, parked.clone());
        Ok(Self { line, parked, work: Work::default(), latest_event, in_doubt: None })
    }

    fn unpark(&mut self) {
        if self.line.link.is_none() {
            self.line.link = self.parked.take();
        }
    }

    fn submit(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let may_be_stored = self.in_doubt == Some(batch.id);
        let manner = Manner::Submitting { may_be_stored };
        match self.line.write(&mut self.work, batch, manner, &mut None) {
            Ok(mut applied) => {
                self.in_doubt = None;
                applied.latest_event = applied.latest_event.max(*self.latest_event.borrow());
                self.line.hint();
                Ok(applied)
            }
            Err(Failed::RolledBack(error)) if may_be_stored => Err(still_in_doubt(batch_error(&error))),
            Err(Failed::RolledBack(error)) => Err(batch_error(&error)),
            Err(Failed::Unknown(error)) => {
                self.in_doubt = Some(batch.id);
                Err(BatchError::Unknown(write_error(&error)))
            }
            Err(Failed::Fenced) => {
                let reason = "a submission met the fence".to_owned();
                Err(BatchError::Deterministic { entry: None, reason })
            }
        }
    }
}

impl Backend for Submitter {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        self.unpark();
        let applied = self.submit(batch);
        self.parked.put(&mut self.line.link);
        applied
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.unpark();
        let checked = self.line.check();
        self.parked.put(&mut self.line.link);
        checked
    }
}
