//! Tries the place of large results at the start, and compares it with the leader's: a place that is wrong would be noticed by the
//! first large result only.

use std::sync::Arc;
use std::time::Duration;

use store::{Epoch, PlaceError, Store};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::config::Config;
use crate::members::{Leader, Members};

/// Longest time that the place may hold up the start.
const WAIT: Duration = Duration::from_secs(5);

/// Time after which a leader's mark should be in the place of results.
const MARKED_WITHIN: Duration = Duration::from_secs(10);

/// Pause after a mark could not be left for the first time; each further one is twice as long, up to the longest.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_mins(1);

/// Tries the place that `DIVVY_RESULTS_URL` names; without it, results are beside the database.
///
/// # Errors
/// There is no such place, or it refuses the keys. A place that does not answer is only logged: everything else works without it.
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

/// Leaves the mark of the leader that `store` is open for.
pub(crate) async fn mark(store: Arc<Store>) {
    let mut pause = RETRY_PAUSE;
    while let Err(error) = store.mark_place_of_results().await {
        debug!(%error, "cannot leave the leader's mark in the place of results yet");
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_RETRY_PAUSE);
    }
}

/// Warns if the mark of another coordinator that leads is not in the place of this one. Runs for ever.
pub(crate) async fn compare(members: Arc<Members>, store: Arc<Store>) {
    let mut leader = members.leader();
    loop {
        let found = leader.borrow_and_update().clone();
        // A leader of an earlier release leaves no mark.
        let leaves_mark = |other: &Leader| other.id != members.own().id && other.version == members.own().version;
        if let Some(Leader { epoch, .. }) = found.filter(leaves_mark) {
            if timeout(MARKED_WITHIN, leader.changed()).await.is_ok() {
                continue;
            }
            look_for_mark(&store, epoch, &leader).await;
        }
        if leader.changed().await.is_err() {
            // The sender is a field of the members.
            return std::future::pending().await;
        }
    }
}

async fn look_for_mark(store: &Store, epoch: u64, leader: &watch::Receiver<Option<Leader>>) {
    let has_mark = store.is_place_of_leader(Epoch(epoch)).await;
    // The next leader deletes the mark.
    let still_leads = leader.borrow().as_ref().is_some_and(|leader| leader.epoch == epoch);
    match has_mark {
        Ok(false) if still_leads => warn!(
            epoch,
            "the leader has another place of results than this coordinator, or cannot write there: all coordinators need the \
             same one (DIVVY_RESULTS_URL)"
        ),
        Ok(_) => (),
        Err(error) => debug!(%error, "cannot look for the leader's mark in the place of results"),
    }
}
