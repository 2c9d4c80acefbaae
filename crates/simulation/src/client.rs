//! Simulated clients of stored jobs: jobs of all kinds, with what is done to them. Requests for a job go the way of the real
//! coordinator: one at a time for each job, on the disk before the engine acts.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::sync::Arc;

use model::{JobId, JobKind, JobOptions, JobState, Priority, Share};
use rand::RngExt;
use store::{Answer, Change, ChangeKind, Entry, NewJob, Submission};

use crate::disk::Waiter;
use crate::outcome::{answer_to, json, value};
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::world::{Event, SETTLING, World};

pub(crate) const CHUNK: NonZeroU64 = NonZeroU64::new(999).expect("not zero");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// A request for a stored job; without an action it submits the job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) job: usize,
    pub(crate) action: Option<Action>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    /// A job that the engine does not know is read from the store once all earlier changes are committed.
    Flushed,
    Committed,
    RetryFlushed,
}

/// A stored job and its clients' knowledge of it.
#[derive(Debug)]
pub(crate) struct SimJob {
    pub(crate) new: NewJob,
    pub(crate) expected: String,
    pub(crate) task_time: Micros,
    /// The number of failing attempts before one succeeds, by task.
    pub(crate) failures: BTreeMap<u64, u32>,
    pub(crate) is_poisoned: bool,
    pub(crate) is_accepted: bool,
    pub(crate) was_touched: bool,
    /// Start of an acknowledged pause, with no other request since.
    pub(crate) paused_since: Option<Micros>,
    /// Whether a cancellation is acknowledged and no retry was requested since.
    pub(crate) is_canceled: bool,
    /// The number of retries that clients may still request before the end.
    retries_left: u32,
}

impl World {
    pub(crate) fn plan_clients(&mut self) {
        for job in 0..self.plan.jobs {
            let new = self.plan_job();
            self.by_id.insert(new.new.id, job);
            self.jobs.push(new);
            let at = self.rng.random_range(0..self.plan.busy);
            self.after(at, Event::Submit { job });
            if self.plan.has_actions {
                let mut when = at;
                for _ in 0..self.rng.random_range(0..6) {
                    when += self.rng.random_range(0..4 * SECOND);
                    let action =
                        [Action::Cancel, Action::Pause, Action::Resume, Action::Retry, Action::Pause, Action::Resume]
                            [self.rng.random_range(0..6)];
                    self.after(when, Event::Act { job, action });
                }
            }
        }
        self.plan_asks();
    }

    pub(crate) fn range_kind(&mut self) -> JobKind {
        if self.rng.random_bool(0.5) { JobKind::SUM_OF_PRIMES } else { JobKind::COUNT_PRIMES }
    }

    pub(crate) fn priority(&mut self) -> Priority {
        Priority::try_from(self.rng.random_range(1..=9)).unwrap_or_default()
    }

    /// The whole where faults let workers or coordinators start again: only then is every lie found.
    fn share(&mut self) -> Option<Share> {
        let is_part = self.plan.faults == Faults::None && self.rng.random_bool(0.7);
        let share = if is_part { Share::try_from(0.4).ok() } else { Some(Share::ALL) };
        share.filter(|_| self.plan.has_liar && self.rng.random_bool(0.6))
    }

