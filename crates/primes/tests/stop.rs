//! The stop flag ends a call soon, wherever it is, and leaves the sieve usable.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use primes::{Sieve, Stopped};

/// Computing time that a call may still take; the sieve itself aims at 20 ms.
const PATIENCE: Duration = Duration::from_millis(500);

/// Computing time after which a call is in the midst of its work.
const UNDER_WAY: Duration = Duration::from_millis(30);

/// Longest wait for a thread to be scheduled on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The directory of the calling thread in `/proc`.
fn this_thread() -> PathBuf {
    Path::new("/proc").join(fs::read_link("/proc/thread-self").expect("Linux has it"))
}

/// The time that a thread has computed, however long it waited for a core.
fn computed(thread: &Path) -> Duration {
    let text = fs::read_to_string(thread.join("schedstat")).expect("the thread is there");
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("it begins with nanoseconds"))
}

#[test]
fn call_stops_everywhere_and_the_sieve_goes_on() {
    let mut sieve = Sieve::new();
    for range in [
        0..=u64::MAX,
        1_000_000_000_000..=1 << 45,
        1_000_000_000_000_000..=1 << 50,
        4_000_000_000_000_000..=1 << 52,
        1_000_000_000_000_000_000..=1 << 60,
        u64::MAX - (1 << 50)..=u64::MAX,
    ] {
        let stop = AtomicBool::new(false);
        let (begun, begins) = mpsc::channel();
        let (leave, leaves) = mpsc::channel::<()>();
        let (result, took) = thread::scope(|scope| {
            let call = scope.spawn(|| {
                let own = this_thread();
                begun.send((own.clone(), computed(&own))).expect("it is waited for");
                let ended = (sieve.sum(range.clone(), &stop), computed(&own));
                // The thread's computing time can be read until the other end is dropped.
                let _ = leaves.into_iter().next();
                ended
            });
            let (caller, before) = begins.recv().expect("it begins");
            let deadline = Instant::now() + DEADLINE;
            while computed(&caller).saturating_sub(before) < UNDER_WAY {
                assert!(Instant::now() < deadline, "the sieve does not compute");
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            // Read after the flag is set, since this thread may wait for a core before that.
            let stopped_at = computed(&caller);
            drop(leave);
            let (result, ended_at) = call.join().expect("the sieve does not panic");
            (result, ended_at.saturating_sub(stopped_at))
        });
        assert_eq!(result, Err(Stopped));
        assert!(took < PATIENCE, "{took:?} in {range:?}");
        assert_eq!(sieve.count(1..=1_000_000, &AtomicBool::new(false)), Ok(78_498));
    }
}

#[test]
fn call_that_is_stopped_from_the_start_does_nothing() {
    let mut sieve = Sieve::new();
    assert_eq!(sieve.sum(1..=100, &AtomicBool::new(true)), Err(Stopped));
    assert_eq!(sieve.sum(1..=100, &AtomicBool::new(false)), Ok(1060));
}
