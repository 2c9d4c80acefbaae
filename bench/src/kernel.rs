//! The kernel alone, on as many threads as the grid has slots.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use protocol::{NumberRange, Split};

/// Pieces that each thread gets about, so that both end at about the same time.
const PIECES_PER_THREAD: u64 = 4;

#[derive(Debug)]
struct Piece {
    split: Split,
    next: AtomicU64,
}

/// Threads that keep their sieves from call to call, as a worker's slots do.
#[derive(Debug)]
pub(crate) struct Kernel {
    threads: Vec<Sender<Arc<Piece>>>,
    sums: Mutex<Receiver<u128>>,
}

impl Kernel {
    pub(crate) fn start(threads: u32) -> Self {
        let (sums, received) = channel();
        let start = |_| {
            let (sender, work) = channel::<Arc<Piece>>();
            let sums = sums.clone();
            thread::spawn(move || work.iter().try_for_each(|piece| sums.send(sum_share(&piece))));
            sender
        };
        Self { threads: (0..threads).map(start).collect(), sums: Mutex::new(received) }
    }

    /// The sum and the time it took.
    pub(crate) fn sum(&self, range: NumberRange) -> (u128, Duration) {
        let pieces = self.threads.len() as u64 * PIECES_PER_THREAD;
        let chunk = u64::try_from(range.len() / u128::from(pieces)).unwrap_or(u64::MAX).max(2_500_000);
        let chunk = chunk.try_into().expect("at least 2.5 million");
        let started_at = Instant::now();
        let work = Arc::new(Piece { split: Split::new(range, chunk), next: AtomicU64::new(0) });
        for thread in &self.threads {
            thread.send(Arc::clone(&work)).expect("a kernel thread never ends by itself");
        }
        let sums = self.sums.lock().expect("nobody panics with it");
        let sum = sums.iter().take(self.threads.len()).sum();
        (sum, started_at.elapsed())
    }
}

fn sum_share(work: &Piece) -> u128 {
    let claim = || {
        let task = work.next.fetch_add(1, Ordering::Relaxed);
        (task < work.split.tasks()).then_some(Range { start: task, end: task + 1 })
    };
    std::iter::from_fn(claim).map(|task| primes::sum(work.split.numbers(&task).into())).sum()
}
