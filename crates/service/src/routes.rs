//! A listener's table of routes, beside their handlers: the right that each demands, the parameters that it takes, the type of
//! its body and the process that answers. A listener has one table, so that no route is forgotten: a route outside the table
//! demands [`Right::Admin`] and takes no parameter, and other methods of a resource in the table are refused.

use std::rc::Rc;
use std::sync::OnceLock;

use actix_web::dev::{ResourceDef, ServiceRequest};
use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};

use crate::accept::prefers_to_json;
use crate::relay::AnsweringProcess;
use crate::{ApiError, Right};

/// A route: a method, a pattern of actix-web, and the conditions on a request.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    method: &'static str,
    pattern: &'static str,
    demand: Demand,
    parameters: Option<&'static [&'static str]>,
    takes_any_body: bool,
    place: AnsweringProcess,
    is_repeatable: bool,
    waits_briefly: bool,
    body_size: BodySize,
    begins_traces: bool,
    refusal: Option<Refusal>,
}

/// Makes the answer to a request for a page that is refused, from the error and the path with its query.
pub type Refusal = fn(ApiError, &str) -> HttpResponse;

/// Bound on the body of a route. A process that passes requests on keeps their bodies meanwhile, and must take every body that
/// the handler takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodySize {
    /// A description, a report or nothing.
    #[default]
    Usual,
    /// A form, whose encoding makes a description longer.
    Form,
    /// A file, which may also take its time to arrive.
    File,
}

/// The right that a route demands if there are tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Everybody, without a token or a client certificate: probes, which ask by an address.
    Nothing,
    /// Everybody whose connection is allowed, without a token: signing in.
    NoToken,
    Right(Right),
}

/// The routes that every listener may have.
const OWN: &[Route] = &[
    Route::open("GET", "/livez").begins_no_trace(),
    Route::open("GET", "/readyz").begins_no_trace(),
    Route::new("GET", "/metrics", Right::Read).any_query().begins_no_trace(),
];

/// The pattern of [`Route::elsewhere`], which no resource has.
const ELSEWHERE: &str = "";

impl Route {
    /// A route that demands `right`, takes no parameter and no body but JSON. `GET` is `HEAD` too.
    #[must_use]
    pub const fn new(method: &'static str, pattern: &'static str, right: Right) -> Self {
        let demand = Demand::Right(right);
        Self {
            method,
            pattern,
            demand,
            parameters: Some(&[]),
            takes_any_body: false,
            place: AnsweringProcess::Anywhere,
            is_repeatable: false,
            waits_briefly: false,
            body_size: BodySize::Usual,
            begins_traces: true,
            refusal: None,
        }
    }

    /// A page or the target of a form, for a browser that may send its token in the cookie [`TOKEN_COOKIE`]: the route takes any
    /// parameter and any body, and `refusal` makes the answer to a refused request.
    ///
    /// [`TOKEN_COOKIE`]: crate::TOKEN_COOKIE
    #[must_use]
    pub const fn page(method: &'static str, pattern: &'static str, right: Right, refusal: Refusal) -> Self {
        let route = Self::new(method, pattern, right);
        Self { parameters: None, takes_any_body: true, refusal: Some(refusal), ..route }
    }

    /// The answer to a browser that opens an address without a page: `refusal` makes a page of the error. A client that does not
    /// prefer HTML to JSON gets the problem.
    #[must_use]
    pub const fn elsewhere(refusal: Refusal) -> Self {
        Self::page("GET", ELSEWHERE, Right::Read, refusal)
    }

    /// Demands no token.
    #[must_use]
    pub const fn without_token(self) -> Self {
        Self { demand: Demand::NoToken, ..self }
    }

    /// A route for probes, which demands nothing.
    #[must_use]
    pub const fn open(method: &'static str, pattern: &'static str) -> Self {
        Self { demand: Demand::Nothing, parameters: None, ..Self::new(method, pattern, Right::Read) }
    }

