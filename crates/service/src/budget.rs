//! One bound on the memory of all request bodies that a service holds at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ApiError;

/// Bodies up to this length are not counted: heartbeats and small jobs get in however many long ones there are. The bound
/// on connections bounds them.
pub(crate) const UNCOUNTED_BYTES: usize = 64 * 1024;

/// What a permit counts. A semaphore counts to 2^32 at least; in this unit that is more memory than there is.
const UNIT_BYTES: usize = 1024;

/// The memory that the request bodies of a service may take together. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    units: Arc<Semaphore>,
    max_bytes: usize,
}

/// A part of the budget; dropping it gives the part back.
#[derive(Debug, Default)]
pub(crate) struct BodyPermit {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl BodyBudget {
    /// A budget of `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let units = (max_bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), max_bytes }
    }

    /// The bytes that are not taken.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }

    /// Makes `permit` count for a body of `bytes`. Never waits.
    pub(crate) fn extend(&self, permit: &mut BodyPermit, bytes: usize) -> Result<(), ApiError> {
        if bytes <= UNCOUNTED_BYTES || bytes <= permit.bytes {
            return Ok(());
        }
        let units = (bytes - permit.bytes).div_ceil(UNIT_BYTES);
        let more =
            u32::try_from(units).ok().and_then(|units| Arc::clone(&self.units).try_acquire_many_owned(units).ok());
        let Some(more) = more else { return Err(self.exhausted()) };
        permit.bytes += units * UNIT_BYTES;
        match &mut permit.permit {
            Some(held) => held.merge(more),
            None => permit.permit = Some(more),
        }
        Ok(())
    }

    fn exhausted(&self) -> ApiError {
        let max_bytes = self.max_bytes;
        ApiError::Unavailable(format!("the bodies in flight take up the {max_bytes} bytes that are set aside for them"))
    }
}
