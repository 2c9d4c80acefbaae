//! Writes a batch as one transaction: a flight that begins it and reads rows, and a flight that writes and commits.

use std::collections::HashSet;
use std::time::Duration;

use store::backend::Applied;
use store::rules::Ledgers;
use store::{Answer, Batch, Entry, Housekeeping, WriteError};
use tokio::time::timeout;
use tokio_postgres::Row;

use crate::columns::DROP_OBJECTS;
use crate::error::DbError;
use crate::housekeeping::{cancel_unread, housekeep};
use crate::ids::Ids;
use crate::link::{FlightError, Link, Step};
use crate::loading::{AttemptNeeds, Needs, read_failures};
use crate::plan::{Known, Loaded, Plan};
use crate::rows::{self, Column};
use crate::{drains, programs, statistics};

/// Bound on the time of a flight, after which its connection is given up. The next flight finds out its result.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bound on the time to roll a transaction back.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets the batch that follows the last one of the epoch pass, and fails by a division by zero for any other batch, so that no
/// statement behind it has an effect.
pub(crate) const PASS_FENCE: &str = "WITH passed AS (UPDATE fence SET batch = $2::bigint WHERE epoch = $1::bigint AND batch = $2::bigint - 1 \
     RETURNING 1) SELECT 1 / count(*) FROM passed";
/// The place of [`PASS_FENCE`].
const FENCE_STEP: usize = 1;

/// The reason why a transaction is not known to be committed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The fence has refused the batch.
    Fenced,
    /// Nothing of the batch is written.
    RolledBack(DbError),
    /// The batch may be committed.
    Unknown(DbError),
}

/// State that a writer keeps from batch to batch.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) ledgers: Ledgers<Known>,
    keys: Ids,
    attempts: Ids,
}

impl Default for Work {
    fn default() -> Self {
        Self { ledgers: Ledgers::default(), keys: Ids::of_jobs(), attempts: Ids::of_attempts() }
    }
}

/// Way of writing a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// By the leader, behind the fence.
    Fenced,
    /// By a follower: submissions alone.
    Submitting {
        /// Whether the batch was sent before with an unknown result.
        may_be_stored: bool,
    },
}

impl Work {
    /// Writes a batch. `prepared` gets the answers just before the commit.
    pub(crate) async fn write(
        &mut self,
        link: &Link,
        batch: &Batch,
        manner: Manner,
        prepared: &mut Option<Vec<Answer>>,
    ) -> Result<Applied, Failed> {
        let written =
            Writing { work: self, link, manner, steps: begin(batch, manner), flown: 0 }.write(batch, prepared).await;
        match &written {
            Ok(_) => self.ledgers.keep(),
            Err(failed) => {
                self.ledgers.forget();
                if !matches!(failed, Failed::Unknown(_)) {
                    roll_back(link).await;
                }
            }
        }
        written
    }
}

fn begin<'a>(batch: &Batch, manner: Manner) -> Vec<Step<'a>> {
    let mut steps = vec![Step::Plain("BEGIN")];
    if manner == Manner::Fenced {
        let (epoch, id) = (batch.epoch.0.column(), batch.id.column());
        steps.push(Step::Run { sql: PASS_FENCE, params: vec![Box::new(epoch), Box::new(id)] });
    }
    steps
}

/// Rolls back the connection's transaction, if the server still answers.
async fn roll_back(link: &Link) {
    if !link.client.is_closed()
        && let Ok(Err(error)) = timeout(ROLLBACK_TIMEOUT, link.client.batch_execute("ROLLBACK")).await
    {
        tracing::warn!(%error, "cannot roll a transaction back");
    }
}

/// A batch being written.
struct Writing<'w, 'a> {
    work: &'w mut Work,
    link: &'w Link,
    manner: Manner,
    /// Statements of the next flight.
    steps: Vec<Step<'a>>,
    /// Steps of the flights before.
    flown: usize,
}

