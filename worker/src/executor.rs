//! Compute threads, one per slot, each with a sieve that lives as long as it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use api::Work;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use tokio::sync::oneshot;

/// What one thread computes with; it stops early when the flag turns true.
pub(crate) type Compute = Box<dyn FnMut(&Work, &AtomicBool) -> Result<u128, ComputeError>>;

/// A finished computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Computed {
    pub(crate) value: u128,
    pub(crate) busy: Duration,
}

/// Why there is no result.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ComputeError {
    #[error("it was stopped")]
    Stopped,
    #[error("it panicked: {0}")]
    Panicked(String),
    #[error("it failed, as simulated work does at times")]
    Simulated,
}

type Answer = Result<Computed, ComputeError>;

struct Task {
    work: Work,
    stop: Arc<AtomicBool>,
    answer: oneshot::Sender<Answer>,
}

/// The compute threads and the queues before them. The bound of the queues is with those who let requests in.
#[derive(Debug)]
pub(crate) struct Executor {
    slots: Vec<Sender<Task>>,
    any_slot: Sender<Task>,
    running: Arc<AtomicU32>,
}

/// A computation that stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Computation {
    stop: Arc<AtomicBool>,
    answer: oneshot::Receiver<Answer>,
}

impl Executor {
    /// Starts `slots` threads; each computes with what `make_compute` makes for it, and with a new one after a panic.
    pub(crate) fn start(slots: u32, make_compute: fn() -> Compute) -> std::io::Result<Self> {
        let (any_slot, shared) = unbounded();
        let running = Arc::new(AtomicU32::new(0));
        let start = |slot| {
            let (sender, own) = unbounded();
            let (shared, running) = (shared.clone(), Arc::clone(&running));
            let run = move || run_slot(&own, &shared, &running, make_compute);
            thread::Builder::new().name(format!("slot-{slot}")).spawn(run)?;
            Ok(sender)
        };
        let slots = (0..slots).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { slots, any_slot, running })
    }

    /// Queues a computation behind those that wait for the same slot, so that what goes on where another one ended
    /// finds that one's sieve.
    pub(crate) fn submit_to(&self, slot: u32, work: Work) -> Computation {
        let slot = slot as usize % self.slots.len();
        Self::send(&self.slots[slot], work)
    }

    /// Queues a computation for the first slot that is free.
    pub(crate) fn submit(&self, work: Work) -> Computation {
        Self::send(&self.any_slot, work)
    }

    fn send(queue: &Sender<Task>, work: Work) -> Computation {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answer) = oneshot::channel();
        // The threads hold the other end as long as the executor lives.
        let _ = queue.send(Task { work, stop: Arc::clone(&stop), answer: sender });
        Computation { stop, answer }
    }

    /// Threads that compute now.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }
}

impl Computation {
    /// Waits for the result.
    pub(crate) async fn finish(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(ComputeError::Stopped))
    }
}

impl Drop for Computation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run_slot(own: &Receiver<Task>, shared: &Receiver<Task>, running: &AtomicU32, make_compute: fn() -> Compute) {
    let mut compute = make_compute();
    loop {
        let next = select! {
            recv(own) -> task => task,
            recv(shared) -> task => task,
        };
        // Both queues end with the executor.
        let Ok(Task { work, stop, answer }) = next else { return };
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        running.fetch_add(1, Ordering::Relaxed);
        let started_at = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| compute(&work, &stop)));
        let busy = started_at.elapsed();
        running.fetch_sub(1, Ordering::Relaxed);
        let result = result.unwrap_or_else(|panic| {
            compute = make_compute();
            Err(ComputeError::Panicked(message_of(panic.as_ref())))
        });
        // Nobody waits for a computation that was stopped.
        let _ = answer.send(result.map(|value| Computed { value, busy }));
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use api::Stretch;

    use super::*;
    use crate::compute::every_kind;

    fn sum(a: u64, b: u64) -> Work {
        Work::SumOfPrimes(Stretch { a, b, horizon: b })
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_computation_and_the_slot_goes_on() {
        let executor = Executor::start(1, || {
            Box::new(|work, _| {
                assert_ne!(*work, sum(0, 1), "zero is too small");
                Ok(7)
            })
        })
        .expect("threads");
        let Err(ComputeError::Panicked(message)) = executor.submit(sum(0, 1)).finish().await else {
            panic!("it panicked")
        };
        assert!(message.contains("zero is too small"), "{message}");
        assert_eq!(executor.submit(sum(1, 1)).finish().await.expect("computed").value, 7);
        assert_eq!(executor.running(), 0);
    }

    #[tokio::test]
    async fn a_dropped_computation_frees_its_slot() {
        let executor = Executor::start(1, every_kind).expect("threads");
        let endless = executor.submit(sum(0, u64::MAX));
        let waiting = executor.submit_to(0, sum(0, u64::MAX));
        let next = executor.submit(sum(1, 100));
        drop((endless, waiting));
        assert_eq!(next.finish().await.expect("computed").value, 1060);
    }

    #[tokio::test]
    async fn what_is_meant_for_one_slot_waits_for_it() {
        let executor = Executor::start(2, every_kind).expect("threads");
        let endless = executor.submit_to(0, sum(0, u64::MAX));
        let mut behind = executor.submit_to(0, sum(1, 100));
        assert_eq!(executor.submit_to(1, sum(1, 10)).finish().await.expect("computed").value, 17);
        assert!(behind.answer.try_recv().is_err(), "its slot is busy");
        drop(endless);
        assert_eq!(behind.finish().await.expect("computed").value, 1060);
    }
}
