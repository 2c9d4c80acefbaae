//! A registered worker: its last heartbeat, with the connection and the time of its arrival.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::{Heartbeat, ProgramAbilities};
use engine::{Delivery, WorkerAnnouncement};
use model::{ABLE, BootId, Labels, ProgramKind, WorkerId};
use scheduler::WorkerKey;

/// Leases of one slot: one computes while the next waits at the worker, so that no slot idles for a round trip.
const LEASES_PER_SLOT: u8 = 2;

/// A worker that was seen this recently over an open connection lives: another process may not take its name.
const NAME_HELD_FOR: Duration = Duration::from_millis(2_500);

/// The origin of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address at which the worker takes leases.
    pub(crate) address: SocketAddr,
    /// The number of the connection of the heartbeat.
    pub(crate) connection: u64,
}

/// The address and the process that get the leases of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) boot_id: BootId,
}

/// A registered worker.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The key in the engine of the present term; `None` while this coordinator does not lead.
    pub(crate) key: Option<WorkerKey>,
    pub(crate) address: SocketAddr,
    /// The last heartbeat, without the leases that it listed.
    pub(crate) heartbeat: Heartbeat,
    pub(crate) last_seen_at: Instant,
    pub(super) connection: u64,
    /// Heartbeats in a row on that connection.
    pub(super) heartbeats_on_connection: u32,
    /// The time at which the connection closed, if it did after more than one heartbeat.
    pub(super) disconnected_at: Option<Instant>,
}

impl Registration {
    /// Whether a heartbeat comes from the registered process, which may use several addresses of its host.
    pub(super) fn is_same_process(&self, heartbeat: &Heartbeat) -> bool {
        let known = &self.heartbeat;
        known.boot_id == heartbeat.boot_id && known.slots == heartbeat.slots
    }

    /// Whether the registered process lives: it was seen lately over a connection that is open.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.heartbeats_on_connection > 1
            && self.disconnected_at.is_none()
            && now.saturating_duration_since(self.last_seen_at) < NAME_HELD_FOR
    }

    pub(super) fn destination(&self) -> Destination {
        Destination { address: self.address, boot_id: self.heartbeat.boot_id }
    }

    pub(super) fn announcement(&self, worker_id: &WorkerId) -> WorkerAnnouncement {
        WorkerAnnouncement {
            id: worker_id.clone(),
            delivery: Delivery::Pushed { boot_id: self.heartbeat.boot_id },
            slots: self.heartbeat.slots,
            kinds: self.heartbeat.kinds.clone(),
            labels: all_labels(&self.heartbeat),
            resources: self.heartbeat.resources,
            is_reserved: false,
            leases_per_slot: LEASES_PER_SLOT,
        }
    }

    pub(super) fn see(&mut self, origin: Origin, heartbeat: Heartbeat, now: Instant) {
        let is_draining = self.heartbeat.is_draining || heartbeat.is_draining;
        let is_same_connection = self.connection == origin.connection;
        self.heartbeats_on_connection =
            if is_same_connection { self.heartbeats_on_connection.saturating_add(1) } else { 1 };
        (self.address, self.connection) = (origin.address, origin.connection);
        (self.last_seen_at, self.disconnected_at) = (now, None);
        self.heartbeat = Heartbeat { is_draining, ..heartbeat };
    }
}

/// The labels of a worker: its own ones, its abilities, and those that stand for its programs.
pub(super) fn all_labels(heartbeat: &Heartbeat) -> Labels {
    let ProgramAbilities { wasm, native, names } = &heartbeat.programs;
    let kinds = [(*wasm, ProgramKind::Wasm), (*native, ProgramKind::Native)];
    let kinds = kinds.into_iter().filter(|(is_able, _)| *is_able).map(|(_, kind)| kind.label().to_owned());
    let mut labels = heartbeat.labels.clone();
    labels.extend(heartbeat.abilities.clone());
    labels.extend(kinds.chain(names.iter().map(|ability| ability.name.label())).map(|label| (label, ABLE.to_owned())));
    labels
}
