//! The kernel alone, on threads that keep their sieves from call to call, as a worker's slots do.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use model::{DEFAULT_CHUNK_SIZE, NumberRange, Split};
use primes::Sieve;

use crate::process;

static NEVER: AtomicBool = AtomicBool::new(false);

/// The division of a range over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// Each thread takes one contiguous part: the least CPU time.
    Parts,
    /// Each thread takes one part in steps; an idle thread takes over the last steps of another: the least time.
    Balanced,
}

/// Steps of a thread's part, where the range is long enough.
const STEPS: u64 = 16;

#[derive(Debug)]
pub(crate) struct Kernel {
    threads: Vec<Sender<Arc<Job>>>,
    shares: Receiver<anyhow::Result<Share>>,
}

/// The figures of one computation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Computed {
    pub(crate) sum: u128,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

#[derive(Debug)]
struct Share {
    sum: u128,
    cpu_seconds: f64,
}

#[derive(Debug)]
struct Job {
    split: Split,
    /// The rest of each thread's part.
    left: Mutex<Vec<Range<u64>>>,
}

impl Kernel {
    pub(crate) fn start(threads: u32) -> Self {
        let (sender, shares) = channel();
        let start = |thread| {
            let (jobs, received) = channel::<Arc<Job>>();
            let shares = sender.clone();
            thread::spawn(move || {
                let mut sieve = Sieve::new();
                received.iter().try_for_each(|job| shares.send(compute(&job, thread, &mut sieve)))
            });
            jobs
        };
        Self { threads: (0..threads as usize).map(start).collect(), shares }
    }

    pub(crate) fn sum(&self, range: NumberRange, division: Division) -> anyhow::Result<Computed> {
        let started_at = Instant::now();
        let job = Arc::new(Job::new(range, self.threads.len() as u64, division));
        for thread in &self.threads {
            thread.send(Arc::clone(&job)).context("a thread of the kernel ended")?;
        }
        let mut computed = Computed { sum: 0, seconds: 0.0, cpu_seconds: 0.0 };
        for share in self.shares.iter().take(self.threads.len()) {
            let share = share?;
            computed.sum += share.sum;
            computed.cpu_seconds += share.cpu_seconds;
        }
        Ok(Computed { seconds: started_at.elapsed().as_secs_f64(), ..computed })
    }
}

impl Job {
    fn new(range: NumberRange, threads: u64, division: Division) -> Self {
        let steps = if division == Division::Balanced { threads * STEPS } else { threads };
        let step = u64::try_from(range.len() / u128::from(steps)).unwrap_or(u64::MAX);
        let split = Split::new(range, DEFAULT_CHUNK_SIZE.max(step.try_into().unwrap_or(DEFAULT_CHUNK_SIZE)));
        let bound = |thread| split.tasks() * thread / threads;
        let left = (0..threads).map(|thread| bound(thread)..bound(thread + 1)).collect();
        Self { split, left: Mutex::new(left) }
    }

    /// The next step for a thread, and the end of the steps that follow it.
    fn claim(&self, thread: usize) -> Option<(Range<u64>, u64)> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let own = &mut left[thread];
        if let Some(step) = own.next() {
            return Some((step..step + 1, own.end.max(step + 1)));
        }
        let longest = left.iter_mut().max_by_key(|part| part.end - part.start)?;
        let step = longest.next_back()?;
        Some((step..step + 1, step + 1))
    }
}

fn compute(job: &Job, thread: usize, sieve: &mut Sieve) -> anyhow::Result<Share> {
    let before = process::own_thread_cpu()?;
    let mut sum = 0;
    while let Some((step, end)) = job.claim(thread) {
        let horizon = job.split.numbers(&(step.start..end)).b();
        sum += sieve.sum_towards(job.split.numbers(&step).into(), horizon, &NEVER)?;
    }
    Ok(Share { sum, cpu_seconds: process::own_thread_cpu()? - before })
}
