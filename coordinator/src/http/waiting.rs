//! Waiting for the end of a job.

use std::time::Duration;

use model::JobId;
use service::ApiError;
use store::JobRecord;
use tokio::time::{Instant, timeout_at};

use super::State;
use super::errors::from_read;
use super::jobs::unknown;

/// The job after it is over, `wait` has passed or the coordinator stops, whichever is first. Only events of this job end the
/// wait.
pub(super) async fn until_over(state: &State, id: JobId, wait: Duration) -> Result<JobRecord, ApiError> {
    let (until, store) = (Instant::now() + wait, &state.store);
    loop {
        // Subscribed before the job is read, so that no event falls between the two.
        let mut events = state.events.subscribe(Some(id));
        let record = store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
        if record.state.is_over() || Instant::now() >= until || state.health.is_draining() {
            return Ok(record);
        }
        let end = async {
            loop {
                tokio::select! {
                    event = events.next() => if event.is_none_or(|event| event.kind.is_end()) { return },
                    () = state.health.drained() => return,
                }
            }
        };
        // After an event and after the time limit alike, the job is read again.
        let _ = timeout_at(until, end).await;
    }
}
