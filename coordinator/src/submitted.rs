//! Jobs that other coordinators accept: the leader reads their events and works on the jobs.

use std::sync::Arc;
use std::time::Duration;

use model::{EventKind, JobEvent, JobId};
use store::Store;
use tokio::time::sleep;
use tracing::warn;

use crate::jobs::Jobs;

/// Events read at a time.
const PAGE: usize = 1_000;

/// Pause after the table could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Gives the engine every job whose submission comes after the event `after`. Runs for ever.
///
/// Reads the table itself: submissions come in bursts longer than the queue of a subscriber.
pub(crate) async fn run(jobs: Jobs, store: Arc<Store>, mut after: u64) {
    let mut latest = store.latest_event();
    loop {
        while after < *latest.borrow_and_update() {
            match store.events(after, None, PAGE).await {
                Ok(page) => {
                    let Some(last) = page.last() else { break };
                    after = last.seq;
                    jobs.note_submitted(page.iter().filter_map(submitted).collect()).await;
                }
                Err(error) => {
                    warn!(%error, "cannot read events yet");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
        if latest.changed().await.is_err() {
            // The writer has stopped: the term is over.
            std::future::pending::<()>().await;
        }
    }
}

fn submitted(event: &JobEvent) -> Option<JobId> {
    (event.kind == EventKind::Submitted).then_some(event.job)
}
