//! Middleware that checks a request before its handler: the host that it names, the page that sent it, its body, its parameters,
//! and its caller.
//!
//! A browser lets every page send requests anywhere, but says where a request comes from, and keeps a page from reading
//! what another origin answers. A page whose own name resolves to this listener's address (DNS rebinding) is of the same
//! origin to the browser; the name gives it away.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN, TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, ResponseError};
use anyhow::bail;
use serde::Deserialize;
use tracing::info;

use crate::access::Access;
use crate::connection::has_client_certificate;
use crate::encoding::{is_rewritten, shown};
use crate::query::{Query, demand_utf8};
use crate::routes::{Demand, Matched, Route, Routes, target};
use crate::{ApiError, Caller};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names by which a listener may be asked, beside addresses: `DIVVY_ALLOWED_HOSTS`, separated by commas. `None`: any name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AllowedHosts {
    listed: Vec<String>,
    /// Names by which other processes of the service ask.
    own: Vec<String>,
}

impl AllowedHosts {
    /// Allows the host of `HOST:PORT`, by which other processes of the service ask.
    pub fn allow_own(&mut self, address: &str) {
        self.own.push(normal(name_of(address)));
    }

    fn include(&self, name: &str) -> bool {
        self.listed.iter().chain(&self.own).any(|allowed| allowed == name)
    }
}

impl TryFrom<String> for AllowedHosts {
    type Error = anyhow::Error;

    fn try_from(list: String) -> anyhow::Result<Self> {
        let listed: Vec<_> = list.split(',').map(|name| normal(name.trim())).filter(|name| !name.is_empty()).collect();
        let is_name = |name: &String| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
            name.bytes().all(allowed) && name_of(name) == name.as_str()
        };
        if let Some(wrong) = listed.iter().find(|name| !is_name(name)) {
            bail!("{wrong:?} must be a host's name alone, without scheme, port or path");
        }
        Ok(Self { listed, own: Vec::new() })
    }
}

/// The checks of a request.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) routes: Option<Routes>,
    pub(crate) access: Access,
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
    pub(crate) is_loopback: bool,
    pub(crate) demands_certificate: bool,
}

impl Guard {
    /// The caller, if the request may go to its handler.
    fn admit(&self, request: &ServiceRequest) -> Result<Caller, ApiError> {
        let Matched { pattern, route, elsewhere } = Matched::of(request);
        self.check_host(request.head())?;
        demand_utf8(request.uri())?;
        if route.is_some_and(|route| route.demand() == Demand::Nothing) {
            return Ok(Caller::default());
        }
        if self.demands_certificate && !has_client_certificate(request.request()) {
            return Err(ApiError::NoCertificate);
        }
        // A page may open a WebSocket to any origin, and reads what comes over it.
        if !request.method().is_safe() || request.headers().contains_key(UPGRADE) {
            check_site(request.headers())?;
        }
        let caller = self.access.demand(request.headers(), pattern.as_deref(), route.or(elsewhere))?;
        // A process that passes the request on would ask for another resource.
        if is_rewritten(request.uri().path()) {
            return Err(ApiError::NotFound(request.path().to_owned()));
        }
        // The error of an unknown path or method is better if there is no route.
        if let (None, Some(routes), Some(pattern)) = (route, self.routes, &pattern) {
            routes.refuse_method(pattern)?;
        }
        if has_body(request.headers()) {
            check_encoding(request.headers())?;
            if !route.is_some_and(Route::takes_any_body) {
                check_content_type(request.headers())?;
            }
        }
        if let (Some(_), Some(_)) = (self.routes, &pattern) {
            self.check_parameters(request, route)?;
        }
        Ok(caller)
    }

    fn check_parameters(&self, request: &ServiceRequest, route: Option<&Route>) -> Result<(), ApiError> {
        // The resource refuses a method that the path does not take.
        let Some(known) = route.and_then(Route::parameters) else { return Ok(()) };
        if request.query_string().is_empty() {
            return Ok(());
        }
        Query::parse(request.query_string())?.demand_known(known)
    }

    fn check_host(&self, head: &RequestHead) -> Result<(), ApiError> {
        let mut hosts = head.headers().get_all(HOST);
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() || (host.is_none() && head.version == Version::HTTP_11) {
            return Err(ApiError::InvalidParameter {
                name: "Host".to_owned(),
                message: "must be given once".to_owned(),
            });
        }
        // A host in the target takes precedence over the header.
        let target = head.uri.authority().map(|authority| authority.as_str().to_owned());
        let Some(host) = target.or_else(|| Some(String::from_utf8_lossy(host?.as_bytes()).into_owned())) else {
            return Ok(());
        };
        if self.allows(&normal(name_of(&host))) {
            return Ok(());
        }
        let shown: String = host.chars().take(100).collect();
        let hint =
            if self.is_loopback { "localhost and loopback addresses" } else { "the hosts of DIVVY_ALLOWED_HOSTS" };
        Err(ApiError::WrongHost(format!("this listener does not answer for the host {shown:?}, only for {hint}")))
    }

