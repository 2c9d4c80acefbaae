//! Jobs that other coordinators accept: the leader reads their events and works on them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use model::{EventKind, JobEvent, JobId};
use store::Store;
use tokio::time::sleep;
use tracing::warn;

use crate::event_hub::EventHub;
use crate::jobs::Jobs;

/// Events read at a time.
const PAGE: usize = 1_000;

/// Jobs that are taken up side by side.
const TAKEN_UP_TOGETHER: usize = 32;

/// Pause after the table could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Gives the engine every job whose submission comes after an event. Runs for ever.
pub(crate) async fn run(jobs: Jobs, store: Arc<Store>, events: Arc<EventHub>, mut after: u64) {
    loop {
        // Before the table is read, so that no event falls between the two.
        let mut live = events.subscribe(None);
        loop {
            match store.events(after, None, PAGE).await {
                Ok(page) if page.is_empty() => break,
                Ok(page) => {
                    after = page.last().map_or(after, |event| event.seq);
                    take_up(&jobs, page.iter().filter_map(submitted)).await;
                }
                Err(error) => {
                    warn!(%error, "cannot read events yet");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
        // None means that events were missed: the table has them.
        while let Some(event) = live.next().await {
            if event.seq > after {
                after = event.seq;
                take_up(&jobs, submitted(&event).into_iter()).await;
            }
        }
    }
}

fn submitted(event: &JobEvent) -> Option<JobId> {
    (event.kind == EventKind::Submitted).then_some(event.job)
}

async fn take_up(jobs: &Jobs, ids: impl Iterator<Item = JobId>) {
    let ids: Vec<_> = ids.collect();
    stream::iter(ids).for_each_concurrent(TAKEN_UP_TOGETHER, |id| jobs.note_submitted(id)).await;
}
