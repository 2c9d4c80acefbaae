//! Simulated clients of stored jobs: jobs of all kinds, with what is done to them. Requests for a job go the way of the real
//! coordinator: one at a time for each job, on the disk before the engine acts.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use model::{JobId, JobState};
use rand::RngExt;
use store::{Answer, Change, ChangeKind, Entry, Submission};

use crate::disk::Waiter;
use crate::plan::SECOND;
use crate::world::{Event, World};

pub(crate) const CHUNK: NonZeroU64 = NonZeroU64::new(999).expect("not zero");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
    Retry,
    /// Of some tasks.
    Skip,
}

/// The actions that clients draw.
const ACTIONS: [Action; 8] = {
    use Action::{Cancel, Pause, Resume, Retry, Skip};
    [Cancel, Pause, Resume, Retry, Pause, Resume, Skip, Skip]
};

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
                    let action = ACTIONS[self.rng.random_range(0..ACTIONS.len())];
                    self.after(when, Event::Act { job, action });
                }
            }
        }
        self.plan_asks();
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
        self.jobs[job].was_touched |= action != Action::Skip;
        match action {
            Action::Resume | Action::Cancel => self.jobs[job].paused_since = None,
            Action::Retry => (self.jobs[job].is_canceled, self.jobs[job].paused_since) = (false, None),
            Action::Pause | Action::Skip => (),
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
            Some(Action::Skip) => self.go_on_skipping(operation),
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
                    self.account_taken_up(&accepted);
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

    /// Skips some tasks in the engine, and acknowledges them once they are on the disk.
    fn go_on_skipping(&mut self, operation: Operation) {
        let Operation { job, stage, .. } = operation;
        if stage == Stage::Begins {
            let tasks = self.jobs[job].new.tasks;
            let asked: Vec<u64> = (0..self.rng.random_range(1..5)).map(|_| self.rng.random_range(0..=tasks)).collect();
            self.jobs[job].skipping = self.skip(job, &asked);
            self.call_disk(Waiter::Operation(Operation { stage: Stage::Committed, ..operation }), None);
        } else {
            let skipped = std::mem::take(&mut self.jobs[job].skipping);
            self.check_skipped(job, &skipped);
            self.end(operation);
        }
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
                        Action::Skip => return self.end(operation),
                    };
                    let change = Entry::Change(Change { job: id, at, kind });
                    self.call_disk(Waiter::Operation(Operation { stage: Stage::Committed, ..operation }), Some(change));
                }
            },
            Stage::Committed => {
                match action {
                    Action::Cancel => {
                        self.input(|engine, now| engine.cancel(id, now));
                        self.account_closed(id);
                    }
                    Action::Pause => drop(self.input(|engine, now| engine.pause(id, now))),
                    Action::Resume => drop(self.input(|engine, now| engine.resume(id, now))),
                    Action::Skip => (),
                    Action::Retry => {
                        let unfinished = coordinator.disk.unfinished(Some(id)).pop();
                        if let Some(unfinished) = unfinished {
                            self.account_taken_up(&unfinished);
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
            | (Action::Retry, Succeeded)
            | (Action::Skip, _) => None,
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
            Action::Resume | Action::Retry | Action::Skip => true,
        };
        self.note("client", format_args!("{action:?} of job {number} is acknowledged: {holds}"));
        let others = self.coordinator.as_ref().and_then(|found| found.locks.get(&id)).map_or(0, VecDeque::len);
        if holds && others <= 1 {
            match action {
                Action::Cancel => self.jobs[number].is_canceled = true,
                Action::Pause => self.jobs[number].paused_since = Some(self.now),
                Action::Resume | Action::Retry | Action::Skip => (),
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