impl<'a> Writing<'_, 'a> {
    async fn write(mut self, batch: &'a Batch, prepared: &mut Option<Vec<Answer>>) -> Result<Applied, Failed> {
        let mut answers = Vec::with_capacity(batch.entries.len());
        let mut plan = Plan::default();
        for part in batch.entries.chunk_by(|_, next| !looks_at_rows(next)) {
            let mut part = part;
            if let Some((entry, rest)) = part.split_first()
                && looks_at_rows(entry)
            {
                part = rest;
                if self.manner != Manner::Fenced {
                    answers.push(following());
                } else {
                    // The known jobs must be in the rows, and must be read again if the rows are rolled back.
                    self.put(&mut plan);
                    self.work.ledgers.forget();
                    if let Entry::Housekeeping(Housekeeping::CancelUnread { job, .. }) = entry {
                        self.work.ledgers.discard(*job);
                    }
                    self.fly().await?;
                    answers.push(apart(self.link, &mut plan, entry).await.map_err(Failed::RolledBack)?);
                }
            }
            let programs = programs::needed(part);
            let mut held = HashSet::new();
            if !programs.is_empty() {
                self.fly().await?;
                held = programs::hold(self.link, &programs).await.map_err(Failed::RolledBack)?;
            }
            let mut loaded = self.load(part).await?;
            loaded.programs = held;
            for entry in part {
                answers.push(self.plan(&mut plan, &mut loaded, entry).map_err(Failed::RolledBack)?);
            }
        }
        self.put(&mut plan);
        self.steps.extend(statistics::steps(&plan.tally));
        let events = plan.events.step();
        let has_events = events.is_some();
        self.steps.extend(events);
        self.steps.push(Step::Plain("COMMIT"));
        *prepared = Some(answers.clone());
        let rows = self.fly_to_commit().await?;
        // The statement of the events is the last but for the commit.
        let newest = if has_events { rows.iter().rev().nth(1).and_then(|rows| rows.first()) } else { None };
        let latest_event = newest.map_or(Ok(0), |row| rows::count(row, 0)).map_err(Failed::Unknown)?;
        Ok(Applied { answers, latest_event })
    }

    fn plan(&mut self, plan: &mut Plan<'a>, loaded: &mut Loaded, entry: &'a Entry) -> Result<Answer, DbError> {
        let Work { ledgers, keys, attempts } = &mut *self.work;
        match (entry, self.manner) {
            (Entry::Submission(new), manner) => {
                let may_be_stored = matches!(manner, Manner::Submitting { may_be_stored: true });
                plan.submit(new, None, loaded, keys, may_be_stored)
            }
            (Entry::Advance(advance), Manner::Fenced) => plan.advance(advance, loaded, keys),
            (Entry::Change(change), Manner::Fenced) => plan.change(change, ledgers, loaded, attempts),
            (Entry::Log(log), Manner::Fenced) => plan.log(log, ledgers, loaded),
            (Entry::Change(_) | Entry::Advance(_) | Entry::Log(_), Manner::Submitting { .. }) => Ok(following()),
            (Entry::Housekeeping(_) | Entry::Program(_) | Entry::Drain(_) | Entry::Nothing, _) => Ok(Answer::Done),
        }
    }

    /// Reads the rows that a part of the batch needs.
    async fn load(&mut self, part: &'a [Entry]) -> Result<Loaded, Failed> {
        let needs = Needs::of(part, &self.work.ledgers);
        let questions = needs.steps();
        let mut loaded = Loaded::default();
        if !questions.is_empty() {
            let asked = questions.len();
            let mut steps: Vec<Step<'_>> = std::mem::take(&mut self.steps);
            steps.extend(questions);
            let mut rows = self.send(steps).await.map_err(rolled_back)?;
            loaded = needs.read(rows.split_off(rows.len() - asked)).map_err(Failed::RolledBack)?;
        }
        let attempts = AttemptNeeds::of(part, &self.work.ledgers, &loaded);
        if let Some(question) = attempts.step() {
            let mut steps: Vec<Step<'_>> = std::mem::take(&mut self.steps);
            steps.push(question);
            let rows = self.send(steps).await.map_err(rolled_back)?;
            loaded.failures = read_failures(rows.last().map_or(&[], Vec::as_slice)).map_err(Failed::RolledBack)?;
        }
        let Work { keys, attempts: ids, .. } = &mut *self.work;
        keys.reserve(self.link, needs.submissions).await.map_err(Failed::RolledBack)?;
        ids.reserve(self.link, attempts.rows).await.map_err(Failed::RolledBack)?;
        Ok(loaded)
    }

    /// Puts the plan's rows into the next flight, all but the events.
    fn put(&mut self, plan: &mut Plan<'a>) {
        plan.take_touched(&mut self.work.ledgers);
        let planned = std::mem::take(plan);
        (plan.events, plan.tally) = (planned.events, planned.tally);
        let steps = &mut self.steps;
        steps.extend(planned.jobs.step());
        steps.extend(planned.tags.step());
        steps.extend(planned.payloads.steps());
        steps.extend(planned.attempts.steps());
        steps.extend(planned.spans.steps());
        steps.extend(planned.updates.step());
        steps.extend(planned.results.steps());
        steps.extend(planned.positions.step());
        steps.extend(planned.logs);
        if !planned.dropped_objects.is_empty() {
            steps.push(Step::Run { sql: DROP_OBJECTS, params: vec![Box::new(planned.dropped_objects)] });
        }
    }

    /// Sends the next flight.
    async fn fly(&mut self) -> Result<(), Failed> {
        let steps = std::mem::take(&mut self.steps);
        if !steps.is_empty() {
            self.send(steps).await.map_err(rolled_back)?;
        }
        Ok(())
    }

    async fn fly_to_commit(&mut self) -> Result<Vec<Vec<Row>>, Failed> {
        let steps = std::mem::take(&mut self.steps);
        self.send(steps).await.map_err(|failed| match failed {
            Sent { is_fence: true, .. } => Failed::Fenced,
            Sent { error, .. } if error.is_answer() => Failed::RolledBack(error),
            Sent { error, .. } => Failed::Unknown(error),
        })
    }

    async fn send(&mut self, steps: Vec<Step<'_>>) -> Result<Vec<Vec<Row>>, Sent> {
        let before = self.flown;
        self.flown += steps.len();
        let is_fenced = self.manner == Manner::Fenced;
        match timeout(ANSWER_TIMEOUT, self.link.fly(steps)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(FlightError { step, error })) => {
                let is_fence = is_fenced
                    && before + step == FENCE_STEP
                    && error.is(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO);
                Err(Sent { is_fence, error })
            }
            Err(_) => Err(Sent { is_fence: false, error: DbError::NoAnswer }),
        }
    }
}

