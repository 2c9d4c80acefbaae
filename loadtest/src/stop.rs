//! The end of a run before its time: the first SIGINT or SIGTERM asks for the report, the second ends the process.

use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::INTERRUPTED;

/// How often a thread that waits for its next send looks whether the run is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long the answers that are still to come are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// Whether the run is to end early.
#[derive(Clone)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Stop {
    /// Catches both signals from now on.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = Self { asked: Arc::default(), notify: Arc::default() };
        let told = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                }
                if told.asked.swap(true, Ordering::Relaxed) {
                    exit(INTERRUPTED.into());
                }
                told.notify.notify_one();
            }
        });
        Ok(stop)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Sleeps on this thread; false when the run is to end before that.
    pub(crate) fn sleep_until(&self, until: Instant) -> bool {
        while !self.is_asked() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(LOOK_INTERVAL));
        }
        false
    }

    /// Resolves when the run is to end and the answers have had their time to come.
    pub(crate) async fn after_grace(&self) {
        if !self.is_asked() {
            self.notify.notified().await;
        }
        sleep(GRACE).await;
    }
}
