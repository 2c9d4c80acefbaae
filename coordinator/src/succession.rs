//! A start that a signal can end while it waits: for a draining coordinator that still has the data directory, or for a
//! database that is away.

use std::pin::Pin;
use std::time::Duration;

use store_sqlite::OpenError;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::config::Config;
use crate::startup::Coordinator;

/// Interval between checks of the data directory.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Builds a coordinator as soon as no other one has its data directory, within [`Config::lock_timeout_ms`]. Its ports are
/// closed until then. `None` when `stop` resolves before.
///
/// # Errors
/// The data directory stays in use, or the coordinator cannot be built for another reason.
pub async fn build_after_predecessor(
    config: Config,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<Option<Coordinator>> {
    let deadline = Instant::now() + Duration::from_millis(config.lock_timeout_ms);
    let mut is_first = true;
    loop {
        let own = config.clone();
        match service::build_until(stop.as_mut(), move || Coordinator::build(own)).await? {
            None => return Ok(None),
            Some(Err(error)) if is_in_use(&error) && Instant::now() < deadline => {}
            Some(built) => return built.map(Some),
        }
        if is_first {
            let timeout_ms = config.lock_timeout_ms;
            info!(data_dir = %config.data_dir.display(), timeout_ms, "waiting for another coordinator to leave the data directory");
            is_first = false;
        }
        tokio::select! {
            () = &mut stop => return Ok(None),
            () = sleep(LOOK_INTERVAL) => (),
        }
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::InUse { .. }))
}
