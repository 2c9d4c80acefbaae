//! Waiting for the end of a job.

use std::time::Duration;

use model::JobId;
use service::ApiError;
use store::JobRecord;
use tokio::time::{Instant, sleep, timeout_at};

use super::State;
use super::errors::from_read;
use super::jobs::unknown;

/// Between two looks at a job: events of other jobs come more often than this.
const PAUSE: Duration = Duration::from_millis(5);

/// The job as it is when it is over, when `wait` has passed or when the coordinator stops, whichever is first.
pub(super) async fn until_over(state: &State, id: JobId, wait: Duration) -> Result<JobRecord, ApiError> {
    let (until, store) = (Instant::now() + wait, state.jobs.store());
    let mut events = store.latest_event();
    loop {
        events.mark_unchanged();
        let record = store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
        if record.state.is_over() || Instant::now() >= until || state.health.is_draining() {
            return Ok(record);
        }
        let something = async {
            tokio::select! {
                _ = events.changed() => (),
                () = state.health.drained() => (),
            }
        };
        // Either way the job is looked at again.
        let _ = timeout_at(until, something).await;
        sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
    }
}
