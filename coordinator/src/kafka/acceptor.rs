//! Turns records into jobs, as bodies of `POST /v1/jobs` do.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

use model::{Priority, TraceContext};
use service::trace::{Ended, Kind, Value};
use store::{Advance, Advanced, SubmitError};
use streams::{Acceptor, EndedRecord, IncomingJob};

use crate::accepting::{Accepting, Proposal, Ready};
use crate::carried_code::carries_code;
use crate::driver::Driver;
use crate::jobs::Jobs;
use crate::programs::is_program;
use crate::submission;

/// Turns records of Kafka into jobs.
#[derive(Debug)]
pub(super) struct JobAcceptor {
    pub(super) jobs: Jobs,
    pub(super) driver: Arc<Driver>,
    pub(super) chunk_size: NonZeroU64,
    pub(super) max_bytes: usize,
}

impl Acceptor for JobAcceptor {
    fn read(
        &self,
        value: &[u8],
        priority: Priority,
        idempotency_key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<IncomingJob, String> {
        if value.len() > self.max_bytes {
            return Err(format!("the value is longer than {} bytes", self.max_bytes));
        }
        let read = submission::read(value, self.chunk_size, Some(priority));
        let (mut job, fingerprints) = read.map_err(|error| error.to_string())?;
        if is_program(job.kind) || carries_code(&job) {
            let message = "jobs that run programs or carry code need a token with the right \"programs\", which a record \
                           cannot have";
            return Err(message.to_owned());
        }
        job.options.trace = trace.filter(|_| service::trace::is_on());
        let idempotency_key = idempotency_key.map(str::to_owned);
        let proposal = Proposal { id: None, idempotency_key, job, fingerprints, reservation: None };
        let new = self.driver.view(|engine| proposal.into_new(Ready::Engine(engine)));
        let Accepting { new, earlier, .. } = new.map_err(|error| error.to_string())?;
        Ok(IncomingJob { job: Arc::unwrap_or_clone(new), earlier })
    }

    async fn accept(&self, moves: Vec<Advance>) -> Vec<Result<Advanced, SubmitError>> {
        self.jobs.take_in(moves).await
    }

    /// Writes the span of the record, by the conventions of OpenTelemetry for Kafka.
    fn ended(&self, ended: EndedRecord<'_>) {
        let EndedRecord { span, topic, partition, offset, outcome } = ended;
        let mut attributes = vec![
            ("messaging.system", Value::from("kafka")),
            ("messaging.operation.name", Value::from("process")),
            ("messaging.operation.type", Value::from("process")),
            ("messaging.destination.name", Value::from(topic.to_owned())),
            ("messaging.destination.partition.id", Value::from(partition.to_string())),
            ("messaging.kafka.offset", Value::from(offset)),
        ];
        attributes.extend(outcome.ok().map(|job| ("divvy.job.id", Value::from(job.to_string()))));
        let span = Ended {
            name: format!("process {topic}"),
            kind: Kind::Consumer,
            parent: &span.parent,
            span_id: Some(span.id),
            started_at: span.started_at,
            ended_at: SystemTime::now(),
            attributes,
            error: outcome.err().map(str::to_owned),
        };
        span.send();
    }
}
