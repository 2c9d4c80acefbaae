//! Bounds on what a client can do with a connection that actix-web leaves open.
//!
//! actix-web times a connection's first head but no later one, reads a chunked body that nobody wants to its end, however
//! far that is, and stops reading while more requests wait than it buffers, so that it does not see the client leave.
//! Here a connection without a request in a handler has a limit, and one that floods is cut with its request.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::header::TRANSFER_ENCODING;
use actix_web::middleware::Next;
use actix_web::rt::{self, net, time::sleep};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::Notify;

use crate::ApiError;
use crate::server::{DISCONNECT_TIMEOUT, HEAD_TIMEOUT, KEEP_ALIVE};

/// A client that takes nothing of its answer for this long is cut off.
const STALLED_TIMEOUT: Duration = Duration::from_secs(30);

/// A client whose host vanished is noticed after about this time, however long its job runs.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How often a connection is looked at. What is unread at two looks in a row is a flood: actix-web reads at once.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may go without a request in a handler: a head that begins when [`KEEP_ALIVE`] ends may arrive.
const BETWEEN_REQUESTS_TIMEOUT: Duration = KEEP_ALIVE.saturating_add(HEAD_TIMEOUT);

/// A client's connection, for handlers that want to know when it ends: `request.conn_data::<Connection>()`.
pub struct Connection {
    id: u64,
    when_closed: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Connection {
    fn new() -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        Self { id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1, when_closed: Mutex::new(None) }
    }

    /// A number that no other connection of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Calls `act` when the connection has ended, instead of what was to be called before.
    pub fn when_closed(&self, act: impl FnOnce() + Send + 'static) {
        *self.when_closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(act) = self.when_closed.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            act();
        }
    }
}

struct Watched {
    /// A second handle of the socket that actix-web owns.
    socket: TcpStream,
    phase: Cell<Phase>,
    is_cut: Notify,
}

#[derive(Clone, Copy)]
enum Phase {
    Between { until: Instant },
    InHandler,
}

/// Gives a new connection its data and its bounds. One whose socket is gone already needs no bound.
pub(crate) fn accept(connection: &dyn Any, data: &mut Extensions) {
    data.insert(Connection::new());
    let Some(stream) = connection.downcast_ref::<net::TcpStream>() else { return };
    match Watched::new(stream) {
        Ok(watched) => {
            let watched = Rc::new(watched);
            rt::spawn(watch(Rc::downgrade(&watched)));
            data.insert(watched);
        }
        Err(error) => tracing::debug!(%error, "a connection was gone before its bounds were set"),
    }
}

/// Middleware that tells the connection's watch when a request is in a handler.
pub(crate) async fn track(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(connection) = request.request().conn_data::<Rc<Watched>>().cloned() else {
        return next.call(request).await;
    };
    let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let _in_handler = InHandler::enter(&connection, is_chunked);
    tokio::select! {
        answer = next.call(request) => answer,
        () = connection.is_cut.notified() => {
            Err(ApiError::TooManyRequests("this connection sends more than is read".to_owned()).into())
        }
    }
}

impl Watched {
    fn new(stream: &net::TcpStream) -> io::Result<Self> {
        let socket = SockRef::from(stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL))?;
        socket.set_tcp_user_timeout(Some(STALLED_TIMEOUT))?;
        let until = Instant::now() + BETWEEN_REQUESTS_TIMEOUT;
        Ok(Self {
            socket: socket.try_clone()?.into(),
            phase: Cell::new(Phase::Between { until }),
            is_cut: Notify::new(),
        })
    }

    /// Whether anything waits in the socket, its end included.
    fn has_unread(&self) -> bool {
        self.socket.peek(&mut [0]).is_ok()
    }

    fn cut(&self) {
        // It may have ended by itself.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.is_cut.notify_one();
    }
}

struct InHandler<'a> {
    connection: &'a Watched,
    timeout_after: Duration,
}

impl<'a> InHandler<'a> {
    fn enter(connection: &'a Watched, is_chunked: bool) -> Self {
        connection.phase.set(Phase::InHandler);
        // The rest of a body that has a length is actix-web's to bound, by the same time.
        let timeout_after = if is_chunked { DISCONNECT_TIMEOUT } else { BETWEEN_REQUESTS_TIMEOUT };
        Self { connection, timeout_after }
    }
}

impl Drop for InHandler<'_> {
    fn drop(&mut self) {
        self.connection.phase.set(Phase::Between { until: Instant::now() + self.timeout_after });
    }
}

async fn watch(connection: Weak<Watched>) {
    let mut had_unread = false;
    loop {
        sleep(WATCH_INTERVAL).await;
        let Some(connection) = connection.upgrade() else { return };
        let has_unread = connection.has_unread();
        let is_over = match connection.phase.get() {
            Phase::Between { until } => until < Instant::now(),
            Phase::InHandler => had_unread && has_unread,
        };
        if is_over {
            return connection.cut();
        }
        had_unread = has_unread;
    }
}
