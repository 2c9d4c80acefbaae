//! The last events of the jobs that somebody looks at: read on from where the last look ended.

use std::collections::VecDeque;

use model::{JobEvent, JobId};
use store::{ReadError, Store};
use tokio::sync::Mutex;

/// Events of a job that are shown.
const SHOWN: usize = 40;

/// Jobs whose events are kept.
const MAX_TAILS: usize = 64;

/// Events read at a time.
const PAGE: usize = 1_000;

#[derive(Debug)]
struct Tail {
    job: JobId,
    after: u64,
    events: VecDeque<JobEvent>,
}

/// The one looked at last stands last.
#[derive(Debug, Default)]
pub(super) struct EventTails(Mutex<VecDeque<Tail>>);

impl EventTails {
    /// The last events of a job, the newest first.
    pub(super) async fn of(&self, store: &Store, job: JobId) -> Result<Vec<JobEvent>, ReadError> {
        let mut tail = self.take(job).await;
        loop {
            let page = store.events(tail.after, Some(job), PAGE).await?;
            let is_last = page.len() < PAGE;
            tail.after = page.last().map_or(tail.after, |event| event.seq);
            tail.events.extend(page);
            tail.events.drain(..tail.events.len().saturating_sub(SHOWN));
            if is_last {
                break;
            }
        }
        let events = tail.events.iter().rev().cloned().collect();
        let mut tails = self.0.lock().await;
        // Two that looked at the same time have read the same.
        tails.retain(|other| other.job != job);
        if tails.len() == MAX_TAILS {
            tails.pop_front();
        }
        tails.push_back(tail);
        Ok(events)
    }

    async fn take(&self, job: JobId) -> Tail {
        let mut tails = self.0.lock().await;
        let known = tails.iter().position(|tail| tail.job == job).and_then(|place| tails.remove(place));
        known.unwrap_or_else(|| Tail { job, after: 0, events: VecDeque::new() })
    }
}
