//! Bounds on what a client can do with a connection that actix-web leaves open, and when a client counts as gone.
//!
//! actix-web times a connection's first head but no later one, reads a chunked body that nobody wants to its end, however
//! far that is, and stops reading while more requests wait than it buffers, so that it does not see the client leave. Here
//! a connection without a request has a limit, and one that floods is cut with its request. What the client sends counts
//! as unread only where actix-web was free to read it and did not: a slow service is not a flooding client.
//!
//! A client that closes its sending half may still wait for its answer, or be gone: the two look alike until something is
//! sent. So where the answer takes long it is sent `100 Continue`, which every client skips; the host of one that is gone
//! answers with a reset. Nothing can be sent beside TLS: there a client is gone when its socket ends, not with its
//! `close_notify`.

mod track;
mod upstream;
mod watch;

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::{self, net};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub(crate) use self::track::track;
pub use self::upstream::{Upstream, mind_service, mind_unanswered};
use self::watch::{ask, await_end, watch};
use crate::server::Limits;
use crate::stream::Stream;

/// A client that takes nothing of its answer for this long is cut off.
const STALLED_TIMEOUT: Duration = Duration::from_secs(30);

/// A client whose host vanished is noticed after about this time, however long its job runs.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Pause before the first check for the end of the answer; it doubles up to a second.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// Lets the system detect a peer that is gone or takes nothing more, and send written bytes at once.
///
/// # Errors
/// The system refuses the options.
pub fn mind_peer(stream: &net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL))?;
    socket.set_tcp_user_timeout(Some(STALLED_TIMEOUT))
}

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

    /// Calls `act` when the connection has ended, instead of the action that was set before.
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

/// State that the stream, the middleware and the watch of a connection share.
pub(crate) struct Link {
    /// A second handle of the socket that actix-web owns.
    socket: TcpStream,
    limits: Limits,
    is_tls: bool,
    has_certificate: Cell<bool>,
    phase: Cell<Phase>,
    /// Number of reads by actix-web.
    reads: Cell<u64>,
    /// Whether actix-web waits for more: it does not leave bytes in the socket by choice then.
    waits_for_more: Cell<bool>,
    /// Whether all bytes that actix-web wrote are in the socket.
    has_written_all: Cell<bool>,
    /// Whether a part of an answer may still be on its way from actix-web.
    owes_answer: Cell<bool>,
    /// Whether the client sends nothing more.
    has_ended: Cell<bool>,
    is_asked_about: Cell<bool>,
    is_cut: Cell<bool>,
    /// Wakes the handler of a connection that is cut.
    cut: Notify,
    /// Wakes the answer of a connection that is cut.
    answer: Cell<Option<Waker>>,
    /// Whether reading or writing has failed.
    has_failed: Cell<bool>,
    /// Action to take if the last answer does not reach the client.
    when_lost: Cell<Option<WhenLost>>,
}

type WhenLost = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Between { until: Instant },
    InHandler { has_body: bool, can_be_asked: bool },
    Answering,
}

impl Link {
    pub(crate) fn new(stream: &net::TcpStream, limits: Limits, is_tls: bool) -> io::Result<Self> {
        mind_peer(stream)?;
        let socket = SockRef::from(stream);
        Ok(Self {
            socket: socket.try_clone()?.into(),
            limits,
            is_tls,
            has_certificate: Cell::new(false),
            phase: Cell::new(Phase::Between { until: Instant::now() + limits.between_requests() }),
            reads: Cell::new(0),
            waits_for_more: Cell::new(false),
            has_written_all: Cell::new(true),
            owes_answer: Cell::new(false),
            has_ended: Cell::new(false),
            is_asked_about: Cell::new(false),
            is_cut: Cell::new(false),
            cut: Notify::new(),
            answer: Cell::new(None),
            has_failed: Cell::new(false),
            when_lost: Cell::new(None),
        })
    }

    pub(crate) fn note_certificate(&self) {
        self.has_certificate.set(true);
    }

    pub(crate) fn note_read(&self, waits_for_more: bool) {
        self.reads.set(self.reads.get().wrapping_add(1));
        self.waits_for_more.set(waits_for_more);
    }

    pub(crate) fn note_end(self: &Rc<Self>) {
        self.has_ended.set(true);
        self.mind_end();
    }

    pub(crate) fn note_failure(&self) {
        self.has_failed.set(true);
    }

    pub(crate) fn note_write(&self, has_written_all: bool) {
        self.has_written_all.set(has_written_all);
        if has_written_all && self.is_between_requests() {
            self.owes_answer.set(false);
        }
    }

