//! Leases of equal work where a job's later tasks take longer than its earlier ones.

use super::{Offer, TaskSet};
use crate::spec::JobSpec;

/// A rest of a run of less than this part of a lease goes with the lease beside it: cuts are rounded to whole tasks.
const LEAST_REST: u64 = 6;

/// The time of each task in multiples of the job's average task. It rises evenly from the first task to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    /// Number of the job's tasks.
    tasks: u64,
    /// The rise a task.
    each: f64,
}

impl Slope {
    /// None if all tasks take the same time.
    pub(crate) fn of(spec: &JobSpec) -> Option<Self> {
        let rise = spec.rise.clamp(0.0, 1.0);
        (rise > 0.0).then(|| Self { tasks: spec.tasks, each: rise / float(spec.tasks.into()) })
    }

    /// The lease that is cut from an offer for the work of `limit` average tasks, and its number of tasks. As in
    /// [`Offer::in_whole_leases`], the far part of a run becomes as long as the nearest number of such leases.
    pub(crate) fn cut(self, offer: Offer, limit: u64) -> (Offer, u64) {
        let Offer::Open { start, mut from, end, continues } = offer else { return (offer, limit) };
        let (work, least_rest) = (float(limit.into()), (limit / LEAST_REST).max(u64::from(limit > 1)));
        if start < from {
            let leases = (self.work(from, end) / work).round().max(1.0);
            from = end.saturating_sub(tasks_of(leases * work, self.at(end), -self.each)).max(start);
            from = if from - start <= least_rest { start } else { from };
        }
        let tasks = tasks_of(work, self.at(from), self.each);
        let takes_rest = end - from <= tasks.saturating_add(least_rest);
        (Offer::Open { start, from, end, continues }, if takes_rest { end - from } else { tasks })
    }

    fn at(self, task: u64) -> f64 {
        1.0 + self.each * (float(task.into()) - float(self.tasks.into()) / 2.0)
    }

    /// The work of consecutive tasks, in average tasks.
    fn work(self, from: u64, end: u64) -> f64 {
        float((end - from).into()) * f64::midpoint(self.at(from), self.at(end))
    }
}

impl TaskSet {
    /// Work of the tasks that no attempt holds, in average tasks of the job, rounded up.
    pub(crate) fn unclaimed_work(&self, slope: Option<Slope>) -> u64 {
        let Some(slope) = slope else { return self.unclaimed() };
        let open = self.open.tasks();
        // Whole numbers, so that all tasks make exactly their number.
        let [places, average] = [self.open.squares(), u128::from(open) * u128::from(slope.tasks)].map(float);
        to_tasks((float(open.into()) + slope.each * (places - average) / 2.0).ceil())
            .saturating_add(self.returned_tasks)
    }
}

/// Number of tasks, at least 1, that make so much work if the first takes `first` and each following one `each` more.
fn tasks_of(work: f64, first: f64, each: f64) -> u64 {
    // Solves first · n + each · n² / 2 = work. Where no number of tasks makes so much work, the result is beyond the job.
    let root = (first * first + 2.0 * each * work).max(0.0).sqrt();
    to_tasks((2.0 * work / (first + root)).round()).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
fn float(number: u128) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
fn to_tasks(tasks: f64) -> u64 {
    tasks as u64
}
