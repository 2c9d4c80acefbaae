//! Clients, which submit a job under its id at any coordinator until it is acknowledged, and what must come of the jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use model::{JobId, JobKind, JobOptions, JobState};
use rand::RngExt;
use store::backend::Reads;
use store::{Answer, Batch, ChangeKind, Entry, Epoch, NewJob, Shared};
use uuid::Uuid;

use super::leader::{CHUNK, ready};
use super::member::Power;
use super::{Event, Sharing};
use crate::jobs::take_one;
use crate::outcome::{json, value};
use crate::plan::{MS, Micros};

/// The error of tasks that fail as planned.
pub(crate) const PLANNED_FAILURE: &str = "as planned";

/// The number of attempts: more than fail by the faults of a run.
const MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// The most tasks of a job.
const MAX_TASKS: u64 = 60;

pub(crate) struct SharedJob {
    new: NewJob,
    expected: u128,
    is_acknowledged: bool,
    /// The number of starts of each task.
    starts: Vec<u32>,
    /// The number of failing attempts before one succeeds, by task.
    failures: BTreeMap<u64, u32>,
    /// The number of attempts at each task that failed at their worker, less those whose failure is committed.
    uncounted: BTreeMap<u64, u32>,
    /// The tasks that have failed at a worker: they run again.
    have_failed: BTreeSet<u64>,
}

impl Sharing {
    pub(crate) fn plan_job(&mut self, busy: Micros) {
        let (job, tasks) = (self.jobs.len(), self.rng.random_range(1..=MAX_TASKS));
        let (kind, last) = (JobKind::SUM_OF_PRIMES, tasks * (CHUNK.get() + 1));
        let params = json(format!(r#"{{"a":1,"b":{last}}}"#));
        let new = NewJob {
            id: JobId(Uuid::from_u128(self.rng.random())),
            kind,
            is_individual: false,
            payloads: model::Payloads::default(),
            params,
            tasks,
            options: JobOptions { chunk_size: Some(CHUNK), max_attempts: MAX_ATTEMPTS, ..JobOptions::default() },
            fingerprint: self.rng.random(),
            idempotency_key: None,
            submitted_at: Timestamp::UNIX_EPOCH,
        };
        let starts = vec![0; usize::try_from(tasks).expect("a few")];
        let expected = value(kind, 1, last);
        let mut failures = BTreeMap::new();
        if self.rng.random_bool(0.4) {
            failures.insert(self.rng.random_range(0..tasks), self.rng.random_range(1..4));
        }
        let (is_acknowledged, uncounted, have_failed) = (false, BTreeMap::new(), BTreeSet::new());
        self.jobs.push(SharedJob { new, expected, is_acknowledged, starts, failures, uncounted, have_failed });
        let at = self.rng.random_range(0..busy);
        self.after(at, Event::Submit { job });
    }

    /// Asks any coordinator; a leader has it in its next batch, another one inserts it.
    pub(crate) fn submit(&mut self, job: usize) {
        if self.jobs[job].is_acknowledged {
            return;
        }
        let again = self.rng.random_range(200 * MS..900 * MS);
        self.after(again, Event::Submit { job });
        let member = self.rng.random_range(0..self.members.len());
        if self.members[member].power != Power::Up {
            return;
        }
        let entry = Entry::Submission(Arc::new(self.jobs[job].new.clone()));
        if self.members[member].is_trusted(self.local_now(member)) {
            return self.record(member, entry);
        }
        let Ok(mut parts) = self.members[member].way.follow() else { return };
        let batch = Batch { id: 1, epoch: Epoch::default(), entries: vec![entry] };
        let applied = parts.submitter.apply(&batch);
        let is_lost = self.rng.random_bool(self.lost_answers);
        if let Ok(applied) = applied
            && !is_lost
            && matches!(applied.answers.first(), Some(Answer::Submitted(_)))
        {
            let id = self.jobs[job].new.id;
            self.note(format_args!("member {member} inserts job {id}"));
            self.jobs[job].is_acknowledged = true;
        }
    }

    /// A leader's submission is committed: it takes the job up, and its client hears of it.
    pub(crate) fn acknowledged(&mut self, member: usize, id: JobId) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.new.id == id) {
            job.is_acknowledged = true;
        }
        self.take_up(member, id);
    }

    pub(crate) fn started(&mut self, id: JobId, tasks: &Range<u64>) {
        let has_cuts = self.has_cuts;
        let Some(job) = self.jobs.iter_mut().find(|job| job.new.id == id) else {
            return self.violate("a lease of a job that nobody has submitted");
        };
        for task in tasks.clone() {
            let starts = &mut job.starts[usize::try_from(task).expect("a few")];
            *starts += 1;
            if *starts > 1 && !has_cuts && !job.have_failed.contains(&task) {
                return self.violate(format!("task {task} of job {id} runs again"));
            }
        }
    }

    /// Whether an attempt at these tasks fails as planned.
    pub(crate) fn fails(&mut self, id: JobId, tasks: &Range<u64>) -> bool {
        let Some(job) = self.jobs.iter_mut().find(|job| job.new.id == id) else { return false };
        let fails = take_one(&mut job.failures, tasks);
        for task in tasks.clone().filter(|_| fails) {
            *job.uncounted.entry(task).or_default() += 1;
            job.have_failed.insert(task);
        }
        fails
    }

    /// Checks a batch that the store has applied: each failure of an attempt at its worker counts at most once, whoever leads.
    pub(crate) fn check_applied(&mut self, batch: &Batch) {
        if !self.applied.insert((batch.epoch.0, batch.id)) {
            return;
        }
        for entry in &batch.entries {
            let Entry::Change(change) = entry else { continue };
            let ChangeKind::AttemptFailed { tasks, error, .. } = &change.kind else { continue };
            let job = self.jobs.iter_mut().find(|job| job.new.id == change.job && error == PLANNED_FAILURE);
            let Some(job) = job else { continue };
            for task in tasks.clone() {
                let Some(left) = job.uncounted.get(&task).and_then(|left| left.checked_sub(1)) else {
                    return self.violate(format!("a failure of task {task} of job {} counts twice", change.job));
                };
                job.uncounted.insert(task, left);
            }
        }
    }

    fn reads(&self) -> Arc<dyn Reads> {
        self.members[0].way.follow().expect("the store is reached once the faults have stopped").reads
    }

    pub(crate) fn is_over(&self) -> bool {
        let reads = self.reads();
        let is_over = |job: &SharedJob| {
            let record = ready(reads.job(job.new.id)).flatten();
            job.is_acknowledged && record.is_some_and(|record| record.state.is_over())
        };
        self.jobs.iter().all(is_over)
    }

    pub(crate) fn check_end(&mut self) {
        let reads = self.reads();
        for number in 0..self.jobs.len() {
            let (id, expected) = (self.jobs[number].new.id, self.jobs[number].expected);
            let Some(record) = ready(reads.job(id)).flatten() else {
                return self.violate(format!("job {id} is lost, which was acknowledged"));
            };
            if (record.state, record.value) != (JobState::Succeeded, expected) {
                return self.violate(format!("job {id} is {} with {}, not {expected}", record.state, record.value));
            }
        }
        let events = ready(reads.events(0, None, usize::MAX)).unwrap_or_default();
        if !events.iter().map(|event| event.seq).eq(1..=events.len() as u64) {
            self.violate("events have a gap");
        }
    }
}
