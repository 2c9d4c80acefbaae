//! The frame of every page: its headers, its viewer, and an error page instead of a problem.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use dashboard::{Viewer, error_page};
use maud::Markup;
use service::{Access, ApiError, Caller, Compressed, Right, mark_not_leading};

use crate::clock::now;

/// No content of other hosts, no script or style in the page itself, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The client that asks for a page.
#[derive(Debug)]
pub(super) struct Visit {
    caller: Caller,
    has_tokens: bool,
}

impl Visit {
    /// Demands the right to read, for a page that shows jobs and whose route demands the right to change them.
    pub(super) fn demand_read(&self) -> Result<(), ApiError> {
        self.caller.demand(Right::Read, "a page that shows jobs")
    }

    /// The viewer of a page that shows `version`.
    pub(super) fn viewer(&self, version: &str) -> Viewer {
        Viewer {
            name: self.caller.name().map(|name| name.to_string()),
            has_tokens: self.has_tokens,
            may_submit: self.caller.may(Right::Submit),
            may_run_programs: self.caller.has(Right::Programs),
            may_administer: self.caller.may(Right::Admin),
            now: now().at,
            version: version.to_owned(),
        }
    }
}

impl FromRequest for Visit {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload).into_inner();
        let has_tokens = request.app_data::<Data<Access>>().is_some_and(|access| !access.is_open());
        ready(caller.map(|caller| Self { caller, has_tokens }))
    }
}

/// An error that is answered as a page.
#[derive(Debug)]
pub(super) struct PageError {
    error: ApiError,
    /// The path and the text of the link on the page.
    back: (String, &'static str),
}

impl PageError {
    /// An error whose page links to `path`.
    pub(super) fn with_way(error: ApiError, path: impl Into<String>, name: &'static str) -> Self {
        Self { error, back: (path.into(), name) }
    }

    /// An error about a job, whose page links to the list of jobs.
    pub(super) fn of_jobs(error: ApiError) -> Self {
        Self::with_way(error, "/jobs", "To the list of jobs")
    }
}

impl std::fmt::Display for PageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self::with_way(error, "/", "To the overview")
    }
}

impl ResponseError for PageError {
    fn status_code(&self) -> StatusCode {
        self.error.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let viewer = Viewer {
            name: None,
            has_tokens: false,
            may_submit: false,
            may_run_programs: false,
            may_administer: false,
            now: now().at,
            version: String::new(),
        };
        let status = self.status_code();
        let (path, name) = &self.back;
        let page = error_page(&viewer, title(status), &self.error.to_string(), (path.as_str(), *name));
        let mut response = html(status, &page);
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        if let ApiError::MethodNotAllowed { allow } = &self.error
            && let Ok(allow) = header::HeaderValue::try_from(allow)
        {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        mark_not_leading(&self.error, &mut response);
        response
    }
}

/// The heading of the page that shows an error of this status.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "No page is here",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::CONFLICT => "Not possible",
        StatusCode::SERVICE_UNAVAILABLE => "Not available now",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

/// The answer to a request for a page that was refused before its handler: without a token, a redirect to the sign-in.
pub(super) fn refused(error: ApiError, target: &str) -> HttpResponse {
    let sign_in = || {
        let next = serde_urlencoded::to_string([("next", target)]).unwrap_or_default();
        format!("/sign-in?{next}")
    };
    if matches!(error, ApiError::NoToken | ApiError::UnknownToken) {
        return see_other(&sign_in());
    }
    let error = if matches!(error, ApiError::Forbidden(_)) {
        // The cookie stays; the page names the missing right.
        PageError::with_way(error, sign_in(), "Sign in with another token")
    } else if target.starts_with("/jobs/") {
        PageError::of_jobs(error)
    } else {
        error.into()
    };
    let mut response = error.error_response();
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    // At an address without a page, clients that do not prefer HTML get a problem document.
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
    response
}

pub(super) fn html(status: StatusCode, markup: &Markup) -> HttpResponse {
    let mut response = HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .body(markup.0.clone());
    Compressed::default().mark(&mut response);
    response
}

/// The answer to a form: redirects the browser to another page.
pub(super) fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, path))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}
