//! Effects: the actions that the engine asks its caller to perform.

use std::ops::Range;
use std::time::Instant;

use model::{AttemptId, JobId, JobKind, TraceContext, WorkerId};
use scheduler::{JobError, Revocation, WorkerKey};
use serde_json::value::RawValue;
use store::Change;
use workloads::Contradiction;

use crate::claims::ClaimId;

/// An action for the caller, which keeps the order of [`Effect::Store`]s, and of [`Effect::Send`] and [`Effect::Revoke`] of one
/// attempt, within a call and between calls; other effects do not depend on each other.
#[derive(Debug)]
pub enum Effect {
    /// Record the change in the store.
    Store(Change),
    /// Send the lease to its worker.
    Send(Box<LeaseOrder>),
    /// Stop the attempt, which lost its lease.
    Revoke {
        /// The attempt.
        attempt: AttemptId,
        /// The worker that has it.
        worker: WorkerKey,
        /// The reason of the revocation.
        reason: Revocation,
        /// Whether the worker would go on after its connection closes.
        outlives_connection: bool,
    },
    /// Answer the client that waits for the job.
    Answer {
        /// The job.
        job: JobId,
        /// Sum of the tasks' values modulo 2^128, or the reason why there is none.
        answer: Result<u128, JobFailure>,
    },
    /// Answer the claim of a pulling worker.
    Deliver {
        /// The claim.
        claim: ClaimId,
        /// The lease.
        lease: PulledLease,
    },
    /// Log that the worker gets no leases for a while.
    Suspended {
        /// The worker.
        worker: WorkerId,
        /// The reason of the suspension.
        reason: SuspensionReason,
    },
    /// Log that the worker gets no more jobs of a kind, which it announced and does not run.
    Lacks {
        /// The worker.
        worker: WorkerId,
        /// The kind.
        kind: JobKind,
    },
    /// Put the job's result together from its tasks' results, and call [`crate::Engine::composed`].
    Compose {
        /// The job.
        job: JobId,
    },
}

/// The reason of a worker's suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuspensionReason {
    /// A lease could not be delivered, was handed back, or never reached the worker.
    #[error("it did not take a lease")]
    Undelivered,
    /// The worker failed a lease, or let one expire.
    #[error("it failed a lease")]
    FailedLease,
    /// The connection of its heartbeats has closed.
    #[error("the connection of its heartbeats has closed")]
    Disconnected,
    /// A comparison has shown that an outcome of the worker was wrong.
    #[error("an outcome of it was wrong")]
    WrongOutcome,
}

/// The reason why a job has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFailure {
    /// The job failed.
    #[error(transparent)]
    Failed(#[from] JobError),
    /// The tasks are done, but the sum of their values cannot be the job's result.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The coordinator stops.
    #[error("the coordinator is stopping")]
    Stopping,
}

/// A lease on its way to a worker that takes leases over HTTP.
#[derive(Clone, Debug)]
pub struct LeaseOrder {
    /// The worker's registration.
    pub worker: WorkerKey,
    /// The worker's name.
    pub worker_id: WorkerId,
    /// The worker's slot, from 0.
    pub slot: u32,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The job's kind.
    pub kind: JobKind,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The work for the worker, in the form of the kind.
    pub work: Box<RawValue>,
    /// Instant at which the lease expires.
    pub expires_at: Instant,
    /// Whether the worker goes on when the connection breaks: true for stored jobs.
    pub outlives_connection: bool,
    /// Whether the outcome may carry a result for each task; otherwise it is one value.
    pub has_results: bool,
    /// Attempts of this worker whose outcomes are durable: it need not keep them any longer.
    pub settled: Vec<AttemptId>,
    /// The span that the lease is part of, where its job is traced.
    pub trace: Option<TraceContext>,
}

/// A lease for a pulling worker.
#[derive(Clone, Debug)]
pub struct PulledLease {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The job's kind.
    pub kind: JobKind,
    /// Whether code that the job carries may run.
    pub is_admitted: bool,
    /// The tasks.
    pub tasks: Range<u64>,
    /// A payload for each task; `None` where the store has them.
    pub payloads: Option<Vec<Box<RawValue>>>,
    /// Instant at which the lease expires unless it is renewed.
    pub expires_at: Instant,
    /// The span that the lease is part of, where its job is traced.
    pub trace: Option<TraceContext>,
}

/// A lease of a job that is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedLease {
    /// The span that the lease is part of.
    pub parent: TraceContext,
    /// The job.
    pub job: JobId,
    /// The job's kind.
    pub kind: JobKind,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The worker's name.
    pub worker_id: String,
    /// Time of the claim.
    pub claimed_at: Instant,
}
