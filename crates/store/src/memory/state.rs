//! Committed state of the store in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{JobEvent, JobId, ProgramHash};
use uuid::Uuid;

use crate::backend::Applied;
use crate::batch::Epoch;
use crate::change::ResultBody;
use crate::drains::DrainedWorker;
use crate::position::Position;
use crate::programs::{ProgramRecord, TaskLog};
use crate::record::{AttemptEnd, JobRecord, NewJob, UnfinishedJob};
use crate::rules::{JobLedger, SpanKind};
use crate::shared::Member;
use crate::statistics::{Statistics, Tally};

#[derive(Clone, Debug, Default)]
pub(super) struct CommittedState {
    pub(super) epoch: u64,
    /// The last batch of the epoch that was committed, with its answers.
    pub(super) last: Option<(u64, Applied)>,
    pub(super) last_key: i64,
    pub(super) keys: HashMap<JobId, i64>,
    pub(super) by_idempotency_key: HashMap<String, i64>,
    pub(super) jobs: BTreeMap<i64, StoredJob>,
    pub(super) events: BTreeMap<u64, JobEvent>,
    pub(super) last_event: u64,
    /// Jobs that are forgotten and not swept.
    pub(super) swept: BTreeMap<i64, JobId>,
    pub(super) dropped_objects: BTreeSet<String>,
    pub(super) positions: BTreeMap<String, Position>,
    pub(super) programs: BTreeMap<ProgramHash, ProgramRecord>,
    /// Drained workers, and since when.
    pub(super) drains: BTreeMap<DrainedWorker, Timestamp>,
    /// The holder of the lease and when it expires, by the store's clock.
    pub(super) lease: Option<(Uuid, Duration)>,
    /// The members and when they were announced last.
    pub(super) members: BTreeMap<Uuid, (Member, Duration)>,
    pub(super) statistics: Statistics,
    /// Statistics of the batch at hand.
    pub(super) tally: Tally,
}

#[derive(Clone, Debug)]
pub(super) struct StoredJob {
    pub(super) new: Arc<NewJob>,
    pub(super) ledger: JobLedger,
    /// By first task, then in the order in which they ended.
    pub(super) attempts: BTreeMap<(u64, u64), StoredAttempt>,
    pub(super) attempts_put: u64,
    pub(super) result: Option<ResultBody>,
    pub(super) events: Vec<u64>,
    pub(super) logs: Vec<TaskLog>,
}

#[derive(Clone, Debug)]
pub(super) struct StoredAttempt {
    pub(super) beyond: u64,
    pub(super) worker: String,
    pub(super) end: AttemptEnd,
}

impl CommittedState {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.epoch += 1;
        self.last = None;
        self.epoch()
    }

    pub(super) fn latest_event(&self) -> u64 {
        self.last_event
    }

    pub(super) fn job(&self, id: JobId) -> Option<&StoredJob> {
        self.jobs.get(self.keys.get(&id)?)
    }
}

impl StoredJob {
    pub(super) fn record(&self) -> JobRecord {
        let (new, ledger) = (&self.new, &self.ledger);
        JobRecord {
            id: new.id,
            kind: new.kind,
            params: new.params.clone(),
            options: new.options.clone(),
            state: ledger.state,
            tasks: new.tasks,
            tasks_done: ledger.tasks_done(),
            tasks_failed: ledger.tasks_failed(),
            value: ledger.value,
            check: ledger.check,
            submitted_at: new.submitted_at,
            started_at: ledger.started_at,
            finished_at: ledger.finished_at,
            retried_at: ledger.retried_at,
            attempts: ledger.attempts,
            error: ledger.error.clone(),
            verified: ledger.verified.clone(),
        }
    }

    pub(super) fn unfinished(&self) -> UnfinishedJob {
        let runs = |kind| self.ledger.spans(kind).map(|(tasks, _)| tasks).collect::<Vec<Range<u64>>>();
        let mut job = UnfinishedJob {
            record: self.record(),
            done: runs(SpanKind::Done),
            failed: runs(SpanKind::Failed),
            retries: self.ledger.spans(SpanKind::Retry).collect(),
        };
        job.add_failed_to_done();
        job
    }
}
