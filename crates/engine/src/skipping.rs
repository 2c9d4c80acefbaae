//! Skips tasks that a client does not want any more while its job goes on.

use std::time::Duration;

use model::{JobId, JobKind};
use scheduler::UnknownJob;
use serde_json::value::RawValue;
use store::{ChangeKind, CompletedAttempt};

use crate::engine::Engine;
use crate::time::Now;

/// The reason why no task of a job can be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipError {
    /// The job is over or unknown.
    #[error(transparent)]
    Unknown(#[from] UnknownJob),
    /// The tasks of this kind have results that cannot be left out.
    #[error("only tasks of a job of the kind tasks can be skipped, not those of the kind {0}")]
    Kind(JobKind),
}

impl Engine {
    /// Ends those of `tasks` that no worker holds and that still have to be done: each has succeeded, with the result null
    /// and without a worker. Returns them.
    ///
    /// # Errors
    /// The job is over or unknown, or of another kind than `tasks`: nothing changes.
    pub fn skip(&mut self, id: JobId, tasks: &[u64], now: Now) -> Result<Vec<u64>, SkipError> {
        let kind = self.jobs.get(&id).ok_or(UnknownJob)?.kind;
        if kind != JobKind::TASKS {
            return Err(SkipError::Kind(kind));
        }
        let mut skipped = Vec::new();
        for task in tasks {
            // The job may end with this task: no other task is open then.
            if self.scheduler.skip(id, &(*task..task.saturating_add(1))).unwrap_or(false) {
                self.note_skipped(id, *task, now);
                skipped.push(*task);
            }
        }
        self.settle(now);
        self.dispatch(now);
        Ok(skipped)
    }

    fn note_skipped(&mut self, id: JobId, task: u64, now: Now) {
        let tasks = task..task + 1;
        let attempt = self.attempts.next();
        let Some(live) = self.jobs.get_mut(&id) else { return };
        live.ended_attempts += 1;
        live.progress.add(live.work.weight(&tasks));
        if !live.is_stored {
            return;
        }
        self.progressed.insert(id);
        let outcome = CompletedAttempt {
            attempt,
            worker: None,
            allocated_at: now.at,
            running_at: now.at,
            completed_at: now.at,
            results: vec![RawValue::NULL.to_owned()],
        };
        self.record(id, ChangeKind::Completed { tasks, value: 0, busy: Duration::ZERO, outcome: Some(outcome) }, now);
    }
}
