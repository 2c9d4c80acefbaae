//! One bound on the memory of outcomes and of uploaded outputs, from their arrival until they are on disk. While it is used up, an
//! answer stays in its connection, and so at its worker, until others are committed; its attempt keeps its lease meanwhile.
//!
//! Room is given back by the number of the change that the store has committed, whether its transaction was the first try or a
//! later one, and by the end of the term or of the store's writer, after which nothing of it is stored any more.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Outcomes that take no more memory than this are not counted, so that small ones never wait for large ones: another bound limits
/// the number of changes that wait for the disk, which is 200 MB of such outcomes.
const UNCOUNTED_BYTES: usize = 4096;

/// Bytes per permit.
const UNIT_BYTES: usize = 1024;

/// Copies of an outcome in memory: the answer, the parsed results and the row to be written.
const COPIES: usize = 3;

/// Memory of the result of a task beside its text: its place in a list, and what an allocation takes at least.
const RESULT_BYTES: usize = 64;

/// Memory of an output on its way into the object store: a part of 8 MiB, which may be allocated for twice as much.
const UPLOAD_BYTES: usize = 16 << 20;

/// Interval at which an outcome that waits for room prolongs its lease: less than the shortest lease.
const PROLONG_INTERVAL: Duration = Duration::from_millis(500);

/// The memory budget of outcomes. A clone is the same budget.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeBudget {
    units: Arc<Semaphore>,
    all: u32,
}

/// The share of one outcome in the budget; dropping it gives the share back.
#[derive(Debug)]
pub(crate) struct OutcomePermit(Option<OwnedSemaphorePermit>);

/// The length of an outcome's JSON, and the number of tasks that it may have results of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutcomeSize {
    pub(crate) bytes: usize,
    pub(crate) tasks: u64,
}

impl OutcomeSize {
    /// The most memory that the outcome takes on its way.
    fn memory(self) -> usize {
        // The shortest results have one character, and a comma between them.
        let results = usize::try_from(self.tasks).unwrap_or(usize::MAX).min(self.bytes / 2 + 1);
        self.bytes.saturating_mul(COPIES).saturating_add(results.saturating_mul(RESULT_BYTES))
    }
}

impl OutcomeBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let all = u32::try_from(max_bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for room for an outcome, in the order of arrival. An outcome larger than the budget takes all of it. While the outcome
    /// waits, `prolong` is called again and again to keep its lease.
    pub(crate) async fn reserve(&self, size: OutcomeSize, prolong: impl Fn()) -> OutcomePermit {
        let bytes = size.memory();
        if bytes <= UNCOUNTED_BYTES {
            return OutcomePermit::none();
        }
        let mut taken = pin!(self.take(bytes));
        let mut patience = Duration::ZERO;
        loop {
            if let Ok(permit) = timeout(patience, &mut taken).await {
                return permit;
            }
            prolong();
            patience = PROLONG_INTERVAL;
        }
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
    /// The share of an outcome that is not counted.
    pub(crate) fn none() -> Self {
        Self(None)
    }
}

/// The shares of outcomes whose changes one term has recorded and that are not committed yet.
#[derive(Debug, Default)]
pub(crate) struct Undurable(Mutex<Shares>);

#[derive(Debug, Default)]
struct Shares {
    /// Each with the number of the last change that was recorded until then, in ascending order.
    held: VecDeque<(u64, OwnedSemaphorePermit)>,
    is_over: bool,
}

impl Undurable {
    /// Gives the share back when all changes are committed that the store has got until now.
    pub(crate) fn hold(&self, permit: OutcomePermit, store: &Store) {
        let OutcomePermit(Some(permit)) = permit else { return };
        let mut shares = self.lock();
        if !shares.is_over {
            // Read under the lock: the numbers ascend.
            shares.held.push_back((store.recorded(), permit));
        }
        drop(shares);
        // The changes may have been committed just now, without another commit after them.
        let durable = *store.durable().borrow();
        self.release(durable);
    }

    /// Gives the shares back whose changes are committed: those up to this number.
    pub(crate) fn release(&self, durable: u64) {
        let mut shares = self.lock();
        let count = shares.held.partition_point(|(number, _)| *number <= durable);
        drop(shares.held.drain(..count));
    }

    /// Gives all shares back, and from now on each one at once: nothing more is committed.
    pub(crate) fn end(&self) {
        let mut shares = self.lock();
        shares.is_over = true;
        shares.held.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        // No code that holds it can panic half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
