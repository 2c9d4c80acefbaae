//! Asks a grid over HTTP.

use std::time::Duration;

use protocol::{Problem, SumOfPrimes};
use reqwest::Response;
use url::Url;

use crate::failure::Failure;

/// How long the grid may take to answer a connection, over whatever network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks for the sum of all primes from `a` to `b`, however long it takes.
pub(crate) async fn sum_of_primes(grid: &Url, a: u64, b: u64) -> Result<SumOfPrimes, Failure> {
    let client = service::http_client(CONNECT_TIMEOUT).map_err(|error| Failure::Failed(error.to_string()))?;
    let url = grid.join("sum-of-primes").map_err(|error| Failure::Usage(error.to_string()))?;
    let unreachable = |error: reqwest::Error| Failure::Unreachable { url: grid.to_string(), cause: root_cause(&error) };
    let response = client.get(url).query(&[("a", a), ("b", b)]).send().await.map_err(unreachable)?;
    let status = response.status();
    if !status.is_success() {
        let detail = read_detail(response).await.unwrap_or_else(|| format!("{grid} answered {status}"));
        return Err(Failure::from_problem(status, detail));
    }
    Ok(service::read_bounded_json(response, MAX_ANSWER_BYTES).await?)
}

async fn read_detail(response: Response) -> Option<String> {
    let problem: Problem = service::read_bounded_json(response, MAX_ANSWER_BYTES).await.ok()?;
    Some(problem.detail)
}

/// The error's innermost source says what happened; the outer ones repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