    /// Whether actix-web's present write is not a handler's answer.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.is_between_requests() && !self.owes_answer.get()
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Between { .. })
    }

    /// Checks whether a client whose sending half is closed and that is owed an answer is still there.
    fn mind_end(self: &Rc<Self>) {
        if !self.has_ended.get() || self.is_between_requests() {
            return;
        }
        if self.is_tls && self.has_failed.get() {
            self.cut();
        } else if !self.is_asked_about.replace(true) {
            if self.is_tls {
                rt::spawn(await_end(Rc::downgrade(self)));
            } else {
                rt::spawn(ask(Rc::downgrade(self)));
            }
        }
    }

    /// Whether anything waits in the socket, its end included.
    fn has_unread(&self) -> bool {
        self.socket.peek(&mut [0]).is_ok()
    }

    /// Whether the peer has reset the connection.
    fn is_reset(&self) -> bool {
        self.shows(PollFlags::ERR | PollFlags::HUP)
    }

    /// Whether the peer has closed its sending half, with or without unread bytes.
    fn has_socket_ended(&self) -> bool {
        self.shows(PollFlags::ERR | PollFlags::HUP | PollFlags::RDHUP)
    }

    /// Whether a client that has ended its connection may answer TLS's `close_notify` with a reset: such a reset does not mean
    /// that an answer before it is lost.
    pub(crate) fn would_answer_with_reset(&self) -> bool {
        let when_lost = self.when_lost.take();
        let is_minded = when_lost.is_some();
        self.when_lost.set(when_lost);
        self.has_socket_ended() || is_minded && self.has_ended.get()
    }

    fn shows(&self, flags: PollFlags) -> bool {
        let mut socket = [PollFd::new(&self.socket, flags)];
        let looked = poll(&mut socket, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        looked.is_ok() && socket[0].revents().intersects(flags)
    }

    /// Sends bytes that the host of a client that is gone answers with a reset. Returns false if they would stand in the middle
    /// of an answer.
    fn ask_whether_there(&self) -> bool {
        let Phase::InHandler { can_be_asked: true, .. } = self.phase.get() else { return false };
        // The probe is short: it is sent as a whole, or there is no room, which shows that the client does not read.
        self.has_written_all.get() && (&self.socket).write(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok()
    }

    fn cut(&self) {
        self.is_cut.set(true);
        // The connection may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.cut.notify_waiters();
        if let Some(answer) = self.answer.take() {
            answer.wake();
        }
    }

    async fn until_cut(&self) {
        let notified = self.cut.notified();
        if !self.is_cut.get() {
            notified.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(act) = self.when_lost.take() else { return };
        if self.has_failed.get() || self.is_cut.get() || !self.has_written_all.get() {
            return act();
        }
        // The host of a client that is gone may not have answered yet.
        if let (Ok(runtime), Ok(socket)) = (Handle::try_current(), self.socket.try_clone()) {
            runtime.spawn(async move {
                if is_lost(socket).await {
                    act();
                }
            });
        }
    }
}

/// Whether the client's host refuses the bytes that were written last. A host accepts them, also for a client that never reads
/// them, or answers with a reset.
async fn is_lost(socket: TcpStream) -> bool {
    // Bytes that were written go out before the shutdown.
    let _ = socket.shutdown(Shutdown::Write);
    let (since, mut pause) = (Instant::now(), FIRST_LOOK);
    while since.elapsed() < STALLED_TIMEOUT {
        if !matches!(socket.take_error(), Ok(None)) {
            return true;
        }
        // Both sides have ended the connection, and all bytes are acknowledged.
        if socket.peer_addr().is_err() {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    false
}

/// Calls `act` if the answer to this request does not reach the client's host: the connection fails before its next request. A
/// client that takes the answer and then ends looks like a client that processes it.
pub fn when_answer_is_lost(request: &HttpRequest, act: impl FnOnce() + Send + 'static) {
    if let Some(link) = request.conn_data::<Rc<Link>>() {
        link.when_lost.set(Some(Box::new(act)));
    }
}

/// Whether the client has shown the certificate that the listener asked for.
pub(crate) fn has_client_certificate(request: &HttpRequest) -> bool {
    request.conn_data::<Rc<Link>>().is_some_and(|link| link.has_certificate.get())
}

/// Gives a new connection its data and its watch.
pub(crate) fn accept(stream: &Stream, data: &mut Extensions) {
    data.insert(Connection::new());
    data.insert(Rc::clone(stream.link()));
    rt::spawn(watch(Rc::downgrade(stream.link())));
}
