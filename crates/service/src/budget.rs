//! A common bound on the memory of all request bodies that a service holds at the same time, raw and parsed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ApiError;

/// Bodies up to this length are not counted: heartbeats and small jobs get in however many long ones there are. The bound
/// on connections bounds them.
pub(crate) const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Bytes of a permit. A semaphore counts to 2^32 at least; in this unit that is more memory than any machine has.
const UNIT_BYTES: usize = 1024;

/// Long bodies that are parsed at the same time: while a body is parsed it takes several times its length.
const PARSED_AT_ONCE: usize = 1;

/// The memory that the request bodies of a service may take together. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    units: Arc<Semaphore>,
    max_bytes: usize,
    turns: Arc<Semaphore>,
}

/// A part of a budget, for a body or for a value made of it; dropping the reservation gives the part back.
#[derive(Debug)]
pub struct Reservation {
    budget: BodyBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// A budget of `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let units = (max_bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), max_bytes, turns: Arc::new(Semaphore::new(PARSED_AT_ONCE)) }
    }

    /// Number of free bytes.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }

    /// Reserves this number of bytes. Never waits.
    ///
    /// # Errors
    /// The budget is exhausted.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, ApiError> {
        let mut reservation = self.reserve_nothing();
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Like [`Self::reserve`], but no more than the whole budget: for an answer that is made already, which may be longer.
    pub(crate) fn reserve_within(&self, bytes: usize) -> Result<Reservation, ApiError> {
        self.reserve(bytes.min(self.max_bytes / UNIT_BYTES * UNIT_BYTES))
    }

    pub(crate) fn reserve_nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), permit: None }
    }

    /// Runs work that takes much time and memory: on a thread that serves nothing, and not beside other such work.
    ///
    /// # Errors
    /// The errors of `work`.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let working = tokio::task::spawn_blocking(move || {
            // The turn is held here: the work goes on after its caller has left.
            let _turn = turn;
            work()
        });
        working.await.unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
    }

    fn exhausted(&self, bytes: usize) -> ApiError {
        let max_bytes = self.max_bytes;
        if bytes > max_bytes {
            let message = format!(
                "it takes {bytes} bytes of memory, more than the {max_bytes} that are set aside for all bodies"
            );
            return ApiError::InvalidBody { field: None, message };
        }
        ApiError::Unavailable(format!("the bodies in flight take up the {max_bytes} bytes that are set aside for them"))
    }
}

impl Reservation {
    pub(crate) fn budget(&self) -> &BodyBudget {
        &self.budget
    }

    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Grows the reservation to at least the need of `bytes` bytes. Never waits.
    pub(crate) fn extend(&mut self, bytes: usize) -> Result<(), ApiError> {
        let units = needed_units(bytes);
        if units > self.units() { self.resize(bytes) } else { Ok(()) }
    }

    /// Sets the reservation to the need of `bytes` bytes. Never waits.
    ///
    /// # Errors
    /// The budget is exhausted.
    pub fn resize(&mut self, bytes: usize) -> Result<(), ApiError> {
        let (held, needed) = (self.units(), needed_units(bytes));
        if needed <= held {
            let _surplus = self.permit.as_mut().and_then(|permit| permit.split(held - needed));
            return Ok(());
        }
        let more = u32::try_from(needed - held).ok();
        let more = more.and_then(|more| Arc::clone(&self.budget.units).try_acquire_many_owned(more).ok());
        let Some(more) = more else { return Err(self.budget.exhausted(bytes)) };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

fn needed_units(bytes: usize) -> usize {
    if bytes <= UNCOUNTED_BYTES { 0 } else { bytes.div_ceil(UNIT_BYTES) }
}
