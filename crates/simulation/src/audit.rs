//! The invariants, from what the parts of a run show: a second bookkeeping beside the engine's and the store's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine::{Effect, Footprint};
use model::{AttemptId, JobId, JobState, Share};
use scheduler::Revocation;
use store::{Answer, Change, ChangeKind, Entry, Submission};

use crate::coordinator::short;
use crate::disk::is_composed;
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::world::World;

/// Leases that jobs of no higher priority get while a job of the same kind has tasks that wait, beyond as much as its own
/// last lease: the bound of fairness. Each is as long as the longest of them or a task of its own: shares are shares of time.
const MAX_OVERTAKEN: u64 = 64;

/// Longest time for which a reachable worker may go on with an attempt that lost its lease.
const STOP_WITHIN: Micros = 5 * SECOND;

#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Every attempt that was ever leased.
    attempts: BTreeSet<AttemptId>,
    /// Attempts whose failure at their tasks was counted by this coordinator.
    failed: BTreeSet<AttemptId>,
    /// Counted outcomes by the numbers of their changes.
    outcomes: BTreeMap<AttemptId, u64>,
    last_completed: u64,
    durable: u64,
    ledgers: BTreeMap<JobId, Ledger>,
    /// Times that workers began each task.
    starts: BTreeMap<(JobId, u64), u32>,
    /// Jobs of which a second attempt outran the first.
    outrun: BTreeSet<JobId>,
    overtaken: BTreeMap<JobId, Overtaken>,
    /// Whether a worker or a lease was lost: tasks may have run again.
    pub(crate) is_lossy: bool,
    insisted_at: Micros,
    /// Start of the time in which workers hold attempts that the engine does not know.
    void_since: BTreeMap<AttemptId, Micros>,
}

/// Work time that other jobs got since the last lease of a waiting job.
#[derive(Clone, Copy, Debug, Default)]
struct Overtaken {
    /// The duration of the job's own last lease.
    own: Micros,
    others: Micros,
    longest: Micros,
}

/// The committed state of a job, task by task.
#[derive(Debug, Default)]
struct Ledger {
    done: BTreeSet<u64>,
    value: u128,
    is_over: bool,
    is_succeeded: bool,
}

impl Audit {
    pub(crate) fn coordinator_starts(&mut self) {
        self.outcomes.clear();
        self.failed.clear();
        self.overtaken.clear();
        self.void_since.clear();
        self.durable = 0;
    }

    pub(crate) fn recorded(&mut self, number: u64, change: &Change) {
        if let ChangeKind::Completed { .. } | ChangeKind::Checked { .. } = &change.kind {
            self.last_completed = number;
        }
    }

    /// Whether the failure of an attempt is counted for the first time, if it is counted.
    pub(crate) fn task_failure_counted(&mut self, attempt: AttemptId, is_counted: bool) -> bool {
        !is_counted || self.failed.insert(attempt)
    }

    /// Whether an outcome counts but is not durable.
    pub(crate) fn is_pending(&self, attempt: AttemptId) -> bool {
        self.outcomes.get(&attempt).is_some_and(|number| *number > self.durable)
    }
}

