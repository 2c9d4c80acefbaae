//! Errors for clients, as RFC 9457 problem details.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use api::{PROBLEM_JSON, Problem};

/// Marks an answer that only the leader can improve.
pub(crate) struct LeaderWanted;

/// Seconds in `Retry-After` of an overloaded or stopping service.
const RETRY_AFTER_S: u32 = 1;

/// An error with the status and the message that the client gets.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A parameter is missing, doubled or out of its range.
    #[error("{field} {message}")]
    InvalidField {
        /// The parameter.
        field: &'static str,
        /// The fault and the allowed values.
        message: String,
    },
    /// A parameter of the query string that the path does not take, or a value that it cannot have.
    #[error("{name} {message}")]
    InvalidParameter {
        /// The parameter as the client wrote it.
        name: String,
        /// The fault and the allowed values.
        message: String,
    },
    /// The path does not accept the body.
    #[error("the body is not valid: {message}")]
    InvalidBody {
        /// Path of the wrong field, such as `timeout.job_seconds`; `None` if the body is wrong as a whole.
        field: Option<String>,
        /// The fault.
        message: String,
    },
    /// The token is missing or wrong.
    #[error("this needs the header 'Authorization: Bearer' with the worker token: it is missing, or has another token")]
    Unauthorized,
    /// The token of a service account is not accepted.
    #[error("the token of the service account is refused: {0}")]
    AccountRefused(String),
    /// The API token is missing.
    #[error("this needs the header 'Authorization: Bearer' with a token of this service")]
    NoToken,
    /// The API token is unknown.
    #[error("this service does not know the token in the header 'Authorization: Bearer'")]
    UnknownToken,
    /// The caller lacks a right.
    #[error("{0}")]
    Forbidden(String),
    /// The caller has shown no certificate.
    #[error("this needs a client certificate of the authority that this service trusts (mutual TLS)")]
    NoCertificate,
    /// The request came from a page of another site.
    #[error("a page of another site must not do this: {0}")]
    CrossSite(String),
    /// The request is meant for another host.
    #[error("{0}")]
    WrongHost(String),
    /// The body has another type than the path takes.
    #[error("the body must be JSON, sent with 'Content-Type: application/json'")]
    NotJson,
    /// The body is encoded, such as compressed.
    #[error("the body must be sent as it is, without 'Content-Encoding: {0}': no encoding is taken but identity")]
    Encoded(String),
    /// The path does not exist.
    #[error("there is nothing at {0}")]
    NotFound(String),
    /// The resource that the request names does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The path takes other methods.
    #[error("this path takes {allow} only")]
    MethodNotAllowed {
        /// The methods it takes.
        allow: String,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {} ms", .0.as_millis())]
    BodyTimeout(std::time::Duration),
    /// The body is too long.
    #[error("the body is longer than {0} bytes")]
    BodyTooLarge(usize),
    /// The request was meant for another state of this service.
    #[error("{0}")]
    Conflict(String),
    /// The request contradicts what is here under the same name, or its lease cannot be divided.
    #[error("{0}")]
    Mismatch(String),
    /// Nothing can be stored at present.
    #[error("nothing can be stored: {0}")]
    Storage(String),
    /// The service is at a limit.
    #[error("{0}")]
    TooManyRequests(String),
    /// The computation failed.
    #[error("the computation failed: {0}")]
    Failed(String),
    /// The service does not support the request.
    #[error("{0}")]
    NotImplemented(String),
    /// The service failed, for example to read stored data.
    #[error("{0}")]
    Internal(String),
    /// A task failed on every worker that tried it.
    #[error("the job failed: {0}")]
    WorkersFailed(String),
    /// Another process of this service leads, or none does, and only the leader can answer.
    #[error("no coordinator leads at the moment; try again later")]
    NotLeading,
    /// The service cannot take the request now.
    #[error("{0}; try again later")]
    Unavailable(String),
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::InvalidField { .. } | Self::InvalidParameter { .. } | Self::InvalidBody { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized | Self::AccountRefused(_) | Self::NoToken | Self::UnknownToken => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden(_) | Self::NoCertificate | Self::CrossSite(_) => StatusCode::FORBIDDEN,
            Self::WrongHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::NotJson | Self::Encoded(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound(_) | Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Mismatch(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Storage(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Failed(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::WorkersFailed(_) => StatusCode::BAD_GATEWAY,
            Self::NotLeading | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        self.insert_headers(&mut response);
        // `json` keeps an existing content type.
        let mut response = response.content_type(PROBLEM_JSON).json(self.problem());
        mark_not_leading(self, &mut response);
        response
    }
}

/// Marks an answer to an error in another form, such as a page, like [`ApiError`]'s own answer: the leader is asked instead if
/// the error is [`ApiError::NotLeading`].
pub fn mark_not_leading(error: &ApiError, answer: &mut HttpResponse) {
    if matches!(error, ApiError::NotLeading) {
        answer.extensions_mut().insert(LeaderWanted);
    }
}

impl ApiError {
    /// The error as the client sees it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let status = self.status_code();
        let field = self.field().map(|field| field.to_owned().into());
        let title = status.canonical_reason().unwrap_or("Error").into();
        Problem { title, status: status.as_u16(), detail: self.to_string(), field }
    }

    /// The wrong field.
    fn field(&self) -> Option<&str> {
        if let Self::InvalidField { field, .. } = self {
            Some(field)
        } else if let Self::InvalidParameter { name, .. } = self {
            Some(name)
        } else if let Self::InvalidBody { field, .. } = self {
            field.as_deref()
        } else {
            None
        }
    }

    fn insert_headers(&self, response: &mut HttpResponseBuilder) {
        if let Self::MethodNotAllowed { allow } = self {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if matches!(self, Self::Encoded(_)) {
            response.insert_header((header::ACCEPT_ENCODING, "identity"));
        }
        if matches!(self, Self::Unauthorized | Self::AccountRefused(_) | Self::NoToken | Self::UnknownToken) {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if matches!(self, Self::Forbidden(_)) {
            response.insert_header((header::WWW_AUTHENTICATE, r#"Bearer error="insufficient_scope""#));
        }
        if matches!(self, Self::NotLeading | Self::Unavailable(_) | Self::TooManyRequests(_)) {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
        }
    }
}
