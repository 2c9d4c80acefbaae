//! Threads that serve requests send the leases that result from them, and read the answers: passing a lease to another thread,
//! and its outcome back, would wake two threads, which takes longer than a small task.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use api::client::{ClientTls, StartError, http_client_with};
use reqwest::Client;
use thread_local::ThreadLocal;
use tracing::warn;

thread_local! {
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that serves requests: it runs a runtime for as long as leases are sent.
pub(crate) fn mark() {
    SERVES.set(true);
}

/// Whether this thread serves requests.
pub(crate) fn is_marked() -> bool {
    SERVES.get()
}

/// The HTTP clients of the threads that send. A connection lives on the thread that opened it, so each thread has its own
/// client.
pub(crate) struct Clients {
    connect_timeout: Duration,
    tls: ClientTls,
    /// The client of threads that serve no requests.
    first: Client,
    own: ThreadLocal<Client>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// # Errors
    /// A file of TLS cannot be used, or the system refuses a client's resources.
    pub(crate) fn new(connect_timeout: Duration, tls: ClientTls) -> Result<Self, StartError> {
        let first = http_client_with(connect_timeout, &tls, false)?;
        Ok(Self { connect_timeout, tls, first, own: ThreadLocal::new() })
    }

    /// The client of this thread.
    pub(crate) fn here(&self) -> &Client {
        if !is_marked() {
            return &self.first;
        }
        let own = self.own.get_or_try(|| http_client_with(self.connect_timeout, &self.tls, false));
        own.unwrap_or_else(|error| {
            warn!(%error, "no HTTP client for a thread of its own: leases use a shared one");
            &self.first
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::from_ref;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn each_serving_thread_has_a_client_of_its_own_and_all_others_share_one() {
        let clients = Clients::new(Duration::from_secs(1), ClientTls::default()).expect("clients");
        let here = || from_ref(clients.here()) as usize;
        let shared = here();
        // The client of a thread that has ended passes to a new one.
        let together = Barrier::new(2);
        let others = thread::scope(|scope| {
            let serving = || {
                mark();
                let own = here();
                together.wait();
                assert_eq!(here(), own);
                own
            };
            let threads = [scope.spawn(serving), scope.spawn(serving), scope.spawn(here)];
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_ne!(others[0], others[1]);
        assert!(!others[..2].contains(&shared));
        assert_eq!(others[2], shared);
    }
}
