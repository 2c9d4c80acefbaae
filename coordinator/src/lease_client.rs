//! One lease as one HTTP request to its worker, and what the answer is worth.

use std::time::{Duration, Instant};

use api::client::read_bounded_json;
use api::{LeaseOutcome, LeaseRequest, Problem};
use reqwest::{Client, Response, StatusCode};
use scheduler::{Failure, Outcome};
use service::WorkerToken;

use crate::grid::{Assignment, LeaseEnd};
use crate::registry::Stub;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 4096;

/// The core ends a lease that expires; the request itself ends this much later, for a worker that is lost by then.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct LeaseClient {
    client: Client,
    token: WorkerToken,
}

impl LeaseClient {
    pub(crate) fn new(client: Client, token: WorkerToken) -> Self {
        Self { client, token }
    }

    /// Asks the stub's worker to compute; resolves with its answer, or when the connection closes.
    pub(crate) async fn run(&self, stub: &Stub, assignment: &Assignment) -> LeaseEnd {
        let lease = LeaseRequest {
            job: assignment.job,
            attempt: assignment.attempt,
            boot_id: stub.boot_id,
            slot: stub.slot,
            work: assignment.work,
            epoch: 0,
            first: assignment.tasks.start,
            beyond: assignment.tasks.end,
            outlives_connection: false,
            settled: Vec::new(),
        };
        let patience = assignment.expires_at.saturating_duration_since(Instant::now()) + GRACE;
        let request = self.client.post(format!("http://{}/lease", stub.address)).timeout(patience).json(&lease);
        match self.token.sign(request).send().await {
            Ok(response) => judge(response, assignment).await,
            Err(error) if error.is_timeout() && !error.is_connect() => LeaseEnd::Failed(Failure::Expired),
            Err(error) if error.is_connect() => LeaseEnd::Undeliverable,
            Err(_) => LeaseEnd::Failed(Failure::WorkerLost),
        }
    }
}

async fn judge(response: Response, assignment: &Assignment) -> LeaseEnd {
    match response.status() {
        StatusCode::OK => match read_outcome(response, assignment).await {
            Ok(outcome) => LeaseEnd::Completed(outcome),
            Err(error) => LeaseEnd::Failed(Failure::Refused(format!("{error:#}"))),
        },
        StatusCode::SERVICE_UNAVAILABLE => LeaseEnd::HandedBack,
        StatusCode::UNPROCESSABLE_ENTITY => {
            let problem: Option<Problem> = read_bounded_json(response, MAX_ANSWER_BYTES).await.ok();
            let detail = problem.map_or_else(|| "the task failed".to_owned(), |problem| problem.detail);
            LeaseEnd::TaskFailed(Failure::Refused(detail))
        }
        status => {
            let problem: Option<Problem> = read_bounded_json(response, MAX_ANSWER_BYTES).await.ok();
            let detail = problem.map_or_else(String::new, |problem| format!(": {}", problem.detail));
            LeaseEnd::Failed(Failure::Refused(format!("its worker answered {status}{detail}")))
        }
    }
}

async fn read_outcome(response: Response, assignment: &Assignment) -> anyhow::Result<Outcome> {
    let outcome: LeaseOutcome = read_bounded_json(response, MAX_ANSWER_BYTES).await?;
    anyhow::ensure!(outcome.attempt == assignment.attempt, "its worker answered for attempt {}", outcome.attempt);
    anyhow::ensure!(outcome.value <= assignment.max_value, "its worker answered a value that cannot be");
    Ok(Outcome { value: outcome.value, busy: Duration::from_micros(outcome.compute_us) })
}
