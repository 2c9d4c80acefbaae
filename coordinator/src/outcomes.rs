//! One bound on the memory of large outcomes and of uploaded outputs, from their arrival until they are on disk. While it is
//! used up, an answer stays in its connection, and so at its worker, until others are committed.

use std::sync::Arc;
use std::time::Duration;

use store::{Store, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::supervisor::Supervisor;

/// Outcomes up to this length are not counted: another bound limits the number of changes that wait for the disk.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Bytes per permit.
const UNIT_BYTES: usize = 1024;

/// Copies of an outcome in memory: the answer, the parsed results and the row to be written.
const COPIES: usize = 3;

/// Memory of an output on its way into the object store: a part of 8 MiB, which may be allocated for twice as much.
const UPLOAD_BYTES: usize = 16 << 20;

/// Pause between checks while the disk is full or away.
const PAUSE: Duration = Duration::from_millis(500);

/// The memory budget of large outcomes. A clone is the same budget.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeBudget {
    units: Arc<Semaphore>,
    all: u32,
}

/// The share of one outcome in the budget; dropping it gives the share back.
#[derive(Debug)]
pub(crate) struct OutcomePermit(Option<OwnedSemaphorePermit>);

impl OutcomeBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let all = u32::try_from(max_bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for room for an outcome of `bytes`, in the order of arrival. An outcome larger than the budget takes all of it.
    pub(crate) async fn reserve(&self, bytes: usize) -> OutcomePermit {
        if bytes <= UNCOUNTED_BYTES {
            return OutcomePermit(None);
        }
        self.take(bytes.saturating_mul(COPIES)).await
    }

    /// Waits for room for an output of `bytes` on its way into the object store, which holds only a part of it in memory.
    pub(crate) async fn reserve_upload(&self, bytes: u64) -> OutcomePermit {
        self.take(usize::try_from(bytes).unwrap_or(usize::MAX).min(UPLOAD_BYTES)).await
    }

    async fn take(&self, bytes: usize) -> OutcomePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.all);
        OutcomePermit(Some(Arc::clone(&self.units).acquire_many_owned(units).await.expect("it is never closed")))
    }
}

impl OutcomePermit {
    /// Gives the share back after all changes that the store has got until now are committed.
    pub(crate) fn keep_until_durable(self, store: &Arc<Store>, supervisor: &Supervisor) {
        let Self(Some(permit)) = self else { return };
        let store = Arc::clone(store);
        supervisor.spawn(async move {
            while let Err(error) = store.flush().await {
                if matches!(error, WriteError::Closed) {
                    break;
                }
                sleep(PAUSE).await;
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn large_outcomes_wait_for_room_and_small_ones_do_not() {
        let budget = OutcomeBudget::new(4 << 20);
        let first = budget.reserve(1 << 20).now_or_never().expect("there is room");
        assert!(budget.reserve(1 << 20).now_or_never().is_none());
        assert!(budget.reserve(UNCOUNTED_BYTES).now_or_never().is_some());
        drop(first);
        assert!(budget.reserve(1 << 30).now_or_never().is_some(), "alone");
    }
}