    fn plan_job(&mut self) -> SimJob {
        let kinds = if self.plan.pullers > 0 { 4 } else { 3 };
        let tasks = [1, 3, 20, 120][self.rng.random_range(0..4)];
        let tasks = self.rng.random_range(1..=tasks);
        let task_time = [MS / 2, 5 * MS, 60 * MS, 600 * MS][self.rng.random_range(0..4)];
        let (kind, params, payloads, expected) = match self.rng.random_range(0..kinds) {
            2 => {
                let seconds = task_time as f64 / 1e6;
                let params = format!(r#"{{"seconds":{seconds},"tasks":{tasks}}}"#);
                (JobKind::SLEEP, params, Vec::new(), format!(r#"{{"tasks":{tasks}}}"#))
            }
            3 => {
                let numbers: Vec<u64> = (0..tasks).map(|_| self.rng.random_range(0..1_000_000)).collect();
                let answers: Vec<_> = numbers.iter().map(|number| answer_to(*number).to_string()).collect();
                let payloads = numbers.iter().map(|number| json(number.to_string())).collect();
                let expected = format!(r#"{{"tasks":[{}]}}"#, answers.join(","));
                (JobKind::TASKS, format!(r#"{{"count":{tasks}}}"#), payloads, expected)
            }
            _ => {
                let (kind, a) = (self.range_kind(), self.rng.random_range(0..1 << 40));
                let b = a + tasks * 1_000 - 1;
                let (name, total) = (if kind == JobKind::SUM_OF_PRIMES { "sum" } else { "count" }, value(kind, a, b));
                (
                    kind,
                    format!(r#"{{"a":{a},"b":{b}}}"#),
                    Vec::new(),
                    format!(r#"{{"a":{a},"b":{b},"{name}":"{total}"}}"#),
                )
            }
        };
        let is_range = kind == JobKind::SUM_OF_PRIMES || kind == JobKind::COUNT_PRIMES;
        let options = JobOptions {
            verify: if is_range { self.share() } else { None },
            priority: self.priority(),
            max_attempts: NonZeroU32::new(self.rng.random_range(2..6)).unwrap_or(NonZeroU32::MIN),
            chunk_size: Some(CHUNK),
            ..JobOptions::default()
        };
        let mut failures = BTreeMap::new();
        let mut is_poisoned = false;
        if self.plan.has_failures && self.rng.random_bool(0.4) {
            is_poisoned = self.rng.random_bool(0.3);
            let count = if is_poisoned { u32::MAX } else { self.rng.random_range(1..options.max_attempts.get()) };
            failures.insert(self.rng.random_range(0..tasks), count);
        }
        let new = NewJob {
            id: JobId(self.new_uuid()),
            kind,
            is_individual: kind == JobKind::SLEEP || kind == JobKind::TASKS,
            payloads: payloads.into(),
            params: json(params),
            tasks,
            options,
            fingerprint: self.rng.random(),
            idempotency_key: Some(self.new_uuid().to_string()),
            submitted_at: self.clock().at,
        };
        SimJob {
            new,
            expected,
            task_time,
            failures,
            is_poisoned,
            is_accepted: false,
            was_touched: false,
            paused_since: None,
            is_canceled: false,
            retries_left: 20,
        }
    }

    pub(crate) fn compute_time(&mut self, job: JobId, tasks: u64) -> Micros {
        let task = self.by_id.get(&job).map_or(2 * MS, |number| self.jobs[*number].task_time);
        let is_slow = self.plan.faults == Faults::All && !self.is_calm && self.rng.random_bool(0.02);
        let busy = task * tasks;
        // The slowed lease ends while the world settles: the first lease of a job has no faster rival, since the job's cost is
        // unknown before that lease ends.
        let slowed = if is_slow { busy.max((busy * 30).min(SETTLING / 3)) } else { busy };
        slowed.max(100)
    }

    /// Whether an attempt at these tasks fails as planned.
    pub(crate) fn fails(&mut self, job: JobId, tasks: &Range<u64>) -> bool {
        let Some(number) = self.by_id.get(&job) else { return false };
        let job = &mut self.jobs[*number];
        let mut fails = false;
        for (_, left) in job.failures.range_mut(tasks.clone()).filter(|(_, left)| **left > 0) {
            fails = true;
            *left = if *left == u32::MAX { *left } else { *left - 1 };
        }
        fails
    }

    pub(crate) fn submit(&mut self, job: usize) {
        if !self.jobs[job].is_accepted {
            self.begin(Operation { job, action: None, stage: Stage::Begins });
            // Until it is acknowledged, the client asks again.
            self.after(2 * SECOND, Event::Submit { job });
        } else if !self.is_calm && self.rng.random_bool(0.2) {
            // The client has missed the answer.
            self.begin(Operation { job, action: None, stage: Stage::Begins });
        }
    }

    pub(crate) fn act(&mut self, job: usize, action: Action) {
        if !self.jobs[job].is_accepted {
            if self.is_calm {
                self.after(SECOND, Event::Act { job, action });
            }
            return;
        }
        self.jobs[job].was_touched = true;
        match action {
            Action::Resume | Action::Cancel => self.jobs[job].paused_since = None,
            Action::Retry => (self.jobs[job].is_canceled, self.jobs[job].paused_since) = (false, None),
            Action::Pause => (),
        }
        self.note("client", format_args!("asks to {action:?} job {job}"));
        self.begin(Operation { job, action: Some(action), stage: Stage::Begins });
    }

    fn begin(&mut self, operation: Operation) {
        let id = self.jobs[operation.job].new.id;
        let Some(coordinator) = self.coordinator.as_mut().filter(|found| !found.is_stopping) else { return };
        let lock = coordinator.locks.entry(id).or_default();
        lock.push_back(operation);
        if lock.len() == 1 {
            self.go_on(operation, Some(Answer::Done));
        }
    }

    fn end(&mut self, operation: Operation) {
        let id = self.jobs[operation.job].new.id;
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let Some(lock) = coordinator.locks.get_mut(&id) else { return };
        lock.pop_front();
        match lock.front().copied() {
            Some(next) => self.go_on(next, Some(Answer::Done)),
            None => drop(coordinator.locks.remove(&id)),
        }
    }

    /// The next stage of a request; nothing: the disk has refused the last one.
    pub(crate) fn go_on(&mut self, operation: Operation, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.note("client", format_args!("is refused: {operation:?}"));
            if operation.action == Some(Action::Retry) && operation.stage == Stage::RetryFlushed {
                self.jobs[operation.job].is_canceled = false;
            }
            return self.end(operation);
        };
        match operation.action {
            None => self.go_on_submitting(operation, answer),
            Some(action) => self.go_on_acting(operation, action),
        }
    }

    fn go_on_submitting(&mut self, operation: Operation, answer: Answer) {
        let new = self.jobs[operation.job].new.clone();
        match (operation.stage, answer) {
            (Stage::Begins, _) => {
                let next = Operation { stage: Stage::Committed, ..operation };
                return self.call_disk(Waiter::Operation(next), Some(Entry::Submission(Arc::new(new))));
            }
            (_, Answer::Submitted(submission)) => {
                if submission == Submission::New {
                    if self.jobs[operation.job].is_accepted {
                        self.violate(format!("job {} was accepted and is accepted again", operation.job));
                    }
                    let accepted = new.accepted();
                    if self.input(|engine, now| engine.take_up(accepted, now)).is_none_or(|taken| taken.is_err()) {
                        self.violate("a job is refused");
                    }
                }
                if !std::mem::replace(&mut self.jobs[operation.job].is_accepted, true) {
                    let what = format!("job {} is accepted: {:?} {} tasks", operation.job, new.kind, new.tasks);
                    self.note("client", what);
                }
            }
            (_, other) => self.violate(format!("a submission is answered with {other:?}")),
        }
        self.end(operation);
    }

    fn go_on_acting(&mut self, operation: Operation, action: Action) {
        let id = self.jobs[operation.job].new.id;
        let at = self.clock().at;
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        match operation.stage {
            Stage::Begins if !coordinator.engine.knows(id) => {
                self.call_disk(Waiter::Operation(Operation { stage: Stage::Flushed, ..operation }), None);
            }
            Stage::Begins | Stage::Flushed => match self.changes(id, action) {
                None => self.end(operation),
                Some(false) => self.acknowledge(operation, action),
                Some(true) => {
                    if action == Action::Retry
                        && self.input(|engine, now| engine.retry(id, now)).is_some_and(|retried| retried.is_ok())
                    {
                        return self
                            .call_disk(Waiter::Operation(Operation { stage: Stage::RetryFlushed, ..operation }), None);
                    }
                    let kind = match action {
                        Action::Cancel => ChangeKind::Canceled,
                        Action::Pause => ChangeKind::Paused,
                        Action::Resume => ChangeKind::Resumed,
                        Action::Retry => ChangeKind::Retried,
                    };
                    let change = Entry::Change(Change { job: id, at, kind });
                    self.call_disk(Waiter::Operation(Operation { stage: Stage::Committed, ..operation }), Some(change));
                }
            },
            Stage::Committed => {
                match action {
                    Action::Cancel => drop(self.input(|engine, now| engine.cancel(id, now))),
                    Action::Pause => drop(self.input(|engine, now| engine.pause(id, now))),
                    Action::Resume => drop(self.input(|engine, now| engine.resume(id, now))),
                    Action::Retry => {
                        let unfinished = coordinator.disk.unfinished(Some(id)).pop();
                        if let Some(unfinished) = unfinished {
                            self.input(|engine, now| engine.take_up(unfinished, now));
                        }
                    }
                }
                self.acknowledge(operation, action);
            }
            Stage::RetryFlushed => self.acknowledge(operation, action),
        }
    }

    /// Whether a job changes by an action; nothing where it cannot any more.
    fn changes(&self, id: JobId, action: Action) -> Option<bool> {
        use JobState::{Canceled, Failed, Paused, Queued, Running, Succeeded};
        let coordinator = self.coordinator.as_ref()?;
        let record = coordinator.disk.job(id)?;
        let failed = coordinator.engine.job(id).map_or(record.tasks_failed, |live| live.counts.failed);
        match (action, record.state) {
            (Action::Cancel, Queued | Running | Paused)
            | (Action::Pause, Queued | Running)
            | (Action::Resume, Paused) => Some(true),
            (Action::Cancel, Canceled) | (Action::Pause, Paused) | (Action::Resume, Queued | Running) => Some(false),
            (Action::Retry, Failed | Canceled) => Some(true),
            (Action::Retry, Queued | Running | Paused) => Some(failed > 0),
            (Action::Cancel, Succeeded | Failed)
            | (Action::Pause | Action::Resume, Succeeded | Failed | Canceled)
            | (Action::Retry, Succeeded) => None,
        }
    }

    fn acknowledge(&mut self, operation: Operation, action: Action) {
        let number = operation.job;
        let id = self.jobs[number].new.id;
        let state = self.coordinator.as_ref().and_then(|found| found.disk.job(id)).map(|record| record.state);
        // The job may have ended just before.
        let holds = match action {
            Action::Cancel => state == Some(JobState::Canceled),
            Action::Pause => state == Some(JobState::Paused),
            Action::Resume | Action::Retry => true,
        };
        self.note("client", format_args!("{action:?} of job {number} is acknowledged: {holds}"));
        let others = self.coordinator.as_ref().and_then(|found| found.locks.get(&id)).map_or(0, VecDeque::len);
        if holds && others <= 1 {
            match action {
                Action::Cancel => self.jobs[number].is_canceled = true,
                Action::Pause => self.jobs[number].paused_since = Some(self.now),
                Action::Resume | Action::Retry => (),
            }
        }
        self.end(operation);
    }

    /// The faults have stopped: paused jobs are resumed, failed ones are retried.
    pub(crate) fn finish_clients(&mut self) {
        for job in 0..self.jobs.len() {
            if !self.jobs[job].is_accepted {
                self.after(0, Event::Submit { job });
            }
            self.after(20 * SECOND, Event::Act { job, action: Action::Resume });
        }
    }

    /// Repeats the clients' request for a job that has not ended. Returns whether there is an end to wait for.
    pub(crate) fn insist(&mut self, job: usize, state: JobState) -> bool {
        let this = &mut self.jobs[job];
        let action = match state {
            JobState::Failed if !this.is_poisoned && this.retries_left > 0 => Action::Retry,
            JobState::Paused => Action::Resume,
            JobState::Failed | JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Canceled => {
                return !state.is_over();
            }
        };
        this.retries_left = this.retries_left.saturating_sub(1);
        self.act(job, action);
        true
    }
}
