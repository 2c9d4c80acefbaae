//! A worker for simulated work that keeps a lease for as long as a test wants.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use serde_json::{Value, json};

use super::fake_worker::{join, ok, read_lease, write};
use super::{Coordinator, PATIENCE};

/// Longest time until a waiting lease notices its turn, the gate or its revocation.
const LOOK: Duration = Duration::from_millis(2);

/// Leases of every worker that take the time of their tasks and no longer. The lease after them is claimed when the cost of the
/// job is known, also where a slot gets its first two leases at once.
const QUICK_LEASES: u64 = 3;

/// The end of a [`Sleeper`]'s leases after its first ones, which take the time of their tasks.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// Each lease takes the time of its tasks, but ends only once the gate is open.
    Gated(Arc<AtomicBool>),
    /// No lease ends; the first of them opens the gate.
    Endless(Arc<AtomicBool>),
}

/// Registered and heard of until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleeper {
    /// Leases that were taken back.
    revoked: Arc<AtomicU64>,
    /// Dropped to end the heartbeats.
    _heartbeats: Sender<()>,
}

impl Sleeper {
    /// Starts a worker of one slot and waits until `coordinator` lists it.
    pub(crate) fn join(coordinator: &Coordinator, pace: Pace) -> Self {
        let (revoked, begun) = (Arc::new(AtomicU64::new(0)), Mutex::new(0));
        let counter = Arc::clone(&revoked);
        let heartbeats = join(coordinator, "sleep", move |stream| {
            let Some(lease) = read_lease(stream) else { return };
            if serve(stream, &lease, &pace, &begun).is_none() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { revoked, _heartbeats: heartbeats }
    }

    /// Leases that were taken back before their end.
    pub(crate) fn revoked(&self) -> u64 {
        self.revoked.load(Ordering::Relaxed)
    }
}

/// Serves a lease; `None` where it is taken back. Leases take turns, as at a worker with one slot: `begun` counts them.
fn serve(stream: &TcpStream, lease: &Value, pace: &Pace, begun: &Mutex<u64>) -> Option<()> {
    let end = |name: &str| lease[name].as_u64().expect("a task's number");
    let tasks = u32::try_from(end("beyond") - end("first")).expect("few tasks");
    let time = Duration::from_secs_f64(lease["work"]["seconds"].as_f64().expect("a time")) * tasks;
    let mut turn = loop {
        match begun.try_lock() {
            Ok(turn) => break turn,
            Err(TryLockError::WouldBlock) => stays_open(stream, LOOK)?,
            Err(TryLockError::Poisoned(error)) => panic!("{error}"),
        }
    };
    *turn += 1;
    match pace {
        Pace::Endless(gate) if *turn > QUICK_LEASES => {
            gate.store(true, Ordering::Relaxed);
            loop {
                stays_open(stream, PATIENCE)?;
            }
        }
        Pace::Gated(gate) if *turn > QUICK_LEASES => {
            while !gate.load(Ordering::Relaxed) {
                stays_open(stream, LOOK)?;
            }
        }
        Pace::Gated(_) | Pace::Endless(_) => (),
    }
    stays_open(stream, time)?;
    drop(turn);
    let outcome = json!({ "attempt": lease["attempt"], "value": "0", "compute_us": time.as_micros() });
    // The lease may have been revoked just now.
    write(stream, &ok(&outcome.to_string())).ok()
}

/// Waits for `time`; `None` as soon as the coordinator closes the connection.
fn stays_open(mut stream: &TcpStream, time: Duration) -> Option<()> {
    stream.set_read_timeout(Some(time)).expect("set a timeout");
    // Nothing is sent on it any more: whatever comes is its end.
    let error = stream.read_exact(&mut [0]).err()?;
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut).then_some(())
}
