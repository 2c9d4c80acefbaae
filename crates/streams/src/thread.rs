//! A part on a thread of its own: its calls into librdkafka may block.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Interval at which a part that may not act asks whether it may.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// Whether a part is to end, and whether it may act. Clones are the same.
#[derive(Clone)]
pub struct Stop {
    is_set: Arc<(Mutex<bool>, Condvar)>,
    trust: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}

impl Stop {
    pub(crate) fn new(trust: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { is_set: Arc::default(), trust: Arc::new(trust) }
    }

    /// Whether the part is to end now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.is_set.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the part may change anything outside now: a process that was paused finds out here that another one leads.
    #[must_use]
    pub fn may_act(&self) -> bool {
        (self.trust)() && !self.is_set()
    }

    /// Waits until the part may act. Returns false when the part is to end.
    #[must_use]
    pub fn wait_to_act(&self) -> bool {
        while !self.is_set() {
            if (self.trust)() {
                return true;
            }
            self.sleep(ASK_INTERVAL);
        }
        false
    }

    /// Waits, unless the part is to end.
    pub fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut is_set = self.is_set.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            is_set = self.is_set.1.wait_timeout(is_set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn set(&self) {
        *self.is_set.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.is_set.1.notify_all();
    }
}

/// Sets the stop when its future is dropped.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Starts a part, which changes things outside only while `trust` holds. The part ends soon after its future was dropped; the
/// future resolves if the part ends before.
///
/// # Errors
/// No thread can be started.
pub fn start(
    name: &str,
    trust: impl Fn() -> bool + Send + Sync + 'static,
    part: impl FnOnce(&Stop) + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (stop, (ended, end)) = (Stop::new(trust), oneshot::channel::<()>());
    let told = stop.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ended = ended;
        part(&told);
    })?;
    let stop = StopOnDrop(stop);
    Ok(async move {
        let _stop = stop;
        // An error means that the thread has ended.
        let _ = end.await;
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_part_whose_future_goes_is_told_to_end() {
        let (ended, end) = std::sync::mpsc::channel();
        let running = start(
            "part",
            || true,
            move |stop| {
                stop.sleep(Duration::from_secs(3600));
                let _ = ended.send(stop.is_set());
            },
        );
        drop(running.expect("a thread"));
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_noticed() {
        start("part", || true, |_| ()).expect("a thread").await;
    }

    #[test]
    fn a_part_waits_while_it_may_not_act() {
        let trust = Arc::new(AtomicBool::new(false));
        let holds = Arc::clone(&trust);
        let (acted, acts) = std::sync::mpsc::channel();
        let part = move |stop: &Stop| {
            let _ = acted.send(stop.may_act());
            let _ = acted.send(stop.wait_to_act());
        };
        let running = start("part", move || holds.load(Ordering::Acquire), part).expect("a thread");
        assert_eq!(acts.recv_timeout(Duration::from_secs(60)), Ok(false));
        trust.store(true, Ordering::Release);
        assert_eq!(acts.recv_timeout(Duration::from_secs(60)), Ok(true));
        drop(running);
    }
}
