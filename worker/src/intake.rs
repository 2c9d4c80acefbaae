//! How much the worker holds at a time, and how it comes to hold nothing.

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

/// The right to be in, given back when dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

#[derive(Debug)]
struct Room {
    permits: Arc<Semaphore>,
    capacity: u32,
}

/// Lets requests in while there is room and the worker does not drain.
#[derive(Debug)]
pub(crate) struct Intake {
    health: Health,
    leases: Room,
    direct: Room,
    hand_back: watch::Sender<bool>,
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
        Self { health, leases, direct, hand_back: watch::Sender::new(false) }
    }

    /// Lets a lease in.
    pub(crate) fn enter_lease(&self) -> Result<Permit, ApiError> {
        self.refuse_while_draining()?;
        self.leases.enter("leases")
    }

    /// Lets a request of a client without a coordinator in.
    pub(crate) fn enter_direct(&self) -> Result<Permit, ApiError> {
        self.refuse_while_draining()?;
        self.direct.enter("requests")
    }

    /// Resolves when what is held must be given up.
    pub(crate) async fn must_hand_back(&self) -> ApiError {
        // An error would mean that the sender is gone, but it is a field of this.
        let _ = self.hand_back.subscribe().wait_for(|hand_back| *hand_back).await;
        stopping()
    }

    /// Whether what is held must be given up.
    pub(crate) fn is_handing_back(&self) -> bool {
        *self.hand_back.borrow()
    }

    /// Lets nothing more in and waits until nothing is held, kept outcomes included; what is still there at `until` is
    /// handed back.
    pub(crate) async fn drain(&self, until: Instant, held: &HeldLeases) {
        self.health.start_draining();
        let empty = async { tokio::join!(self.leases.is_empty(), self.direct.is_empty(), held.is_empty()) };
        if tokio::time::timeout_at(until, empty).await.is_err() {
            self.hand_back.send_replace(true);
        }
    }

    fn refuse_while_draining(&self) -> Result<(), ApiError> {
        if self.health.is_draining() { Err(stopping()) } else { Ok(()) }
    }
}

/// What is answered when the worker takes nothing new or gives up what it holds.
pub(crate) fn stopping() -> ApiError {
    ApiError::Unavailable("this worker is stopping".to_owned())
}
