//! Jobs that this version cannot read or the store cannot write: their tasks do not run, and their owner can cancel them.

use model::{EventKind, JobId, JobKind, JobOptions, JobState};
use serde_json::value::RawValue;
use store::{JobRecord, ReadError, Verified};

use super::{ChangeError, Jobs};
use crate::clock::now;

/// The kind of a job whose kind cannot be read.
const UNKNOWN_KIND: JobKind = JobKind::new("unknown");

impl Jobs {
    /// Stops the jobs whose changes cannot be written. Runs for ever.
    pub(crate) async fn follow_unwritable(self) {
        let mut unwritable = self.store.unwritable();
        loop {
            // Some jobs may have been found before this task began.
            let jobs = unwritable.borrow_and_update().clone();
            for (id, error) in jobs {
                self.store.unreadable().note_job(id, &error);
                // The store does not hold the cancellation: the next term tries again.
                self.driver.input(|engine, now| engine.cancel(id, now));
            }
            if unwritable.changed().await.is_err() {
                // The writer has stopped: the store is closed.
                return std::future::pending().await;
            }
        }
    }

    /// Cancels a job, under its lock, without reading it. Returns whether it was not over.
    pub(super) async fn cancel_unread(&self, id: JobId, why: String) -> Result<bool, ChangeError> {
        let is_changed = self.store.cancel_unread(id, now().at, why).await?;
        self.driver.input(|engine, now| engine.cancel(id, now));
        Ok(is_changed)
    }

    /// The record of a canceled job that cannot be read, from its events.
    pub(super) async fn unread_record(&self, id: JobId, why: ReadError) -> Result<JobRecord, ChangeError> {
        let (first, last) =
            (self.store.events(0, Some(id), 1).await?.pop(), self.store.last_events(id, 1).await?.pop());
        let (Some(first), Some(last)) = (first, last) else { return Err(why.into()) };
        if last.kind != EventKind::Canceled {
            return Err(why.into());
        }
        let tasks = last.tasks_total.unwrap_or(0);
        Ok(JobRecord {
            id,
            kind: last.job_kind.unwrap_or(UNKNOWN_KIND),
            params: RawValue::NULL.to_owned(),
            options: JobOptions::default(),
            state: JobState::Canceled,
            tasks,
            tasks_done: last.tasks_done.unwrap_or(0).min(tasks),
            tasks_failed: 0,
            value: 0,
            check: 0,
            submitted_at: first.at,
            started_at: None,
            finished_at: Some(last.at),
            retried_at: None,
            attempts: 0,
            error: Some(why.to_string()),
            verified: Verified::default(),
        })
    }
}
