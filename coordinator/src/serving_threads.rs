//! Threads that serve requests send the leases that result from them, and read the answers: passing a lease to another thread,
//! and its outcome back, would wake two threads, which takes longer than a small task. A lease that results from a timer goes to
//! a thread that serves clients, since the leases that follow it on its slot stay on its thread.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::client::{ClientTls, StartError, http_client_with};
use async_channel::{Receiver, Sender};
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

/// Takes the mark from this thread, whose runtime ends.
pub(crate) fn unmark() {
    SERVES.set(false);
}

/// Whether this thread serves requests.
pub(crate) fn is_marked() -> bool {
    SERVES.get()
}

/// An action that starts tasks on the thread that performs it.
type Action = Box<dyn FnOnce() + Send>;

/// The threads that serve clients, for actions of other threads.
#[derive(Debug)]
pub(crate) struct ServingThreads {
    actions: Sender<Action>,
    to_perform: Receiver<Action>,
    /// Number of threads that perform actions.
    count: AtomicUsize,
}

impl Default for ServingThreads {
    fn default() -> Self {
        let (actions, to_perform) = async_channel::unbounded();
        Self { actions, to_perform, count: AtomicUsize::new(0) }
    }
}

impl ServingThreads {
    /// Lets this thread, which must run a runtime, perform actions for as long as the runtime lives.
    pub(crate) fn join(self: &Arc<Self>) {
        mark();
        let member = Member::new(Arc::clone(self));
        tokio::spawn(async move {
            while let Ok(action) = member.0.to_perform.recv().await {
                action();
            }
        });
    }

    /// Performs an action on one of the threads, or on this thread if there is none.
    pub(crate) fn perform(&self, action: Action) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return action();
        }
        // Both ends of the queue are here, so it is open.
        if let Err(refused) = self.actions.try_send(action) {
            refused.into_inner()();
        }
    }
}

/// Counts a thread among those that perform actions. The thread's runtime owns the value and drops it when the runtime ends.
#[derive(Debug)]
struct Member(Arc<ServingThreads>);

impl Member {
    fn new(threads: Arc<ServingThreads>) -> Self {
        threads.count.fetch_add(1, Ordering::SeqCst);
        Self(threads)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
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
    use std::sync::mpsc::channel;
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn an_action_goes_to_a_serving_thread_while_there_is_one() {
        let (threads, here) = (Arc::new(ServingThreads::default()), thread::current().id());
        let performed_on = || {
            let (performed, thread_of) = channel();
            threads.perform(Box::new(move || performed.send(thread::current().id()).expect("the test waits")));
            thread_of.recv().expect("it is performed")
        };
        assert_eq!(performed_on(), here, "nothing serves yet");
        let (joined, has_joined) = channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let joining = Arc::clone(&threads);
        let serving = thread::spawn(move || {
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                joining.join();
                assert!(is_marked());
                joined.send(()).expect("the test waits");
                let _ = ended.await;
            });
        });
        has_joined.recv().expect("it joins");
        assert_eq!(performed_on(), serving.thread().id());
        drop(end);
        serving.join().expect("no panic");
        assert_eq!(performed_on(), here, "nothing serves any more");
    }

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
