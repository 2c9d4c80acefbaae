//! `/sign-in` and `/sign-out`: a token in a cookie that scripts cannot read and other sites cannot send.

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use dashboard::sign_in_page;
use serde::Deserialize;
use service::{Access, TOKEN_COOKIE, parse_form, read_body};

use super::super::State;
use super::page::{PageError, Visit, html, see_other};

/// The longest form, in bytes: a token and a path.
const MAX_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Form {
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Default, Deserialize)]
struct Target {
    #[serde(default)]
    next: String,
}

pub(super) async fn form(request: HttpRequest, visit: Visit) -> HttpResponse {
    let target: Target = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    html(StatusCode::OK, &sign_in_page(&visit.viewer(""), own_path(&target.next), false))
}

pub(super) async fn sign_in(
    state: Data<State>,
    access: Data<Access>,
    request: HttpRequest,
    body: Payload,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    let body = read_body(&request, body, MAX_BYTES, BODY_TIMEOUT, &state.bodies).await?;
    let Form { token, next } = parse_form(&body)?;
    let (token, next) = (token.trim(), own_path(&next));
    if access.is_open() {
        return Ok(see_other(next));
    }
    if !access.knows(token) {
        return Ok(html(StatusCode::FORBIDDEN, &sign_in_page(&visit.viewer(""), next, true)));
    }
    Ok(with_cookie(see_other(next), &cookie(token, state.has_tls)))
}

pub(super) async fn sign_out(state: Data<State>) -> HttpResponse {
    with_cookie(see_other("/sign-in"), &format!("{}; Max-Age=0", cookie("", state.has_tls)))
}

/// A cookie for this origin's own pages, until the browser exits. A known token consists of letters, digits and `_`.
fn cookie(token: &str, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{TOKEN_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

fn with_cookie(mut response: HttpResponse, cookie: &str) -> HttpResponse {
    if let Ok(value) = header::HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// A path of this origin, else the overview: a link must not lead from the form to another site.
fn own_path(next: &str) -> &str {
    // A header cannot hold other characters; a browser sends them encoded.
    let is_printable = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_own = next.starts_with('/') && !next.starts_with("//") && is_printable;
    if is_own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::own_path;

    #[test]
    fn signing_in_leads_to_own_paths_only() {
        assert_eq!(own_path("/jobs?state=failed"), "/jobs?state=failed");
        for other in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "/é", "/\u{7f}"]
        {
            assert_eq!(own_path(other), "/", "{other:?}");
        }
    }
}