impl World {
    pub(crate) fn audit_effects(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Send(order) => {
                    self.audit_lease(order.attempt, order.job, &order.tasks);
                    self.audit_settled(&order.settled);
                }
                Effect::Deliver { lease, .. } => self.audit_lease(lease.attempt, lease.job, &lease.tasks),
                Effect::Revoke { attempt, reason: Revocation::OutrunBySecondAttempt, .. } => {
                    let job = self.held_attempt_job(*attempt);
                    self.audit.outrun.extend(job);
                }
                Effect::Revoke { .. }
                | Effect::Store(_)
                | Effect::Answer { .. }
                | Effect::Suspended { .. }
                | Effect::Lacks { .. }
                | Effect::Compose { .. } => (),
            }
        }
    }

    fn held_attempt_job(&self, attempt: AttemptId) -> Option<JobId> {
        self.workers.iter().find_map(|worker| worker.held.get(&attempt)).map(|held| held.order.job)
    }

    /// A claim that was answered at once.
    pub(crate) fn audit_claim(&mut self, attempt: AttemptId) {
        let now = self.clock();
        let lease = self.coordinator.as_ref().and_then(|found| found.engine.lease(attempt, now));
        match lease {
            Some((job, tasks, _)) => self.audit_lease(attempt, job, &tasks),
            None => self.violate("a claim is answered without a lease"),
        }
    }

    fn audit_lease(&mut self, attempt: AttemptId, job: JobId, tasks: &Range<u64>) {
        if !self.audit.attempts.insert(attempt) {
            self.violate(format!("{} is leased twice", short(attempt)));
        }
        if let Some(number) = self.by_id.get(&job).copied() {
            if self.jobs[number].paused_since.is_some() {
                self.violate(format!("job {number} is paused, and tasks {tasks:?} are leased"));
            }
            if self.jobs[number].is_canceled {
                self.violate(format!("job {number} is canceled, and tasks {tasks:?} are leased"));
            }
            if self.plan.faults == Faults::None {
                self.audit_fairness(number, tasks.end - tasks.start);
            }
        }
    }

    /// A job that waits is not overtaken for ever by jobs of its kind that are no more urgent.
    fn audit_fairness(&mut self, leased: usize, tasks: u64) {
        let (kind, priority) = (self.jobs[leased].new.kind, self.jobs[leased].new.options.priority);
        let (id, own) = (self.jobs[leased].new.id, tasks * self.jobs[leased].task_time);
        self.audit.overtaken.insert(id, Overtaken { own, ..Overtaken::default() });
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let waits = |job: &&crate::client::SimJob| {
            let is_rival = job.new.kind == kind && job.new.options.priority >= priority && job.paused_since.is_none();
            let pending = coordinator.engine.job(job.new.id).map_or(0, |live| live.counts.pending);
            // Tasks of a verified job may wait for a certain worker.
            is_rival
                && job.new.options.verify.is_none()
                && pending > 0
                && coordinator.disk.job(job.new.id).is_some_and(|found| found.state != JobState::Paused)
        };
        let rivals = self.jobs.iter().enumerate().filter(|(number, job)| *number != leased && waits(job));
        let rivals: Vec<_> = rivals.map(|(number, job)| (number, job.new.id, job.task_time)).collect();
        // Each of them may have had as much as the job itself.
        let sharers = self.jobs.iter().filter(|job| job.new.kind == kind).count() as u64;
        for (number, id, rival_time) in rivals {
            let overtaken = self.audit.overtaken.entry(id).or_default();
            overtaken.others += own;
            overtaken.longest = overtaken.longest.max(own).max(rival_time);
            if overtaken.others > overtaken.own * sharers + MAX_OVERTAKEN * overtaken.longest {
                let microseconds = overtaken.others;
                self.violate(format!("job {number} is overtaken by {microseconds} us of jobs that are no more urgent"));
            }
        }
    }

    /// An outcome counts.
    pub(crate) fn audit_counted(&mut self, attempt: AttemptId, is_stored: bool) {
        let waits = self.coordinator.as_ref().is_some_and(|found| found.engine.is_compared(attempt));
        if is_stored && !waits && self.audit.outcomes.insert(attempt, self.audit.last_completed).is_some() {
            self.violate(format!("{} counts twice", short(attempt)));
        }
    }

    /// Checks that settled attempts, which their worker forgets, are durable or void.
    pub(crate) fn audit_settled(&mut self, settled: &[AttemptId]) {
        for attempt in settled {
            if self.audit.is_pending(*attempt) {
                self.violate(format!("{} is settled before its outcome is durable", short(*attempt)));
            }
        }
    }

    pub(crate) fn audit_durable(&mut self, number: u64) {
        self.audit.durable = self.audit.durable.max(number);
    }

    pub(crate) fn audit_started(&mut self, job: JobId, tasks: &Range<u64>) {
        if self.by_id.contains_key(&job) {
            for task in tasks.clone() {
                *self.audit.starts.entry((job, task)).or_default() += 1;
            }
        }
    }

    /// Checks an entry that the store has committed: each task counts once, and a job that is over stays as it is. `number` is
    /// that of a recorded change.
    pub(crate) fn audit_committed(&mut self, entry: &Entry, number: u64, answer: &Answer) {
        let change = match entry {
            Entry::Change(change) => change,
            Entry::Submission(new) => {
                let is_known = self.audit.ledgers.contains_key(&new.id);
                match answer {
                    Answer::Submitted(Submission::New) if is_known => self.violate("a job is accepted twice"),
                    Answer::Submitted(Submission::New) => drop(self.audit.ledgers.insert(new.id, Ledger::default())),
                    Answer::Done
                    | Answer::Submitted(_)
                    | Answer::Mismatch(_)
                    | Answer::Elsewhere(_)
                    | Answer::Deleted(_)
                    | Answer::Refused(_) => (),
                }
                return;
            }
            Entry::Housekeeping(_)
            | Entry::Advance(_)
            | Entry::Program(_)
            | Entry::Log(_)
            | Entry::Drain(_)
            | Entry::Nothing => return,
        };
        let Some(ledger) = self.audit.ledgers.get_mut(&change.job) else {
            return self.violate("a change names a job that was not accepted");
        };
        match &change.kind {
            ChangeKind::Retried if !ledger.is_succeeded => ledger.is_over = false,
            // The outcome came during the commit of its job's end: it does not count, and may count after a retry.
            ChangeKind::Completed { .. } | ChangeKind::Checked { .. } if ledger.is_over => {
                self.audit.outcomes.retain(|_, counted| *counted != number);
            }
            _ if ledger.is_over => (),
            ChangeKind::Completed { tasks, value, .. } => {
                let again = tasks.clone().filter(|task| !ledger.done.insert(*task)).count();
                ledger.value = ledger.value.wrapping_add(*value);
                if again > 0 {
                    self.violate(format!("tasks {tasks:?} count twice"));
                }
            }
            ChangeKind::Checked { tasks, .. } => {
                if tasks.clone().any(|task| !ledger.done.insert(task)) {
                    self.violate(format!("tasks {tasks:?} count twice"));
                }
            }
            ChangeKind::Reopened { tasks, value, .. } => {
                ledger.value = ledger.value.wrapping_sub(*value);
                if tasks.iter().flat_map(Clone::clone).any(|task| !ledger.done.remove(&task)) {
                    self.violate(format!("tasks {tasks:?} are opened again and were not done"));
                }
            }
            ChangeKind::Canceled => ledger.is_over = true,
            ChangeKind::Ended { state, .. } => {
                (ledger.is_over, ledger.is_succeeded) = (true, *state == JobState::Succeeded);
            }
            ChangeKind::Started
            | ChangeKind::Paused
            | ChangeKind::Resumed
            | ChangeKind::Compared { .. }
            | ChangeKind::AttemptFailed { .. }
            | ChangeKind::TasksFailed { .. }
            | ChangeKind::Progress
            | ChangeKind::Retried => (),
        }
    }

    pub(crate) fn check_step(&mut self) {
        if let Some(coordinator) = self.coordinator.as_ref() {
            coordinator.engine.check();
        }
    }

    /// Checks each second that the engine knows all open stored jobs, with a reason to wait, and that attempts without a lease
    /// end.
    pub(crate) fn check_tick(&mut self) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let mut wrong = Vec::new();
        if coordinator.disk.is_idle() {
            for unfinished in coordinator.disk.unfinished(None) {
                let id = unfinished.record.id;
                let is_asked_for = coordinator.locks.contains_key(&id);
                if !is_asked_for && coordinator.engine.explain(id).is_none() {
                    wrong.push(format!("job {} is not over, and the engine does not know it", self.name(id)));
                }
            }
        }
        let unknown = coordinator.registrations.values().find(|known| coordinator.engine.worker(known.key).is_none());
        wrong.extend(unknown.map(|known| format!("the engine does not know the worker {:?}", known.key)));
        self.check_void(&mut wrong);
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
    }

    fn check_void(&mut self, wrong: &mut Vec<String>) {
        let now = self.clock();
        // A coordinator that stops takes no heartbeats, so its workers get no answers.
        let Some(coordinator) = self.coordinator.as_ref().filter(|found| !found.is_stopping) else { return };
        let reached = self.workers.iter().filter(|worker| worker.is_up && !worker.is_cut);
        // The connection of any other lease may be half open, and its computation then ends by itself.
        let is_stored = |held: &&crate::worker::SimLease| held.order.outlives_connection;
        let held = reached.flat_map(|worker| worker.held.values().filter(is_stored));
        let held = held.map(|held| &held.order.attempt);
        let void = |attempt: &&AttemptId| {
            let is_known = coordinator.engine.is_unsettled(**attempt) || self.audit.is_pending(**attempt);
            coordinator.engine.lease(**attempt, now).is_none() && !is_known
        };
        let void: BTreeSet<_> = held.filter(void).copied().collect();
        self.audit.void_since.retain(|attempt, _| void.contains(attempt));
        for attempt in void {
            let since = *self.audit.void_since.entry(attempt).or_insert(self.now);
            // Messages are lost while there are faults.
            if self.now - since > STOP_WITHIN
                && (self.plan.faults != Faults::All || self.is_calm)
                && self.plan.max_delay < 100 * MS
            {
                wrong.push(format!("{} has no lease, and its worker goes on with it", short(attempt)));
            }
        }
    }

    /// Whether all jobs are over without remains. Clients resume paused jobs and retry failed ones.
    pub(crate) fn is_over(&mut self) -> bool {
        let Some(coordinator) = self.coordinator.as_ref().filter(|found| !found.is_stopping) else { return false };
        if !self.asks_are_over() || !coordinator.disk.is_idle() || !coordinator.locks.is_empty() {
            return false;
        }
        let states: Vec<_> =
            self.jobs.iter().map(|job| coordinator.disk.job(job.new.id).map(|found| found.state)).collect();
        let is_due = self.now > self.audit.insisted_at + 10 * SECOND && self.now > self.plan.busy + 40 * SECOND;
        if !is_due {
            return false;
        }
        self.audit.insisted_at = self.now;
        let mut is_over = true;
        for (job, state) in states.into_iter().enumerate() {
            is_over &= state.is_some_and(|state| !self.insist(job, state)) && self.jobs[job].is_accepted;
        }
        is_over && self.held_attempts().is_empty()
    }

    pub(crate) fn describe_open(&self) -> String {
        let Some(coordinator) = self.coordinator.as_ref() else { return "there is no coordinator".to_owned() };
        let mut open: Vec<String> = Vec::new();
        for (number, job) in self.jobs.iter().enumerate() {
            let state = coordinator.disk.job(job.new.id).map(|found| found.state);
            if state.is_none_or(|state| !state.is_over()) {
                let why = coordinator.engine.explain(job.new.id);
                open.push(format!(
                    "job {number} is {state:?}: {}",
                    why.unwrap_or_else(|| "unknown to the engine".to_owned())
                ));
            }
        }
        open.extend(self.held_attempts().into_iter().map(|attempt| format!("{} is held", short(attempt))));
        open.join("; ")
    }

    /// Everything is over: every answer is exact, and nothing is left.
    pub(crate) fn check_end(&mut self) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let mut wrong = Vec::new();
        let left = coordinator.engine.footprint();
        if (Footprint { claims: 0, ..left }) != Footprint::default() || coordinator.engine.unstored() > 0 {
            wrong.push(format!("the engine keeps {left:?} when all is over"));
        }
        for number in 0..self.jobs.len() {
            wrong.extend(self.check_job_end(number).map(|wrong| format!("job {number} {wrong}")));
        }
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
    }

    fn check_job_end(&self, number: usize) -> Option<String> {
        let (job, coordinator) = (&self.jobs[number], self.coordinator.as_ref()?);
        let Some(record) = coordinator.disk.job(job.new.id) else { return Some("was accepted and is lost".to_owned()) };
        let ledger = self.audit.ledgers.get(&job.new.id)?;
        if job.is_canceled && record.state != JobState::Canceled {
            return Some(format!("was canceled and is {}", record.state));
        }
        match record.state {
            JobState::Canceled if job.was_touched => None,
            JobState::Failed if job.is_poisoned => None,
            JobState::Succeeded if job.is_poisoned => Some("succeeded with a task that always fails".to_owned()),
            JobState::Succeeded => {
                let result = coordinator.disk.result(job.new.id);
                // A lie may go unseen where a part is compared; where one was seen, none is left.
                let may_lie = job.new.options.verify.is_some_and(|share| share != Share::ALL) && record.error.is_none();
                if result.as_deref() != Some(&job.expected) && !may_lie {
                    return Some(format!("has the result {result:?}, not {}", job.expected));
                }
                if ledger.done.len() as u64 != job.new.tasks {
                    return Some(format!("succeeded with {} of {} tasks", ledger.done.len(), job.new.tasks));
                }
                let is_range = !job.new.is_individual && !is_composed(job.new.kind);
                if is_range && ledger.value != record.value {
                    return Some(format!("adds up to {}, and its tasks to {}", record.value, ledger.value));
                }
                self.check_starts(number)
            }
            other @ (JobState::Queued
            | JobState::Running
            | JobState::Paused
            | JobState::Failed
            | JobState::Canceled) => Some(format!("is {other}: {:?}", record.error)),
        }
    }

    /// Checks that every task ran once where no fault made another run necessary.
    fn check_starts(&self, number: usize) -> Option<String> {
        let job = &self.jobs[number];
        let is_excused = job.new.options.verify.is_some()
            || job.was_touched
            || self.audit.outrun.contains(&job.new.id)
            || self.audit.is_lossy;
        if self.plan.faults == Faults::All || self.plan.has_failures && !job.failures.is_empty() || is_excused {
            return None;
        }
        let starts = |task| self.audit.starts.get(&(job.new.id, task)).copied().unwrap_or(0);
        let wrong = (0..job.new.tasks).map(|task| (task, starts(task))).find(|(_, starts)| *starts != 1);
        wrong.map(|(task, starts)| format!("ran task {task} {starts} times without need"))
    }
}
