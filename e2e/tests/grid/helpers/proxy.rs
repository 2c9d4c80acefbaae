//! A way between two processes that a test can cut and listen in on, and that may pass on only the beginning of a request.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use test_postgres::own_ip;

/// Bytes that are passed on at a time.
const PIECE: usize = 64 * 1024;

/// A TCP proxy to one address. Its threads end with its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
}

#[derive(Debug, Default)]
struct Way {
    is_cut: AtomicBool,
    /// Bytes that are passed on to the server over one connection; `None` without a bound.
    most_sent: Option<usize>,
    /// A text of the server's: the connection that brings it breaks instead, once.
    swallowed: Mutex<Option<Vec<u8>>>,
    has_swallowed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        Self::start(target, Way::default())
    }

    /// Passes on only so many bytes over one connection to the server. What a client sends beyond them does not arrive, as if it
    /// was still on its way; the connection stays until either side ends it.
    pub(crate) fn that_stalls_after(bytes: usize, target: SocketAddr) -> Self {
        Self::start(target, Way { most_sent: Some(bytes), ..Way::default() })
    }

    fn start(target: SocketAddr, way: Way) -> Self {
        let listener = TcpListener::bind((own_ip(), 0)).expect("a free port");
        let (address, way) = (listener.local_addr().expect("bound"), Arc::new(way));
        let of_listener = Arc::clone(&way);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let way = Arc::clone(&of_listener);
                // Dropped, it is closed.
                if !way.is_cut() {
                    connect(&way, client, target);
                }
            }
        });
        Self { address, way }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, and refuses new ones until it is cut no more.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.way.is_cut.store(is_cut, Ordering::SeqCst);
        if is_cut {
            self.way.close_all();
        }
    }

    /// The next answer of the server that has this text does not arrive: its connection breaks.
    pub(crate) fn swallow(&self, text: &[u8]) {
        let mut swallowed = self.way.swallowed.lock().unwrap_or_else(PoisonError::into_inner);
        self.way.has_swallowed.store(false, Ordering::SeqCst);
        *swallowed = Some(text.to_owned());
    }

    /// Whether an answer has been lost since the last call of [`Self::swallow`].
    pub(crate) fn has_swallowed(&self) -> bool {
        self.way.has_swallowed.load(Ordering::SeqCst)
    }
}

impl Way {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn close_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The connection may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn swallows(&self, piece: &[u8]) -> bool {
        let mut swallowed = self.swallowed.lock().unwrap_or_else(PoisonError::into_inner);
        let found = swallowed.take_if(|text| piece.windows(text.len()).any(|window| window == text.as_slice()));
        if found.is_some() {
            self.has_swallowed.store(true, Ordering::SeqCst);
        }
        found.is_some()
    }
}

fn connect(way: &Arc<Way>, client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let clone = |stream: &TcpStream| stream.try_clone().expect("another handle");
    way.open.lock().unwrap_or_else(PoisonError::into_inner).extend([clone(&client), clone(&server)]);
    for (from, to, is_answer) in [(clone(&client), clone(&server), false), (server, client, true)] {
        let way = Arc::clone(way);
        thread::spawn(move || pass_on(&way, from, to, is_answer));
    }
}

fn pass_on(way: &Way, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
    let mut piece = vec![0; PIECE];
    let mut left = way.most_sent.filter(|_| !is_answer).unwrap_or(usize::MAX);
    while let Ok(length) = from.read(&mut piece) {
        let passed = length.min(left);
        left -= passed;
        if length == 0 || (is_answer && way.swallows(&piece[..length])) || to.write_all(&piece[..passed]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
