//! Accepts jobs: from the request of a client to the job that is stored.

use std::sync::Arc;

use api::ParsedJob;
use engine::{Engine, requirements};
use model::{InvalidJob, JobId, JobKind, MAX_TASKS, Payloads, Requirements};
use service::Reservation;
use store::{JobRecord, NewJob, ReadError, Store, Submission, SubmitError, WriteError};
use uuid::Uuid;
use workloads::{Division, Parsed, Workload};

use crate::clock::now;
use crate::fingerprint::Fingerprints;
use crate::programs::is_program;
use crate::workers::Workers;

/// The longest name that a client gives a request, in bytes.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;

/// The reason why a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    #[error(transparent)]
    Store(#[from] SubmitError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl AcceptError {
    /// Whether the coordinator that was to accept the job leads no longer, and has not stored the job or does not know.
    pub(crate) fn is_of_term_that_is_over(&self) -> bool {
        let Self::Store(SubmitError::Write(error)) = self else { return false };
        matches!(error, WriteError::Superseded { .. } | WriteError::Closed | WriteError::InDoubt)
    }

    /// Whether the job may be stored despite the error.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Store(SubmitError::Write(WriteError::InDoubt)))
    }
}

/// A request to accept a job.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The client's own id, if it chose one.
    pub(crate) id: Option<JobId>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) job: ParsedJob,
    /// Hashes by which a request that repeats a job's submission is recognized.
    pub(crate) fingerprints: Fingerprints,
    /// The memory of a large job, until it is stored.
    pub(crate) reservation: Option<Reservation>,
}

/// A job that is about to be stored. Clones are the same job.
#[derive(Clone, Debug)]
pub(crate) struct Accepting {
    pub(crate) new: Arc<NewJob>,
    /// The labels and resources that its workers must have.
    pub(crate) requires: Requirements,
    /// Hashes that earlier releases have stored for the same request.
    pub(crate) earlier: Vec<[u8; 32]>,
    _reservation: Arc<Option<Reservation>>,
}

/// The abilities of the workers that are ready, as this coordinator knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready<'a> {
    /// The leader's engine knows all.
    Engine(&'a Engine),
    /// Another coordinator knows those that send heartbeats.
    Heartbeats(&'a Workers),
}

impl Ready<'_> {
    /// Whether no worker has the requirements of this work, but some could do the job in another way that needs less.
    fn prefers(self, other: &dyn Workload, kind: JobKind, work: &dyn Workload, requires: &Requirements) -> bool {
        match self {
            Self::Engine(engine) => engine.prefers(other, kind, work, requires),
            Self::Heartbeats(workers) => {
                let can_run = |work: &dyn Workload| workers.can_run(kind, &requirements(work, requires));
                !can_run(work) && can_run(other)
            }
        }
    }
}

/// Takes another way to compute a job where no ready worker has the requirements of the best way.
pub(crate) fn fall_back_if_better(ready: Ready<'_>, kind: JobKind, work: &mut Parsed, requires: &Requirements) {
    let is_better = |other: &Division| ready.prefers(&*other.workload, kind, &*work.workload, requires);
    if work.fallback.as_ref().is_some_and(is_better) {
        work.fall_back();
    }
}

impl Proposal {
    /// The job to be stored, in the way that the workers which are ready can compute.
    pub(crate) fn into_new(self, ready: Ready<'_>) -> Result<Accepting, InvalidJob> {
        let Self { id, idempotency_key, job, fingerprints, reservation } = self;
        let is_too_long = |key: &String| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES;
        if idempotency_key.as_ref().is_some_and(is_too_long) {
            let message = format!("has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes");
            return Err(InvalidJob::new("Idempotency-Key", message));
        }
        let ParsedJob { kind, mut work, options } = job;
        if is_program(kind) && !options.is_admitted {
            return Err(InvalidJob::new(
                "kind",
                "must not be program where a job comes without a token that allows it",
            ));
        }
        fall_back_if_better(ready, kind, &mut work, &options.requires);
        let tasks = work.workload.tasks();
        if tasks > MAX_TASKS {
            let message = "is too long a range for this coordinator's DIVVY_CHUNK_SIZE: it has more than 2^53 tasks";
            return Err(InvalidJob::new("params", message));
        }
        let requires = requirements(&*work.workload, &options.requires);
        let new = NewJob {
            id: id.unwrap_or_else(|| JobId(Uuid::now_v7())),
            kind,
            is_individual: work.workload.profile().is_individual,
            params: work.stored,
            tasks,
            payloads: work.payloads,
            options,
            fingerprint: fingerprints.job,
            idempotency_key,
            submitted_at: now().at,
        };
        let (new, earlier, _reservation) = (Arc::new(new), fingerprints.earlier, Arc::new(reservation));
        Ok(Accepting { new, requires, earlier, _reservation })
    }
}

/// Submits a job, also under the fingerprints of earlier releases: a client may repeat a request that it sent to one.
pub(crate) async fn submit_to(
    store: &Store,
    new: &Arc<NewJob>,
    earlier: &[[u8; 32]],
) -> Result<(JobRecord, Submission), AcceptError> {
    let mut submitted = store.submit(Arc::clone(new)).await;
    for fingerprint in earlier {
        if !matches!(submitted, Err(SubmitError::Mismatch { .. })) {
            break;
        }
        submitted = store.submit(as_earlier(new, *fingerprint)).await;
    }
    match submitted? {
        Submission::New => Ok((new.accepted().record, Submission::New)),
        Submission::Existing(existing) => {
            let record = store.job(existing).await?.ok_or(SubmitError::Write(WriteError::Closed))?;
            Ok((record, Submission::Existing(existing)))
        }
    }
}

/// The submission by which an earlier release would recognise a repeated request. It is never accepted as a new job: a job
/// of that name is there.
fn as_earlier(new: &NewJob, fingerprint: [u8; 32]) -> NewJob {
    NewJob {
        id: new.id,
        kind: new.kind,
        is_individual: new.is_individual,
        payloads: Payloads::default(),
        options: new.options.clone(),
        params: new.params.clone(),
        tasks: new.tasks,
        fingerprint,
        idempotency_key: new.idempotency_key.clone(),
        submitted_at: new.submitted_at,
    }
}
