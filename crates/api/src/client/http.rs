//! The HTTP connections of clients, coordinator and workers.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use serde::de::DeserializeOwned;

use super::tls::{ClientTls, TlsError};

/// Bound on the time of the grid's answer to a connection, over any network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same with TLS: a front keeps the handshake waiting while its coordinator is away, by default for a minute. A host that is
/// gone is noticed sooner, by [`PEER_GONE_TIMEOUT`].
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(65);

/// Shorter than the servers' keep-alive, so that no request meets a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unacknowledged data or keep-alive probes for this long mean that the peer is gone.
const PEER_GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the kernel of an uploading process waits for a coordinator to take more of a body: longer than a coordinator leaves
/// one unread.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(70);

/// A client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses the resources of an HTTP client.
    #[error("start the HTTP client")]
    Http(#[from] reqwest::Error),
}

/// Time that a client of the grid gives a connection to open, with the handshake of TLS.
pub(super) fn opening_timeout(is_https: bool) -> Duration {
    if is_https { HANDSHAKE_TIMEOUT } else { CONNECT_TIMEOUT }
}

/// A client that follows no redirect, uses no proxy and gives a connection `connect_timeout` to open. Its TLS is what
/// [`ClientTls::from_env`] says.
///
/// # Errors
/// The TLS of the environment cannot be used, or the system refuses the client's resources.
pub fn http_client(connect_timeout: Duration) -> Result<Client, StartError> {
    http_client_with(connect_timeout, &ClientTls::from_env()?, true)
}

/// Like [`http_client`], with the given TLS. Without `is_https` the system's authorities are not read.
///
/// # Errors
/// A file of TLS cannot be used, or the system refuses the client's resources.
pub fn http_client_with(connect_timeout: Duration, tls: &ClientTls, is_https: bool) -> Result<Client, StartError> {
    Ok(builder(connect_timeout, tls, is_https)?.build()?)
}

/// Like [`http_client`], for long bodies that their server may leave unread for up to `unread_timeout`: the kernel takes a peer
/// whose window stays shut for one that is gone.
///
/// # Errors
/// The errors of [`http_client`].
pub fn upload_client(connect_timeout: Duration, unread_timeout: Duration) -> Result<Client, StartError> {
    upload_client_with(connect_timeout, unread_timeout, &ClientTls::from_env()?, true)
}

/// Like [`upload_client`], with the given TLS. Without `is_https` the system's authorities are not read.
///
/// # Errors
/// The errors of [`http_client_with`].
pub fn upload_client_with(
    connect_timeout: Duration,
    unread_timeout: Duration,
    tls: &ClientTls,
    is_https: bool,
) -> Result<Client, StartError> {
    let builder = builder(connect_timeout, tls, is_https)?;
    Ok(builder.tcp_user_timeout(unread_timeout.max(PEER_GONE_TIMEOUT)).build()?)
}

fn builder(connect_timeout: Duration, tls: &ClientTls, is_https: bool) -> Result<ClientBuilder, StartError> {
    let builder = tls
        .apply(Client::builder(), is_https)?
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(PEER_GONE_TIMEOUT)
        .tcp_user_timeout(PEER_GONE_TIMEOUT);
    Ok(builder)
}

/// An answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection broke or the time was over before the end of the answer.
    #[error("read the answer")]
    Incomplete(#[source] reqwest::Error),
    /// The answer is longer than the limit.
    #[error("the answer is longer than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// The answer is not the JSON of the requested type.
    #[error("the answer is not valid")]
    Invalid(#[source] serde_json::Error),
}

/// Reads an answer of at most `max_bytes`.
///
/// # Errors
/// The answer is too long or cut off.
pub async fn read_bounded(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, AnswerError> {
    let length = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(length.min(max_bytes));
    while let Some(part) = response.chunk().await.map_err(AnswerError::Incomplete)? {
        if body.len() + part.len() > max_bytes {
            return Err(AnswerError::TooLong { max_bytes });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Reads a JSON answer of at most `max_bytes`.
///
/// # Errors
/// The answer is too long, cut off or not the JSON of a `T`.
pub async fn read_bounded_json<T: DeserializeOwned>(response: Response, max_bytes: usize) -> Result<T, AnswerError> {
    serde_json::from_slice(&read_bounded(response, max_bytes).await?).map_err(AnswerError::Invalid)
}
