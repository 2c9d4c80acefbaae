//! Rates over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Number of ticks over which throughput is measured.
const WINDOW: usize = 10;

/// Shortest interval from which a rate is measured.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// Tasks a second of one job: the mean of the previous and the present rate, so that one odd second does not show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    last: Option<(Instant, u64)>,
    per_second: Option<f64>,
}

impl Rate {
    /// Notes that `done` tasks are done by now.
    pub(crate) fn tick(&mut self, done: u64, now: Instant) {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_duration_since(then);
            if seconds < LEAST_INTERVAL {
                return;
            }
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let shown = done.saturating_sub(before) as f64 / seconds.as_secs_f64();
            self.per_second = Some(self.per_second.map_or(shown, |earlier| f64::midpoint(earlier, shown)));
        }
        self.last = Some((now, done));
    }

    /// Leaves the time between the last tick and the next one out: for a part of it nothing could be done.
    pub(crate) fn interrupt(&mut self) {
        self.last = None;
    }

    pub(crate) fn per_second(self) -> Option<f64> {
        self.per_second
    }
}

/// Tasks and numbers of all jobs, over the last ten ticks.
#[derive(Debug)]
pub(crate) struct Throughput {
    tasks: u64,
    numbers: u128,
    ticks: VecDeque<(Instant, u64, u128)>,
}

impl Throughput {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tasks: 0, numbers: 0, ticks: VecDeque::from([(now, 0, 0)]) }
    }

    pub(crate) fn count(&mut self, tasks: u64, numbers: u128) {
        self.tasks += tasks;
        self.numbers += numbers;
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if self.ticks.len() > WINDOW {
            self.ticks.pop_front();
        }
        self.ticks.push_back((now, self.tasks, self.numbers));
    }

    /// Tasks and numbers a second between the oldest and the newest tick.
    pub(crate) fn per_second(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.ticks.front(), self.ticks.back()) else { return (0.0, 0.0) };
        let seconds = last.0.saturating_duration_since(first.0).max(LEAST_INTERVAL).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (tasks, numbers) = ((last.1 - first.1) as f64, (last.2 - first.2) as f64);
        (tasks / seconds, numbers / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_is_done_and_forgets_by_halves() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        rate.tick(0, start);
        assert_eq!(rate.per_second(), None);
        rate.tick(100, start + Duration::from_secs(1));
        assert_eq!(rate.per_second(), Some(100.0));
        rate.tick(100, start + Duration::from_secs(2));
        assert_eq!(rate.per_second(), Some(50.0));
    }

    #[test]
    fn a_rate_leaves_an_interruption_out() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        rate.tick(0, start);
        rate.tick(100, start + Duration::from_secs(1));
        rate.interrupt();
        rate.tick(100, start + Duration::from_secs(3600));
        assert_eq!(rate.per_second(), Some(100.0));
        rate.tick(200, start + Duration::from_secs(3601));
        assert_eq!(rate.per_second(), Some(100.0));
    }

    #[test]
    fn throughput_is_that_of_the_last_ten_ticks() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        throughput.count(1_000_000, 0);
        for second in 1..=11 {
            throughput.tick(start + Duration::from_secs(second));
            throughput.count(50, 7);
        }
        throughput.tick(start + Duration::from_secs(12));
        assert_eq!(throughput.per_second(), (50.0, 7.0));
    }
}
