//! The side of the service that knows what a job is.

use model::{Priority, TraceContext};
use store::{Advance, Advanced, NewJob, SubmitError};

use crate::spans::EndedRecord;

/// The job of a record.
#[derive(Debug)]
pub struct IncomingJob {
    /// The job.
    pub job: NewJob,
    /// Fingerprints that earlier releases have stored for the same job.
    pub earlier: Vec<[u8; 32]>,
}

/// Turns records into jobs.
pub trait Acceptor: Send + Sync + 'static {
    /// The job of a value, as `POST /v1/jobs` takes it. `trace` is the span of the record.
    ///
    /// # Errors
    /// The value is no such job.
    fn read(
        &self,
        value: &[u8],
        priority: Priority,
        idempotency_key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<IncomingJob, String>;

    /// Makes moves in this order, and announces the new jobs. Returns an answer for each move.
    fn accept(&self, moves: Vec<Advance>) -> impl Future<Output = Vec<Result<Advanced, SubmitError>>> + Send;

    /// Notes that a record with a span has been handled.
    fn ended(&self, ended: EndedRecord<'_>);
}

/// The fingerprints by which the store is asked whether it has the job of a record, one after the other: this release's own, then
/// those of earlier releases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fingerprints {
    /// Fingerprints that the store has refused.
    refused: usize,
    /// Fingerprints of earlier releases.
    earlier: usize,
}

impl Fingerprints {
    /// The job under the fingerprint that is to be tried.
    pub(super) fn try_next(&mut self, incoming: IncomingJob) -> NewJob {
        let IncomingJob { mut job, earlier } = incoming;
        self.earlier = earlier.len();
        if let Some(fingerprint) = self.refused.checked_sub(1).and_then(|place| earlier.get(place)) {
            job.fingerprint = *fingerprint;
        }
        job
    }

    /// Notes that the store has another job of this name by the fingerprint that was tried. Returns whether there is one more.
    pub(super) fn refuse(&mut self) -> bool {
        let has_more = self.refused < self.earlier;
        self.refused += usize::from(has_more);
        has_more
    }
}

#[cfg(test)]
mod tests {
    use model::{JobId, JobKind, JobOptions, Payloads};
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    fn incoming(earlier: &[u8]) -> IncomingJob {
        let job = NewJob {
            id: JobId(Uuid::nil()),
            kind: JobKind::TASKS,
            is_individual: true,
            payloads: Payloads::default(),
            options: JobOptions::default(),
            params: RawValue::NULL.to_owned(),
            tasks: 1,
            fingerprint: [0; 32],
            idempotency_key: None,
            submitted_at: Default::default(),
        };
        IncomingJob { job, earlier: earlier.iter().map(|byte| [*byte; 32]).collect() }
    }

    #[test]
    fn a_record_is_refused_once_the_fingerprints_of_all_releases_are() {
        for earlier in [&[][..], &[1], &[1, 2]] {
            let mut fingerprints = Fingerprints::default();
            let mut tried = vec![fingerprints.try_next(incoming(earlier)).fingerprint[0]];
            while fingerprints.refuse() {
                tried.push(fingerprints.try_next(incoming(earlier)).fingerprint[0]);
            }
            assert_eq!((tried[0], &tried[1..]), (0, earlier));
            assert!(!fingerprints.refuse());
        }
    }
}