/// Whether an entry is carried out by itself instead of planned.
fn looks_at_rows(entry: &Entry) -> bool {
    match entry {
        Entry::Housekeeping(_) | Entry::Program(_) | Entry::Drain(_) => true,
        Entry::Submission(_) | Entry::Change(_) | Entry::Advance(_) | Entry::Log(_) | Entry::Nothing => false,
    }
}

/// Carries out an entry that is not planned.
async fn apart<'a>(link: &Link, plan: &mut Plan<'a>, entry: &'a Entry) -> Result<Answer, DbError> {
    match entry {
        Entry::Housekeeping(Housekeeping::CancelUnread { job, at, why }) => {
            cancel_unread(link, plan, *job, *at, why).await.map(Answer::Deleted)
        }
        Entry::Housekeeping(housekeeping) => housekeep(link, housekeeping).await.map(Answer::Deleted),
        Entry::Program(change) => programs::apply(link, change).await,
        Entry::Drain(change) => drains::apply(link, change).await.map(|()| Answer::Done),
        Entry::Submission(_) | Entry::Change(_) | Entry::Advance(_) | Entry::Log(_) | Entry::Nothing => {
            Ok(Answer::Done)
        }
    }
}

/// A flight that failed.
struct Sent {
    is_fence: bool,
    error: DbError,
}

fn rolled_back(failed: Sent) -> Failed {
    if failed.is_fence { Failed::Fenced } else { Failed::RolledBack(failed.error) }
}

fn following() -> Answer {
    Answer::Refused(WriteError::Following.to_string())
}