    /// Takes only the parameters of `names`.
    #[must_use]
    pub const fn query(self, names: &'static [&'static str]) -> Self {
        Self { parameters: Some(names), ..self }
    }

    /// Takes any parameter.
    #[must_use]
    pub const fn any_query(self) -> Self {
        Self { parameters: None, ..self }
    }

    /// Takes a body of any type.
    #[must_use]
    pub const fn any_body(self) -> Self {
        Self { takes_any_body: true, ..self }
    }

    /// Takes a form.
    #[must_use]
    pub const fn form(self) -> Self {
        Self { body_size: BodySize::Form, ..self }
    }

    /// Takes a file.
    #[must_use]
    pub const fn file(self) -> Self {
        Self { body_size: BodySize::File, takes_any_body: true, ..self }
    }

    /// Lets the leader alone answer, if a service has several processes.
    #[must_use]
    pub const fn by_leader(self) -> Self {
        Self { place: AnsweringProcess::Leader, ..self }
    }

    /// Lets the leader answer while there is one.
    #[must_use]
    pub const fn by_leader_if_any(self) -> Self {
        Self { place: AnsweringProcess::LeaderIfAny, ..self }
    }

    /// Waits only briefly for a leader: for a read that is short or repeated anyway.
    #[must_use]
    pub const fn briefly(self) -> Self {
        Self { waits_briefly: true, ..self }
    }

    /// Allows a repetition when the effect of a request is not known: two executions have the effect of one. `GET` allows it,
    /// unless its client asks for a job by `Prefer`.
    #[must_use]
    pub const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    /// Joins a trace that its caller began, and begins none: frequent requests of machines would bury those of people.
    #[must_use]
    pub const fn begins_no_trace(self) -> Self {
        Self { begins_traces: false, ..self }
    }

    /// Whether a request that is part of no trace begins one.
    pub(crate) fn begins_traces(&self) -> bool {
        self.begins_traces
    }

    /// Whether the request may be repeated when its effect is not known.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// Whether this request may be repeated when its effect is not known.
    #[must_use]
    pub fn may_be_repeated(&self, request: &HttpRequest) -> bool {
        // A sum that its client prefers as a job leaves a job behind each time.
        let leaves_a_job = request.headers().contains_key("prefer");
        (request.method().is_safe() && !leaves_a_job) || self.is_repeatable
    }

    /// Whether the request waits only briefly for a leader.
    #[must_use]
    pub fn waits_briefly(&self) -> bool {
        self.waits_briefly
    }

    /// Bound on the request's body.
    #[must_use]
    pub fn body_size(&self) -> BodySize {
        self.body_size
    }

    /// The process that answers.
    #[must_use]
    pub fn place(&self) -> AnsweringProcess {
        self.place
    }

    pub(crate) fn demand(&self) -> Demand {
        self.demand
    }

    /// The parameters of the route; `None` if it takes any.
    pub(crate) fn parameters(&self) -> Option<&'static [&'static str]> {
        self.parameters
    }

    /// The maker of error pages; `None` if the route is no page.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(crate) fn takes_any_body(&self) -> bool {
        self.takes_any_body
    }
}

/// The table of a listener.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Routes(pub(crate) &'static [Route]);

impl Routes {
    fn all(self) -> impl Iterator<Item = &'static Route> {
        self.0.iter().chain(OWN)
    }

    /// The patterns of the listener's own routes.
    pub(crate) fn patterns(self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|route| route.pattern).filter(|pattern| *pattern != ELSEWHERE)
    }

    /// The page for a browser that opens an address without a page: the address does not exist, or takes other methods.
    fn elsewhere(self, request: &ServiceRequest, pattern: Option<&str>) -> Option<&'static Route> {
        // A resource that is missing in the table stays the administrator's.
        let is_known = pattern.is_none_or(|pattern| self.all().any(|route| route.pattern == pattern));
        let is_wanted = || prefers_to_json(request.headers(), ("text", "html"));
        if request.method() != Method::GET || !is_known || !is_wanted() {
            return None;
        }
        self.find(&Method::GET, ELSEWHERE)
    }

    /// The route of a request whose resource has `pattern`.
    pub(crate) fn find(self, method: &Method, pattern: &str) -> Option<&'static Route> {
        self.all().find(|route| route.pattern == pattern && route.method == method.as_str())
    }

    /// Refuses a method that no route of the resource takes, unless the table does not have the resource at all.
    pub(crate) fn refuse_method(self, pattern: &str) -> Result<(), ApiError> {
        let allow = self.methods(|route| route.pattern == pattern);
        if allow.is_empty() { Ok(()) } else { Err(ApiError::MethodNotAllowed { allow }) }
    }

    fn methods(self, fits: impl Fn(&Route) -> bool) -> String {
        let fitting = self.all().filter(|route| fits(route));
        with_head(&fitting.map(|route| route.method).collect::<Vec<_>>().join(", "))
    }
}

/// The routes of a table with their compiled patterns. A listener compiles them once, for its first unknown path: actix-router
/// never frees the names of a pattern's parameters.
#[derive(Debug)]
pub(crate) struct Resources {
    routes: Routes,
    compiled: OnceLock<Vec<(ResourceDef, &'static Route)>>,
}

impl Resources {
    pub(crate) fn of(routes: Routes) -> Self {
        Self { routes, compiled: OnceLock::new() }
    }

