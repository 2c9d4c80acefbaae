//! Reports kept outcomes and returned leases to a coordinator that did not get them over a lease's own connection.

use std::time::Duration;

use api::{Completion, LeaseName, ReleaseRequest, TaskFailure};
use futures_util::{StreamExt, stream};
use model::AttemptId;
use reqwest::{Method, StatusCode};
use serde::Serialize;

use crate::contact::{NotTaken, check, describe};
use crate::coordinators::Endpoint;
use crate::heartbeat::Announcer;
use crate::held::{Kept, Returned};
use crate::outcome::Outcome;

/// Outcomes sent to one coordinator at the same time: each of them is copied.
const CONCURRENT_DELIVERIES: usize = 4;

const CONCURRENT_RELEASES: usize = 16;

/// Longest time that one report may take: as long as the coordinator lets its body take to arrive.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Delivers each of these outcomes once to the coordinator of an epoch; the next heartbeat's answer asks again for those that
/// fail. Returns the first error.
pub(crate) async fn deliver(
    announcer: &Announcer,
    endpoint: &Endpoint,
    epoch: u64,
    attempts: Vec<AttemptId>,
) -> Option<String> {
    let deliveries = stream::iter(attempts).map(|attempt| deliver_outcome(announcer, endpoint, epoch, attempt));
    let mut deliveries = deliveries.buffer_unordered(CONCURRENT_DELIVERIES);
    let mut failed = None;
    while let Some(delivered) = deliveries.next().await {
        if let Err(error) = delivered {
            failed.get_or_insert(describe(&error));
        }
    }
    failed
}

async fn deliver_outcome(
    announcer: &Announcer,
    endpoint: &Endpoint,
    epoch: u64,
    attempt: AttemptId,
) -> Result<(), NotTaken> {
    // The outcome may have been settled meanwhile.
    let Some(Kept { outcome, name, told_in }) = announcer.held.kept(attempt) else { return Ok(()) };
    let lease = Some(name);
    let was_told_before = told_in.is_some_and(|told_in| told_in < epoch);
    if !outcome.is_done() && was_told_before {
        return give_back(announcer, endpoint, attempt, lease).await;
    }
    // Noted before the report is sent: a killed coordinator may have stored the outcome without an answer.
    announcer.held.note_told(attempt, epoch);
    let status = match outcome {
        Outcome::Done(outcome) => {
            let (value, results) = (Some(outcome.value), outcome.results.clone());
            let completion = Completion { results, claim: None, value, compute_us: Some(outcome.compute_us), lease };
            let reported = report(announcer, endpoint, attempt, "complete", &completion).await;
            match reported {
                Err(NotTaken::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) if was_told_before => {
                    return give_back(announcer, endpoint, attempt, completion.lease).await;
                }
                // The coordinator would refuse this outcome each time. Over the connection of its lease such an outcome fails
                // its tasks, too.
                Err(NotTaken::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, detail }) => {
                    let (error, lease) = (format!("its results are too long{detail}"), completion.lease);
                    report(announcer, endpoint, attempt, "fail", &TaskFailure { error, lease }).await
                }
                reported => reported,
            }
        }
        Outcome::TaskFailed(error) => {
            report(announcer, endpoint, attempt, "fail", &TaskFailure { error: error.to_string(), lease }).await
        }
        Outcome::Broken(error) | Outcome::Unsupported(error) => {
            let error = format!("the computation failed: {error}");
            report(announcer, endpoint, attempt, "fail", &TaskFailure { error, lease }).await
        }
    }?;
    if status == StatusCode::CONFLICT {
        announcer.held.forget(&[attempt]);
    }
    Ok(())
}

/// Gives a lease back whose failure an earlier coordinator may have stored: a stored failure must not count twice, and without
/// one the tasks run once more.
async fn give_back(
    announcer: &Announcer,
    endpoint: &Endpoint,
    attempt: AttemptId,
    lease: Option<LeaseName>,
) -> Result<(), NotTaken> {
    report(announcer, endpoint, attempt, "release", &ReleaseRequest { lease, beyond: None }).await?;
    announcer.held.forget(&[attempt]);
    Ok(())
}

/// Gives leases back, as far as the coordinator accepts them.
pub(crate) async fn release(announcer: &Announcer, endpoint: &Endpoint, returned: Vec<Returned>) {
    let releases = stream::iter(returned).map(async |Returned { attempt, name }| {
        let body = ReleaseRequest { lease: Some(name), beyond: None };
        report(announcer, endpoint, attempt, "release", &body).await
    });
    let mut releases = releases.buffer_unordered(CONCURRENT_RELEASES);
    while releases.next().await.is_some() {}
}

/// Resolves with a status of success, or with 409 for an attempt that is void.
async fn report(
    announcer: &Announcer,
    endpoint: &Endpoint,
    attempt: AttemptId,
    what: &str,
    body: &impl Serialize,
) -> Result<StatusCode, NotTaken> {
    let request = announcer.request(Method::POST, endpoint, &["v1", "worker", "tasks", &attempt.to_string(), what]);
    let response = request.timeout(TIMEOUT).json(body).send().await?;
    match response.status() {
        StatusCode::CONFLICT => Ok(StatusCode::CONFLICT),
        _ => Ok(check(response).await?.status()),
    }
}
