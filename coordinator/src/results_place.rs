//! Tries the place of large results at the start: a place that is wrong would be noticed by the first large result only.

use std::time::Duration;

use store::{PlaceError, Store};
use tracing::warn;

use crate::config::Config;

/// Longest time that the place may hold up the start.
const WAIT: Duration = Duration::from_secs(5);

/// Tries the place that `DIVVY_RESULTS_URL` names; without it, results are beside the database.
///
/// # Errors
/// There is no such place, or it refuses the keys. A place that does not answer is only told of: all else works without it.
pub(crate) async fn check(config: &Config, store: &Store) -> anyhow::Result<()> {
    if config.results_url.is_none() {
        return Ok(());
    }
    match store.try_place_of_results(WAIT).await {
        Ok(()) => Ok(()),
        Err(error @ PlaceError::Refused { .. }) => Err(error.into()),
        Err(error @ (PlaceError::Unusable { .. } | PlaceError::Elsewhere { .. })) => {
            warn!(%error, "large results cannot be stored or read");
            Ok(())
        }
    }
}
