//! The HTTP connections of clients, coordinator and workers.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;

/// Less than the servers' keep-alive, so that no request meets a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unacknowledged data or keep-alive probes for this long mean that the peer is gone.
const PEER_GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that follows no redirect, uses no proxy and gives a connection `connect_timeout` to open.
///
/// # Errors
/// The system refuses its resources.
pub fn http_client(connect_timeout: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(PEER_GONE_TIMEOUT)
        .tcp_user_timeout(PEER_GONE_TIMEOUT)
        .build()
}

/// An answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection broke or the time was over before its end.
    #[error("read the answer")]
    Incomplete(#[source] reqwest::Error),
    /// It is longer than the limit.
    #[error("the answer is longer than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// It is not the JSON of the type that was asked for.
    #[error("the answer is not valid")]
    Invalid(#[source] serde_json::Error),
}

/// Reads a JSON answer of at most `max_bytes`.
///
/// # Errors
/// The answer is too long, cut off or not the JSON of a `T`.
pub async fn read_bounded_json<T: DeserializeOwned>(
    mut response: Response,
    max_bytes: usize,
) -> Result<T, AnswerError> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(AnswerError::Incomplete)? {
        if body.len() + part.len() > max_bytes {
            return Err(AnswerError::TooLong { max_bytes });
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).map_err(AnswerError::Invalid)
}
