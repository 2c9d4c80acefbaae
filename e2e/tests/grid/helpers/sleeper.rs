//! A worker for simulated work that takes as many times as long as a test wants and remembers every lease.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::Coordinator;
use super::fake_worker::{join, ok, read_lease, write};

/// Longest time until a waiting lease notices its turn or its revocation.
const LOOK: Duration = Duration::from_millis(2);

/// A lease that reached a [`Sleeper`] and is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slept {
    /// Start of the lease by the coordinator's clock, to the millisecond.
    pub(crate) given_out_at: SystemTime,
    /// Time for which it held the slot.
    pub(crate) busy: Duration,
    pub(crate) is_done: bool,
}

/// Registered and heard of until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleeper {
    leases: Arc<Mutex<Vec<Slept>>>,
    /// Dropped to end the heartbeats.
    _heartbeats: Sender<()>,
}

impl Sleeper {
    /// Starts a worker of one slot and waits until `coordinator` lists it.
    pub(crate) fn join(coordinator: &Coordinator, slowness: u32) -> Self {
        let (leases, slot): (Arc<Mutex<Vec<Slept>>>, _) = (Arc::default(), Mutex::new(()));
        let done = Arc::clone(&leases);
        let heartbeats = join(coordinator, "sleep", move |stream| {
            if let Some(slept) = serve(stream, slowness, &slot) {
                done.lock().expect("no panic").push(slept);
            }
        });
        Self { leases, _heartbeats: heartbeats }
    }

    /// The leases that are over, in the order of their ends.
    pub(crate) fn leases(&self) -> Vec<Slept> {
        self.leases.lock().expect("no panic").clone()
    }
}

/// Leases take turns, as at a worker with one slot.
fn serve(stream: &TcpStream, slowness: u32, slot: &Mutex<()>) -> Option<Slept> {
    let lease = read_lease(stream)?;
    let given_out_at = SystemTime::now();
    let (work, attempt) = (&lease["work"], lease["attempt"].as_str().expect("an attempt"));
    let end = |name: &str| lease[name].as_u64().expect("a task's number");
    let tasks = end("beyond") - end("first");
    let task = Duration::from_secs_f64(work["seconds"].as_f64().expect("a time")) * slowness;
    let revoked = |busy| Some(Slept { given_out_at, busy, is_done: false });
    let turn = loop {
        match slot.try_lock() {
            Ok(turn) => break turn,
            Err(TryLockError::WouldBlock) if is_closed_within(stream, LOOK) => return revoked(Duration::ZERO),
            Err(TryLockError::WouldBlock) => (),
            Err(TryLockError::Poisoned(error)) => panic!("{error}"),
        }
    };
    let (started_at, time) = (Instant::now(), task * u32::try_from(tasks).expect("few tasks"));
    if is_closed_within(stream, time) {
        return revoked(started_at.elapsed());
    }
    drop(turn);
    let busy = started_at.elapsed();
    let outcome = json!({ "attempt": attempt, "value": "0", "compute_us": busy.as_micros() });
    // The lease may have been revoked just now.
    let is_done = write(stream, &ok(&outcome.to_string())).is_ok();
    Some(Slept { is_done, ..revoked(busy)? })
}

/// Whether the coordinator closes the connection within `time`.
fn is_closed_within(mut stream: &TcpStream, time: Duration) -> bool {
    if time.is_zero() {
        return false;
    }
    stream.set_read_timeout(Some(time)).expect("set a timeout");
    // Nothing is sent on it any more: whatever comes is its end.
    let waited = stream.read_exact(&mut [0]);
    waited.map_or_else(|error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), |()| true)
}
