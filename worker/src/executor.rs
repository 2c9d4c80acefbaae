//! Compute threads, one per slot, each with a sieve that lives as long as it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use protocol::NumberRange;
use tokio::sync::oneshot;

/// What one thread computes with; it stops early when the flag turns true.
pub(crate) type Compute = Box<dyn FnMut(NumberRange, &AtomicBool) -> Option<u128>>;

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
}

type Answer = Result<Computed, ComputeError>;

struct Work {
    range: NumberRange,
    stop: Arc<AtomicBool>,
    answer: oneshot::Sender<Answer>,
}

/// The compute threads and the queue before them. The queue's bound is with those who let requests in.
#[derive(Debug)]
pub(crate) struct Executor {
    queue: async_channel::Sender<Work>,
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
        let (sender, queue) = async_channel::unbounded();
        let running = Arc::new(AtomicU32::new(0));
        for slot in 0..slots {
            let (queue, running) = (queue.clone(), Arc::clone(&running));
            let run = move || run_slot(&queue, &running, make_compute);
            thread::Builder::new().name(format!("slot-{slot}")).spawn(run)?;
        }
        Ok(Self { queue: sender, running })
    }

    /// Queues a computation behind those that wait.
    pub(crate) fn submit(&self, range: NumberRange) -> Computation {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answer) = oneshot::channel();
        // The threads hold the other end as long as the executor lives, and a full queue cannot be: it has no bound.
        let _ = self.queue.try_send(Work { range, stop: Arc::clone(&stop), answer: sender });
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

/// A sum of primes on a sieve of its own.
pub(crate) fn sum_of_primes() -> Compute {
    let mut sieve = primes::Sieve::new();
    Box::new(move |range, stop| sieve.sum(range.into(), stop).ok())
}

fn run_slot(queue: &async_channel::Receiver<Work>, running: &AtomicU32, make_compute: fn() -> Compute) {
    let mut compute = make_compute();
    while let Ok(Work { range, stop, answer }) = queue.recv_blocking() {
        running.fetch_add(1, Ordering::Relaxed);
        let started_at = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| compute(range, &stop)));
        let busy = started_at.elapsed();
        running.fetch_sub(1, Ordering::Relaxed);
        let result = match result {
            Ok(Some(value)) => Ok(Computed { value, busy }),
            Ok(None) => Err(ComputeError::Stopped),
            Err(panic) => {
                compute = make_compute();
                Err(ComputeError::Panicked(message_of(panic.as_ref())))
            }
        };
        // Nobody waits for a computation that was stopped.
        let _ = answer.send(result);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(a: u64, b: u64) -> NumberRange {
        NumberRange::new(a, b).expect("a <= b")
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_computation_and_the_slot_goes_on() {
        let executor = Executor::start(1, || {
            Box::new(|range, _| {
                assert!(range.a() > 0, "zero is too small");
                Some(7)
            })
        })
        .expect("threads");
        let panicked = executor.submit(range(0, 1)).finish().await;
        assert_eq!(panicked, Err(ComputeError::Panicked("zero is too small".to_owned())));
        assert_eq!(executor.submit(range(1, 1)).finish().await.expect("computed").value, 7);
        assert_eq!(executor.running(), 0);
    }

    #[tokio::test]
    async fn a_dropped_computation_frees_its_slot() {
        let executor = Executor::start(1, sum_of_primes).expect("threads");
        let endless = executor.submit(range(0, u64::MAX));
        let waiting = executor.submit(range(0, u64::MAX));
        let next = executor.submit(range(1, 100));
        drop((endless, waiting));
        assert_eq!(next.finish().await.expect("computed").value, 1060);
    }
}
