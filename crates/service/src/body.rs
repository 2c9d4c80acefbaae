//! Request bodies with a bound on size and time: actix-web waits for ever for a dripped one.

use std::time::Duration;

use actix_web::web::{Bytes, Payload};
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The longest body of a path that says nothing else: a heartbeat with all the labels it may have.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Parsing so much takes about a millisecond.
const WORKED_ON_AT_ONCE_BYTES: usize = 256 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a JSON body of at most [`MAX_BODY_BYTES`] within 5 s.
///
/// # Errors
/// The body is too long, too slow, cut off or not the JSON of a `T`.
pub async fn read_json<T: DeserializeOwned>(payload: Payload) -> Result<T, ApiError> {
    parse_json(&read_body(payload, MAX_BODY_BYTES, BODY_TIMEOUT).await?)
}

/// Reads a body of at most `max_bytes` within `timeout`.
///
/// # Errors
/// The body is too long, too slow or cut off.
pub async fn read_body(payload: Payload, max_bytes: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    tokio::time::timeout(timeout, payload.to_bytes_limited(max_bytes))
        .await
        .map_err(|_| ApiError::BodyTimeout(timeout))?
        .map_err(|_| ApiError::BodyTooLarge(max_bytes))?
        .map_err(|error| ApiError::InvalidBody { field: None, message: error.to_string() })
}

/// Works on a body: on this thread if it is short, else on one that may take its time, so that no other request waits.
///
/// # Errors
/// Those of `work`.
pub async fn with_body<T: Send + 'static>(
    body: Bytes,
    work: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.len() <= WORKED_ON_AT_ONCE_BYTES {
        return work(&body);
    }
    let working = tokio::task::spawn_blocking(move || work(&body));
    working.await.unwrap_or_else(|error| Err(ApiError::Failed(error.to_string())))
}

/// Parses a body.
///
/// # Errors
/// It is not the JSON of a `T`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // RFC 8259, section 8.1: a parser may ignore a byte order mark. Editors on Windows write one.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // Keeping count of where one is costs time: only a body that is wrong is read so.
    serde_json::from_slice(body).map_err(|error| {
        let mut again = serde_json::Deserializer::from_slice(body);
        let path = serde_path_to_error::deserialize::<_, T>(&mut again).err().map(|error| error.path().to_string());
        // A path that leads nowhere is ".", or ends in "?".
        let field =
            path.filter(|path| path.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-[]".contains(&c)) && path != ".");
        ApiError::InvalidBody { field, message: error.to_string() }
    })
}
