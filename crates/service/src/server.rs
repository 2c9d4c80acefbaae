//! HTTP listeners with bounds on what a client can hold.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpServer, Resource, Responder};

use crate::metrics::observe;
use crate::{ApiError, Metrics, connection};

/// How long a request's head may take to arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle connection is kept this long; clients here drop theirs earlier.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a connection that is being closed may linger.
pub(crate) const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that one listener holds at most; further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 8192;

/// A bound socket that serves nothing yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address with the port that was picked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves the routes of `configure` on `threads` threads of their own, until its handle stops it; that takes
/// `stop_timeout` at most. Signals are the caller's.
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
    let metrics = Data::new(metrics.clone());
    let app = move || {
        App::new()
            .app_data(metrics.clone())
            .wrap(from_fn(observe))
            .wrap(from_fn(connection::track))
            .configure(&configure)
            .default_service(web::to(not_found))
    };
    let server = HttpServer::new(app)
        .workers(threads)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        // A client that closes its side is gone: its handler is dropped at once.
        .h1_allow_half_closed(false)
        .max_connections(MAX_CONNECTIONS / threads)
        .on_connect(connection::accept)
        .shutdown_timeout(stop_timeout.as_secs())
        .disable_signals()
        .listen(listener.socket)?
        .run();
    Ok(server)
}

/// A resource that answers 405 to all but the methods that are added to it.
#[must_use]
pub fn resource(path: &str, allow: &'static str) -> Resource {
    let refuse = move || async move { Err::<&str, _>(ApiError::MethodNotAllowed { allow }) };
    web::resource(path).default_service(web::to(refuse))
}

async fn not_found(request: HttpRequest) -> impl Responder {
    Err::<&str, _>(ApiError::NotFound(request.path().to_owned()))
}
