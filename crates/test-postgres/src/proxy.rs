//! A TCP proxy that fails as a test says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::own_ip;

/// The simple query `COMMIT`.
const COMMIT: &[u8] = b"COMMIT\0";
/// Longest wait of [`Mode::Spoil`] for more bytes.
const SPOILING: Duration = Duration::from_secs(1);

/// The treatment of the bytes that the proxy receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Hands it on.
    #[default]
    Pass,
    /// Hands on the bytes of clients; the server's answers are lost.
    Swallow,
    /// Hands everything on up to the next COMMIT of a client, then swallows.
    SwallowCommit,
    /// Hands everything on until a client sends these bytes, then swallows.
    SwallowFrom(&'static [u8]),
    /// Hands everything on until a client sends these bytes. Changes the first of them, holds them until the client sends more,
    /// for a second at most, and hands everything on from then on.
    Spoil(&'static [u8]),
    /// Holds everything until the mode changes.
    Hold,
    /// Takes connections and closes them at once.
    Refuse,
}

/// A proxy in front of an address. It ends with the process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<ProxyState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ProxyState {
    mode: Mode,
    open: Vec<TcpStream>,
    /// Bytes that servers have sent, in all modes.
    answered: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while everything is held.
    fn mode(&self) -> Mode {
        let mut state = self.lock();
        while state.mode == Mode::Hold {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.mode
    }
}

impl Proxy {
    /// A proxy in front of an address, at one of its own.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((own_ip(), 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.mode() != Mode::Refuse {
                    serve(client, target, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    /// The proxy's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode from now on.
    pub fn set(&self, mode: Mode) {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
    }

    /// The present mode: the set one, or the one that followed by itself.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.lock().mode
    }

    /// Closes every connection that goes through it.
    pub fn cut(&self) {
        for connection in self.shared.lock().open.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Bytes that the server has sent, also those that were swallowed.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.lock().answered
    }
}

fn serve(client: TcpStream, target: SocketAddr, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else { return };
    if let (Ok(one), Ok(two)) = (client.try_clone(), server.try_clone()) {
        shared.lock().open.extend([one, two]);
    }
    let (requests, answers) = (shared.clone(), shared.clone());
    thread::spawn(move || pump(client, server, &requests, false));
    thread::spawn(move || pump(server_again, client_again, &answers, true));
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, are_answers: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        let mode = shared.mode();
        let mut more = Vec::new();
        match mode {
            _ if are_answers => shared.lock().answered += count as u64,
            Mode::SwallowCommit if find(&buffer[..count], COMMIT).is_some() => shared.lock().mode = Mode::Swallow,
            Mode::SwallowFrom(bytes) if find(&buffer[..count], bytes).is_some() => shared.lock().mode = Mode::Swallow,
            Mode::Spoil(bytes) => {
                if let Some(place) = find(&buffer[..count], bytes) {
                    shared.lock().mode = Mode::Pass;
                    buffer[place] ^= 1;
                    more = read_more(&mut from);
                }
            }
            Mode::Pass | Mode::Swallow | Mode::SwallowCommit | Mode::SwallowFrom(_) | Mode::Hold | Mode::Refuse => (),
        }
        if are_answers && shared.mode() == Mode::Swallow {
            continue;
        }
        if to.write_all(&buffer[..count]).and_then(|()| to.write_all(&more)).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The bytes that a client sends within [`SPOILING`].
fn read_more(from: &mut TcpStream) -> Vec<u8> {
    let mut more = vec![0; 64 * 1024];
    let _ = from.set_read_timeout(Some(SPOILING));
    // Nothing comes in time.
    let count = from.read(&mut more).unwrap_or(0);
    let _ = from.set_read_timeout(None);
    more.truncate(count);
    more
}

/// The position of `bytes` in `sent`.
fn find(sent: &[u8], bytes: &[u8]) -> Option<usize> {
    sent.windows(bytes.len()).position(|some| some == bytes)
}
