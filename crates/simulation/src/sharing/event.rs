//! The events of a run of several coordinators.

use std::time::Instant;

use engine::{LeaseAnswer, LeaseOrder, Question, Reconciled};
use model::AttemptId;
use store::backend::{Applied, BatchError};

use super::workers::WorkerReport;

/// An event at a moment. `boot` is the member's process: an event for an earlier process has no effect.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    CandidacyDue {
        member: usize,
        boot: u64,
    },
    StoreAsked {
        member: usize,
        boot: u64,
        question: Question,
        asked_at: Instant,
    },
    StoreAnswered {
        member: usize,
        boot: u64,
        answer: LeaseAnswer,
        asked_at: Instant,
    },
    EngineDue {
        member: usize,
        boot: u64,
        epoch: u64,
    },
    BatchDue {
        member: usize,
        boot: u64,
        epoch: u64,
    },
    BatchArrives {
        member: usize,
        boot: u64,
        epoch: u64,
    },
    BatchAnswered {
        member: usize,
        boot: u64,
        epoch: u64,
        answer: Result<Applied, BatchError>,
    },
    EventsDue {
        member: usize,
        boot: u64,
        epoch: u64,
    },
    LeaseArrives {
        worker: usize,
        member: usize,
        boot: u64,
        epoch: u64,
        order: Box<LeaseOrder>,
    },
    LeaseUndeliverable {
        member: usize,
        boot: u64,
        epoch: u64,
        attempt: AttemptId,
    },
    LeaseBroken {
        member: usize,
        boot: u64,
        epoch: u64,
        attempt: AttemptId,
    },
    LeaseRefused {
        member: usize,
        boot: u64,
        epoch: u64,
        attempt: AttemptId,
    },
    Computed {
        worker: usize,
        attempt: AttemptId,
    },
    OutcomeArrives {
        member: usize,
        boot: u64,
        worker: usize,
        attempt: AttemptId,
        report: WorkerReport,
        is_delivery: bool,
    },
    StopArrives {
        worker: usize,
        epoch: u64,
        attempt: AttemptId,
    },
    HeartbeatDue {
        worker: usize,
    },
    HeartbeatArrives {
        member: usize,
        boot: u64,
        worker: usize,
        seen: u64,
        held: Vec<engine::HeldLease>,
    },
    HeartbeatAnswered {
        worker: usize,
        member: usize,
        boot: u64,
        epoch: u64,
        reconciled: Reconciled,
    },
    AnnounceArrives {
        worker: usize,
        epoch: u64,
    },
    Submit {
        job: usize,
    },
    Fault,
    Starts {
        member: usize,
    },
    Wakes {
        member: usize,
    },
    StoreHeals {
        member: usize,
    },
    WorkersHeal {
        member: usize,
    },
}

impl Event {
    /// The member whose process handles the event.
    pub(super) fn member(&self) -> Option<usize> {
        match self {
            Self::CandidacyDue { member, .. }
            | Self::StoreAnswered { member, .. }
            | Self::EngineDue { member, .. }
            | Self::BatchDue { member, .. }
            | Self::BatchAnswered { member, .. }
            | Self::EventsDue { member, .. }
            | Self::LeaseUndeliverable { member, .. }
            | Self::LeaseBroken { member, .. }
            | Self::LeaseRefused { member, .. }
            | Self::OutcomeArrives { member, .. }
            | Self::HeartbeatArrives { member, .. } => Some(*member),
            Self::StoreAsked { .. }
            | Self::BatchArrives { .. }
            | Self::LeaseArrives { .. }
            | Self::Computed { .. }
            | Self::StopArrives { .. }
            | Self::HeartbeatDue { .. }
            | Self::HeartbeatAnswered { .. }
            | Self::AnnounceArrives { .. }
            | Self::Submit { .. }
            | Self::Fault
            | Self::Starts { .. }
            | Self::Wakes { .. }
            | Self::StoreHeals { .. }
            | Self::WorkersHeal { .. } => None,
        }
    }
}
