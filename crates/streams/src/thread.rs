//! A part on a thread of its own: its calls into librdkafka may block.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Whether a part is to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Whether it is to end now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, unless it is to end.
    pub fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut is_set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            is_set = self.0.1.wait_timeout(is_set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// Tells the thread when its future goes.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Starts a part. It ends soon after the future was dropped, which resolves if it ends before.
///
/// # Errors
/// No thread can be started.
pub fn start(
    name: &str,
    part: impl FnOnce(&Stop) + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (stop, (ended, end)) = (Stop::default(), oneshot::channel::<()>());
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
    use super::*;

    #[test]
    fn a_part_whose_future_goes_is_told_to_end() {
        let (ended, end) = std::sync::mpsc::channel();
        let running = start("part", move |stop| {
            stop.sleep(Duration::from_secs(60));
            let _ = ended.send(stop.is_set());
        });
        drop(running.expect("a thread"));
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(true));
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_noticed() {
        start("part", |_| ()).expect("a thread").await;
    }
}
