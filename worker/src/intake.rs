//! Admits leases and requests up to a bound on their number, and drains the worker.

use std::sync::Arc;

use service::{ApiError, Health};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::held::HeldLeases;

/// Leases a slot may hold: one computing, one ahead, and as many again, which a coordinator that restarted or had given
/// this worker up may have left behind.
const LEASES_PER_SLOT: u32 = 4;

/// Requests of clients without a coordinator that may wait or compute.
const MAX_DIRECT_REQUESTS: u32 = 1000;

/// The admission of a lease or a request, given back when dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

#[derive(Debug)]
struct Room {
    permits: Arc<Semaphore>,
    capacity: u32,
}

/// Admits requests while there is room and the worker does not drain.
#[derive(Debug)]
pub(crate) struct Intake {
    health: Health,
    leases: Room,
    direct: Room,
    hand_back: watch::Sender<bool>,
    is_drained: watch::Sender<bool>,
}

impl Room {
    fn new(capacity: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(capacity as usize)), capacity }
    }

    fn enter(&self, what: &str) -> Result<Permit, ApiError> {
        let full = || ApiError::TooManyRequests(format!("this worker holds {} {what} already", self.capacity));
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| full())
    }

    async fn is_empty(&self) {
        // The semaphore is never closed, so the answer is always the permits.
        let _ = self.permits.acquire_many(self.capacity).await;
    }
}

impl Intake {
    pub(crate) fn new(slots: u32, health: Health) -> Self {
        let (leases, direct) = (Room::new(slots * LEASES_PER_SLOT), Room::new(MAX_DIRECT_REQUESTS));
        Self { health, leases, direct, hand_back: watch::Sender::new(false), is_drained: watch::Sender::new(false) }
    }

    /// Admits a lease.
    pub(crate) fn enter_lease(&self) -> Result<Permit, ApiError> {
        self.refuse_while_draining()?;
        self.leases.enter("leases")
    }

    /// Admits a request of a client without a coordinator.
    pub(crate) fn enter_direct(&self) -> Result<Permit, ApiError> {
        self.refuse_while_draining()?;
        self.direct.enter("requests")
    }

    /// Resolves when the held leases must be handed back.
    pub(crate) async fn must_hand_back(&self) -> ApiError {
        // There is no error: the sender is a field of this intake and outlives the wait.
        let _ = self.hand_back.subscribe().wait_for(|hand_back| *hand_back).await;
        stopping()
    }

    /// Whether the held leases must be handed back.
    pub(crate) fn is_handing_back(&self) -> bool {
        *self.hand_back.borrow()
    }

    /// Admits nothing more and waits until nothing is held, kept outcomes included; leases that are held at `until` are handed
    /// back.
    pub(crate) async fn drain(&self, until: Instant, held: &HeldLeases) {
        self.health.start_draining();
        let empty = async { tokio::join!(self.leases.is_empty(), self.direct.is_empty(), held.is_empty()) };
        if tokio::time::timeout_at(until, empty).await.is_err() {
            self.hand_back.send_replace(true);
        }
        self.is_drained.send_replace(true);
    }

    /// Resolves when the drain is over.
    pub(crate) async fn until_drained(&self) {
        // As with `must_hand_back`.
        let _ = self.is_drained.subscribe().wait_for(|is_drained| *is_drained).await;
    }

    fn refuse_while_draining(&self) -> Result<(), ApiError> {
        if self.health.is_draining() { Err(stopping()) } else { Ok(()) }
    }
}

/// The error of a worker that drains or hands its leases back.
pub(crate) fn stopping() -> ApiError {
    ApiError::Unavailable("this worker is stopping".to_owned())
}
