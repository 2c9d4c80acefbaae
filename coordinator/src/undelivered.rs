//! Claims that a coordinator passes on to the leader: if the leader's answer does not reach the worker, the leader is told,
//! which only sees that this coordinator took the answer.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use reqwest::{Client, Response};
use service::when_answer_is_lost;
use tokio::runtime::Handle;
use tracing::debug;
use uuid::Uuid;

/// The header with the attempt that an answer leases.
pub(crate) const ATTEMPT: &str = "divvy-attempt";

/// Marks the release of an attempt that never reached its worker, which is not to blame for it.
pub(crate) const UNDELIVERED: &str = "divvy-undelivered";

/// Longest time that the leader may take to give the tasks to others. Without its answer they wait until the lease expires.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives back the lease in the `response` of the leader at `base`, a URL without a path, if the answer to `request` is lost.
pub(crate) fn give_back_if_lost(client: &Client, base: &str, request: &HttpRequest, response: &Response) {
    let attempt = response.headers().get(ATTEMPT).and_then(|attempt| Uuid::try_parse(attempt.to_str().ok()?).ok());
    let Some(attempt) = attempt else { return };
    let url = format!("{base}/v1/worker/tasks/{attempt}/release");
    let mut release = client.post(url).header(UNDELIVERED, "1").timeout(RELEASE_TIMEOUT);
    if let Some(token) = request.headers().get(AUTHORIZATION) {
        release = release.header(AUTHORIZATION.as_str(), token.as_bytes());
    }
    when_answer_is_lost(request, move || {
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            match release.send().await {
                Ok(response) => {
                    debug!(%attempt, status = %response.status(), "gave back a claim that reached no worker")
                }
                Err(error) => debug!(%attempt, %error, "a claim that reached no worker waits until it expires"),
            }
        });
    });
}
