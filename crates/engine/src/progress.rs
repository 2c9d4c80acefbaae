//! Progress of a job, measured by the work in its tasks rather than by their number.

use std::ops::Range;
use std::time::Instant;

use scheduler::History;
use workloads::Workload;

use crate::rates::Rate;

/// Parts of a job in which its rate is measured.
const PARTS: f64 = 1e9;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Weight of the done tasks, of those out of attempts, and of all tasks.
    done: f64,
    failed: f64,
    total: f64,
    /// Parts of the whole a second.
    rate: Rate,
}

impl Progress {
    pub(crate) fn new(work: &dyn Workload, history: &History) -> Self {
        let weight = |runs: &[Range<u64>]| runs.iter().map(|tasks| work.weight(tasks)).sum::<f64>();
        let failed = weight(&history.failed);
        let done = weight(&history.over) - failed;
        Self { done, failed, total: work.weight(&(0..work.tasks())), rate: Rate::default() }
    }

    pub(crate) fn add(&mut self, weight: f64) {
        self.done += weight;
    }

    /// Notes that tasks are out of attempts.
    pub(crate) fn fail(&mut self, weight: f64) {
        self.failed += weight;
    }

    /// Notes that the tasks out of attempts are open again.
    pub(crate) fn reopen_failed(&mut self) {
        self.failed = 0.0;
    }

    /// See [`Rate::interrupt`].
    pub(crate) fn interrupt(&mut self) {
        self.rate.interrupt();
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        self.rate.tick(self.billionths().into(), now);
    }

    /// The share of the work that is done, 0 to 1.
    pub(crate) fn fraction(&self) -> f64 {
        if self.total > 0.0 { (self.done / self.total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The share of the work that is done, in billionths.
    pub(crate) fn billionths(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a billion")]
        let billionths = (self.fraction() * PARTS) as u32;
        billionths
    }

    /// Seconds until the end at the present rate, once it is known. Tasks out of attempts take no more time.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let rate = self.rate.per_second().filter(|rate| *rate > 0.0)?;
        let open = (self.total - self.done - self.failed).max(0.0);
        Some(open / self.total * PARTS / rate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn progress_and_time_left_follow_the_weight_of_tasks() {
        let start = Instant::now();
        let mut progress = Progress { done: 0.0, failed: 0.0, total: 200.0, rate: Rate::default() };
        progress.tick(start);
        assert_eq!((progress.fraction(), progress.seconds_left()), (0.0, None));
        progress.add(50.0);
        progress.tick(start + Duration::from_secs(1));
        assert!((progress.fraction() - 0.25).abs() < 1e-9);
        let left = progress.seconds_left().expect("a rate is known");
        assert!((left - 3.0).abs() < 1e-6, "{left}");
        progress.fail(100.0);
        let left = progress.seconds_left().expect("a rate is known");
        assert!((left - 1.0).abs() < 1e-6, "{left}");
        progress.reopen_failed();
        let left = progress.seconds_left().expect("a rate is known");
        assert!((left - 3.0).abs() < 1e-6, "{left}");
    }
}
