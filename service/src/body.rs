//! Request bodies with a bound on size and time: actix-web waits for ever for a dripped one.

use std::time::Duration;

use actix_web::web::Payload;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The longest body that any path takes.
const MAX_BODY_BYTES: usize = 4096;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a JSON body of at most 4096 bytes within 5 s.
///
/// # Errors
/// The body is too long, too slow, cut off or not the JSON of a `T`.
pub async fn read_json<T: DeserializeOwned>(payload: Payload) -> Result<T, ApiError> {
    let body = tokio::time::timeout(BODY_TIMEOUT, payload.to_bytes_limited(MAX_BODY_BYTES))
        .await
        .map_err(|_| ApiError::BodyTimeout(BODY_TIMEOUT))?
        .map_err(|_| ApiError::BodyTooLarge(MAX_BODY_BYTES))?
        .map_err(|error| ApiError::InvalidBody(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| ApiError::InvalidBody(error.to_string()))
}