    /// The methods of the routes that `path` belongs to, for the header `Allow`. Empty where there is none.
    pub(crate) fn methods_of(&self, path: &str) -> String {
        let compiled = self.compiled.get_or_init(|| {
            let routes = self.routes.all().filter(|route| route.pattern != ELSEWHERE);
            routes.map(|route| (ResourceDef::new(route.pattern), route)).collect()
        });
        let fitting = compiled.iter().filter(|(resource, _)| resource.is_match(path));
        with_head(&fitting.map(|(_, route)| route.method).collect::<Vec<_>>().join(", "))
    }
}

/// The route of a request.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    /// The pattern of the resource; `None` if no resource has the path.
    pub(crate) pattern: Option<Rc<str>>,
    /// The route; `None` if the listener's table does not have it.
    pub(crate) route: Option<&'static Route>,
    /// The page for a browser, if the table does not have the route.
    pub(crate) elsewhere: Option<&'static Route>,
}

impl Matched {
    /// Finds the route; called once for each request, since it tries every pattern before the matching one.
    pub(crate) fn of(request: &ServiceRequest) -> Self {
        if let Some(known) = request.extensions().get::<Self>() {
            return known.clone();
        }
        let pattern: Option<Rc<str>> = pattern_of(request).map(Rc::from);
        let routes = request.app_data::<Data<Routes>>().map(|routes| ***routes).unwrap_or_default();
        let route = pattern.as_deref().and_then(|pattern| routes.find(request.method(), pattern));
        let elsewhere = if route.is_none() { routes.elsewhere(request, pattern.as_deref()) } else { None };
        let matched = Self { pattern, route, elsewhere };
        request.extensions_mut().insert(matched.clone());
        matched
    }

    /// The maker of error pages, if the request is for a page.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.route.or(self.elsewhere).and_then(Route::refusal)
    }
}

/// The pattern of the resource that gets the request. The router decodes the `%XX` of a path before it compares; what
/// `match_pattern` compares before the request is routed is the path as it was sent, which would leave `/job%73` without the
/// demands of `/jobs`.
fn pattern_of(request: &ServiceRequest) -> Option<String> {
    request.resource_map().match_pattern(request.match_info().as_str())
}

/// The answer to a request without a handler: a page if a page was requested, else the problem.
pub(crate) fn refuse(request: &HttpRequest, error: ApiError) -> HttpResponse {
    let refusal = request.extensions().get::<Matched>().and_then(Matched::refusal);
    match refusal {
        Some(refusal) => refusal(error, target(request)),
        None => error.error_response(),
    }
}

/// The path of a request with its query.
pub(crate) fn target(request: &HttpRequest) -> &str {
    request.uri().path_and_query().map_or("/", |target| target.as_str())
}

/// `HEAD` beside `GET`.
pub(crate) fn with_head(methods: &str) -> String {
    let mut all = Vec::new();
    for method in methods.split(", ").filter(|method| !method.is_empty()) {
        if !all.contains(&method) {
            all.push(method);
        }
        if method == "GET" {
            all.push("HEAD");
        }
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_path_has_the_methods_of_every_route_that_it_belongs_to() {
        const TABLE: &[Route] = &[
            Route::new("GET", "/jobs/{id}", Right::Read),
            Route::new("PUT", "/jobs/{id}", Right::Submit),
            Route::new("POST", "/jobs/{id}/{action}", Right::Submit),
            Route::elsewhere(|error, _| error.error_response()),
        ];
        let resources = Resources::of(Routes(TABLE));
        assert_eq!(resources.methods_of("/jobs/1"), "GET, HEAD, PUT");
        assert_eq!(resources.methods_of("/jobs/1/cancel"), "POST");
        assert_eq!(resources.methods_of("/livez"), "GET, HEAD");
        for nowhere in ["", "/", "/jobs", "/jobs/", "/jobs/1/cancel/now"] {
            assert_eq!(resources.methods_of(nowhere), "", "{nowhere}");
        }
    }

    #[test]
    fn a_sum_that_is_to_become_a_job_is_not_asked_for_twice() {
        let route = Route::new("GET", "/sum-of-primes", Right::Read).by_leader();
        let plain = TestRequest::default().to_http_request();
        let job = TestRequest::default().insert_header(("prefer", "wait=1")).to_http_request();
        assert!(route.may_be_repeated(&plain) && !route.may_be_repeated(&job));
        let change = TestRequest::default().method(Method::POST).to_http_request();
        assert!(!route.may_be_repeated(&change) && route.repeatable().may_be_repeated(&change));
    }
}
