//! The HTTP client that coordinator and workers use between each other.

use std::time::Duration;

use anyhow::{Context, bail};
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

/// Reads a JSON answer of at most `max_bytes`.
///
/// # Errors
/// The answer is too long, cut off or not the JSON of a `T`.
pub async fn read_bounded_json<T: DeserializeOwned>(mut response: Response, max_bytes: usize) -> anyhow::Result<T> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.context("read the answer")? {
        if body.len() + part.len() > max_bytes {
            bail!("the answer is longer than {max_bytes} bytes");
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).context("the answer is not valid")
}
