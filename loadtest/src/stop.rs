//! The end of a run before its time: the first SIGINT, SIGTERM or SIGHUP asks for the report, the second ends the process.

use std::future::pending;
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::INTERRUPTED;

/// Interval at which a thread that waits for its next send looks for the end of the run.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait for open answers after a stop.
const GRACE: Duration = Duration::from_secs(2);

/// Whether the run is to end early.
#[derive(Clone)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Stop {
    /// Catches the signals from now on. A run that `nohup` started goes on at the end of its terminal.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        let stop = Self { asked: Arc::default(), notify: Arc::default() };
        let told = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                    () = hung_up(hang_up.as_mut()) => (),
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

async fn hung_up(hang_up: Option<&mut Signal>) {
    match hang_up {
        Some(hang_up) => drop(hang_up.recv().await),
        None => pending().await,
    }
}

/// Whether this process was started with SIGHUP ignored: the first bit of a mask in its status (proc(5)).
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}
