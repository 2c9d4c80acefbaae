//! HTTP listeners with bounds on what a client can hold.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::error::{InternalError, PathError};
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Data, PathConfig, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, Resource};
use tracing::{debug, warn};

use crate::connection::{self, Link};
use crate::doors::Doors;
use crate::guard::{Guard, admit};
use crate::head::answer_head;
use crate::metrics::observe;
use crate::relay::pass_on;
use crate::routes::{Resources, Route, Routes, refuse, with_head};
use crate::stream::{Io, Stream};
use crate::tls::Tls;
use crate::{ApiError, Metrics};

/// Connections that one listener holds at most; further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 16_384;

/// Connections that wait to be accepted, such as those of all workers when a coordinator has started again; the system may
/// allow less (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Bounds on the time that a client may hold a connection and its resources.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bound on the time until a request's head has arrived, and on a handshake before it.
    pub head_timeout: Duration,
    /// Time for which an idle connection is kept; clients here drop theirs earlier.
    pub keep_alive: Duration,
    /// Longest time that a connection that is being closed may linger.
    pub disconnect_timeout: Duration,
    /// Delay of the first probe of a client that has closed its sending half: most answers come before, and some clients take the
    /// probe for the answer.
    pub ask_after: Duration,
    /// Time for which a client that has closed its sending half keeps its claim to an answer if it cannot be probed.
    pub half_closed_timeout: Duration,
    /// Longest time that a body may wait in the socket for its handler.
    pub unread_body_timeout: Duration,
    /// Interval at which a connection is checked. Requests that are unread at two checks in a row, before a handler that has no
    /// body to read, are a flood.
    pub watch_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            disconnect_timeout: Duration::from_secs(2),
            ask_after: Duration::from_millis(500),
            half_closed_timeout: Duration::from_secs(10),
            unread_body_timeout: Duration::from_secs(60),
            watch_interval: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Longest time that a connection may stay without a request: a head that begins when the keep-alive ends may arrive.
    pub(crate) fn between_requests(self) -> Duration {
        self.keep_alive.saturating_add(self.head_timeout)
    }
}

/// A bound socket that serves nothing yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    doors: Doors,
    routes: Option<Routes>,
    limits: Limits,
}

impl Listener {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        // The standard library asks for 128, and a client that finds the backlog full tries again after a second.
        rustix::net::listen(&socket, BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, doors: Doors::default(), routes: None, limits: Limits::default() })
    }

    /// The address with the port that was picked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts `doors` before the handlers of `routes`.
    #[must_use]
    pub fn guarded(self, doors: Doors, routes: &'static [Route]) -> Self {
        Self { doors, routes: Some(Routes(routes)), ..self }
    }

    /// Warns if a port beyond loopback demands no token.
    #[must_use]
    pub fn warn_if_open(self) -> Self {
        if self.doors.access.is_open() && !self.address.ip().is_loopback() {
            let address = self.address;
            warn!(%address, "DIVVY_API_TOKENS_FILE is not set: anyone who reaches this port can submit and cancel jobs");
        }
        self
    }

    /// Sets other limits.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    fn guard(&self) -> Guard {
        Guard {
            routes: self.routes,
            access: self.doors.access.clone(),
            allowed_hosts: self.doors.allowed_hosts.clone(),
            is_loopback: self.address.ip().to_canonical().is_loopback(),
            demands_certificate: self.doors.tls.as_ref().is_some_and(Tls::demands_certificate),
        }
    }
}

/// Serves the routes of `configure` on `threads` threads of their own, until the handle stops it; stopping takes at most
/// `stop_timeout`. The caller handles signals.
///
/// # Errors
/// The socket cannot be listened on.
pub fn serve<F>(
    listener: Listener,
    threads: usize,
    stop_timeout: Duration,
    metrics: &Metrics,
    configure: F,
) -> io::Result<Server>
where
    F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    let guard = listener.guard();
    let Listener { socket, address, doors: Doors { tls, .. }, routes, limits } = listener;
    let metrics = metrics.clone();
    for pattern in routes.unwrap_or_default().patterns() {
        metrics.expect_route(pattern);
    }
    let server = Server::build()
        .workers(threads)
        .max_concurrent_connections(MAX_CONNECTIONS / threads)
        .shutdown_timeout(stop_timeout.as_secs())
        .disable_signals();
    let stopping = server.graceful_shutdown_signal();
    let resources = Data::new(Resources::of(routes.unwrap_or_default()));
    let service = move || {
        let app = App::new()
            .app_data(Data::new(metrics.clone()))
            .app_data(Data::new(guard.access.clone()))
            .app_data(Data::new(guard.clone()))
            .app_data(Data::new(routes.unwrap_or_default()))
            .app_data(resources.clone())
            .app_data(PathConfig::default().error_handler(unreadable_path))
            .wrap(from_fn(pass_on))
            .wrap(from_fn(admit))
            .wrap(from_fn(observe))
            .wrap(from_fn(answer_head))
            .wrap(from_fn(connection::track))
            .configure(&configure)
            .default_service(web::to(not_found));
        let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(limits.keep_alive)
            .client_request_timeout(limits.head_timeout)
            .client_disconnect_timeout(limits.disconnect_timeout)
            .h1_allow_half_closed(true)
            .local_addr(address)
            .on_connect_ext(connection::accept)
            .h1(map_config(app, |()| AppConfig::default()));
        let tls = tls.clone();
        fn_service(move |stream| open(stream, tls.clone(), limits)).and_then(http)
    };
    Ok(server.listen(address.to_string(), socket, service)?.run())
}

/// Gives a new connection its bounds and, with TLS, its handshake.
async fn open(
    stream: TcpStream,
    tls: Option<Tls>,
    limits: Limits,
) -> Result<(Stream, Option<SocketAddr>), DispatchError> {
    let peer = stream.peer_addr().ok();
    let link = Rc::new(Link::new(&stream, limits, tls.is_some()).map_err(DispatchError::Io)?);
    let Some(tls) = tls else { return Ok((Stream::new(Io::Plain(stream), link), peer)) };
    let handshake = tokio::time::timeout(limits.head_timeout, tls.acceptor().accept(stream)).await;
    let stream = handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        debug!(?peer, %error, "no TLS handshake");
        DispatchError::Io(error)
    })?;
    if stream.get_ref().1.peer_certificates().is_some() {
        link.note_certificate();
    }
    Ok((Stream::new(Io::Tls(Box::new(stream)), link), peer))
}

/// A resource that answers 405 to all but the methods that are added to it. `GET` is `HEAD` too.
#[must_use]
pub fn resource(path: &str, allow: &'static str) -> Resource {
    let refuse = move || async move { Err::<&str, _>(ApiError::MethodNotAllowed { allow: with_head(allow) }) };
    web::resource(path).default_service(web::to(refuse))
}

/// The answer to a path with an invalid part: 404.
fn unreadable_path(error: PathError, request: &HttpRequest) -> actix_web::Error {
    let answer = refuse(request, ApiError::NotFound(request.path().to_owned()));
    InternalError::from_response(error, answer).into()
}

/// Services of other crates ignore a path if its method is not theirs.
async fn not_found(request: HttpRequest, resources: Data<Resources>) -> HttpResponse {
    let allow = resources.methods_of(request.match_info().as_str());
    let takes_it = allow.split(", ").any(|method| method == request.method().as_str());
    let error = if allow.is_empty() || takes_it {
        ApiError::NotFound(request.path().to_owned())
    } else {
        ApiError::MethodNotAllowed { allow }
    };
    refuse(&request, error)
}
