//! Records become jobs as bodies of `POST /v1/jobs` do.

use std::num::NonZeroU64;
use std::sync::Arc;

use model::{Priority, TraceContext};
use store::{Advance, Advanced, NewJob, SubmitError};
use streams::Acceptor;

use crate::carried_code::carries_code;
use crate::driver::Driver;
use crate::jobs::{Jobs, Proposal};
use crate::programs::is_program;
use crate::submission;

/// See the module.
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
    ) -> Result<NewJob, String> {
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
        let new = self.driver.view(|engine| proposal.into_new(Some(engine)));
        new.map(|(new, _)| new).map_err(|error| error.to_string())
    }

    async fn accept(&self, moves: Vec<Advance>) -> Vec<Result<Advanced, SubmitError>> {
        self.jobs.take_in(moves).await
    }
}