    fn allows(&self, name: &str) -> bool {
        if self.allowed_hosts.include(name) {
            return true;
        }
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        if self.is_loopback {
            return name == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback());
        }
        self.allowed_hosts.listed.is_empty() || address.is_some()
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// Names are not case-sensitive, and may end in a dot.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Refuses requests of pages of other sites: by `Sec-Fetch-Site`, else by `Origin`, which must be the requested host. A request
/// with neither header does not come from a browser. The rule is that of Go's `http.CrossOriginProtection` (Filippo Valsorda,
/// 2025).
fn check_site(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return match site.as_bytes() {
            b"same-origin" | b"none" => Ok(()),
            _ => Err(ApiError::CrossSite("Sec-Fetch-Site is neither same-origin nor none".to_owned())),
        };
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin_host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin_host, host) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(ApiError::CrossSite("Origin is not the host that is asked".to_owned())),
    }
}

/// Refuses encoded bodies: the service does not decode them, and would read or store compressed bytes.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    for value in headers.get_all(CONTENT_ENCODING) {
        let encodings = String::from_utf8_lossy(value.as_bytes());
        let is_identity = |encoding: &str| encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
        if !encodings.split(',').all(|encoding| is_identity(encoding.trim())) {
            return Err(ApiError::Encoded(shown(&encodings)));
        }
    }
    Ok(())
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// Refuses other types than JSON: a page can send them without a preflight (CORS' simple requests).
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(ApiError::NotJson) }
}

/// Middleware: refuses a request, or gives it its caller. Logs the caller of a change.
pub(crate) async fn admit<B: MessageBody>(
    guard: Data<Guard>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let caller = match guard.admit(&request) {
        Ok(caller) => caller,
        Err(error) => {
            let Some(refusal) = Matched::of(&request).refusal() else { return Err(error.into()) };
            let answer = refusal(error, target(request.request()));
            return Ok(request.into_response(answer).map_into_right_body());
        }
    };
    let changing = (request.method() != Method::GET).then(|| caller.name().cloned()).flatten();
    request.extensions_mut().insert(caller);
    let Some(name) = changing else { return Ok(told(next.call(request).await?)) };
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let response = next.call(request).await;
    let status =
        response.as_ref().map_or_else(|error| error.as_response_error().status_code(), ServiceResponse::status);
    info!(caller = %name, %method, path, status = status.as_u16(), "asked for a change");
    Ok(told(response?))
}

/// The answer of a handler. One of another crate that says with an empty body that there is nothing gets a problem.
fn told<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>> {
    let is_bare = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    if response.status() != StatusCode::NOT_FOUND || !is_bare {
        return response.map_into_left_body();
    }
    let nothing = ApiError::NotFound(response.request().path().to_owned()).error_response();
    let (request, _) = response.into_parts();
    ServiceResponse::new(request, nothing).map_into_right_body()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(is_loopback: bool, allowed: &str) -> Guard {
        let allowed_hosts = Arc::new(AllowedHosts::try_from(allowed.to_owned()).expect("names"));
        Guard { routes: None, access: Access::open(), allowed_hosts, is_loopback, demands_certificate: false }
    }

    #[test]
    fn a_loopback_listener_answers_loopback_names_and_addresses() {
        let guard = guard(true, "grid.example");
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]:8080", "[::1]", "grid.example:1"] {
            assert!(guard.allows(&normal(name_of(host))), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[::2]:1"] {
            assert!(!guard.allows(&normal(name_of(host))), "{host}");
        }
    }

    #[test]
    fn other_listeners_answer_any_name_unless_names_are_listed_and_addresses_always() {
        assert!(guard(false, "").allows("anything"));
        let listed = guard(false, " Divvy.Example. ,coordinator");
        for host in ["divvy.example", "DIVVY.example.:443", "coordinator:8081", "10.1.2.3:8080", "[fd00::1]:8080"] {
            assert!(listed.allows(&normal(name_of(host))), "{host}");
        }
        assert!(!listed.allows("evil.example"));
    }

    #[test]
    fn a_name_of_its_own_is_allowed_and_restricts_nothing() {
        for (is_loopback, allowed, others) in [(false, "grid.example", false), (false, "", true), (true, "", false)] {
            let mut hosts = AllowedHosts::try_from(allowed.to_owned()).expect("names");
            hosts.allow_own("Coordinator-0.divvy:8080");
            let guard = Guard { allowed_hosts: Arc::new(hosts), ..guard(is_loopback, "") };
            assert!(guard.allows("coordinator-0.divvy"));
            assert_eq!(guard.allows("other.example"), others, "{is_loopback} {allowed:?}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_host_is_refused_in_the_list() {
        for wrong in
            ["https://grid.example", "grid.example:8080", "grid.example/x", "*.example", "two words", "[::1]:80"]
        {
            let error = AllowedHosts::try_from(format!("divvy, {wrong}")).expect_err(wrong).to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
        assert!(AllowedHosts::try_from("10.0.0.1,[::1],a_b.example".to_owned()).is_ok());
    }
}
