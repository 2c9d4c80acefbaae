//! The secret that coordinator and workers share.

use std::fmt;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::ApiError;

/// The token of a header `Authorization: Bearer`. The scheme's name is not case-sensitive.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// The worker token, or none: then every peer is trusted.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct WorkerToken(Option<String>);

/// A text that cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has visible ASCII characters only: no space and no line end")]
pub struct InvalidToken;

impl TryFrom<String> for WorkerToken {
    type Error = InvalidToken;

    /// An empty text is no token, so that an optional Kubernetes Secret may be absent.
    fn try_from(token: String) -> Result<Self, Self::Error> {
        if token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self((!token.is_empty()).then_some(token)))
        } else {
            Err(InvalidToken)
        }
    }
}

impl WorkerToken {
    /// Whether there is a token to demand.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Accepts a request with the token, in a time that does not depend on the number of correct characters.
    ///
    /// # Errors
    /// The token is set and the request has another one or none.
    pub fn demand(&self, request: &HttpRequest) -> Result<(), ApiError> {
        if !self.is_set() || Self::shown(request).is_some_and(|given| self.is(given)) {
            Ok(())
        } else {
            Err(ApiError::Unauthorized)
        }
    }

    /// Whether a text is the token that is set.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|token| bool::from(given.ct_eq(token.as_bytes())))
    }

    /// The token of a request, valid or not.
    #[must_use]
    pub fn shown(request: &HttpRequest) -> Option<&[u8]> {
        bearer(request.headers())
    }

    /// Adds the token, if it is set, to an outgoing request.
    pub fn sign(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.0 {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

impl fmt::Debug for WorkerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "WorkerToken(set)" } else { "WorkerToken(unset)" })
    }
}
