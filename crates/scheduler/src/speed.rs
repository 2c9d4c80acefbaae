//! Estimates how many tasks a lease should carry.

use std::time::Duration;

/// Tasks of the first lease of a job whose cost is unknown.
const FIRST_LEASE_TASKS: u64 = 1;

/// Factor by which a lease may be longer than the lease that its size was learned from: a cheap start says little about later
/// tasks.
const MAX_GROWTH: u64 = 8;

/// Factor between a lease's work and its set-up, unless the work would take longer than [`MAX_FLOOR`].
const SETUP_TIMES: u32 = 25;

/// Least work of a lease for a further slot: about three times the cost of a lease in the coordinator, in the worker and between
/// them.
const LEAST_SHARE: Duration = Duration::from_micros(750);

/// Least work of a lease that is cut off an even share, so that unequal slots end at the same time. A lease behind another one
/// reaches its worker after the head start of that one and what a busy machine adds: a shorter one would find the slot idle.
const LEAST_BALANCING: Duration = Duration::from_millis(3);

/// A small job that waits for a slot must not wait much longer for another job's sake.
const MAX_FLOOR: Duration = Duration::from_millis(500);

/// Factor by which a worker may be slower than the machine of the estimate.
const ESTIMATE_SAFETY: f64 = 4.0;

/// Largest factor between a task's duration and its estimate that is ascribed to the job; a larger one is cut to it.
const MOST_OFF: f64 = 16.0;

/// Least share of a lease's time that counts as its tasks' own: the set-up is an estimate.
const LEAST_OWN_SHARE: f64 = 0.1;

/// Factor between a lease's time and its target that is not exceeded even if the set-up takes no time.
const MAX_OVERSHOOT: f64 = 2.0;

/// The time that a worker has taken for a task of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    seconds_per_task: f64,
    /// Seconds a task with its share of the set-up, in the lease where that was shortest.
    gross_seconds_per_task: f64,
    measured_tasks: u64,
}

impl Speed {
    /// Learns from a lease of `tasks` tasks that took `busy`, about `setup` of it before the first. It counts as much as
    /// all leases before, or less if it is shorter: a few tasks can profit from another lease's work, or pay for the
    /// next one's.
    pub(crate) fn learn(earlier: Option<Self>, tasks: u64, busy: Duration, setup: Duration) -> Self {
        let own = (busy.as_secs_f64() - setup.as_secs_f64()).max(LEAST_OWN_SHARE * busy.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
        let (shown, gross, count) = (own / tasks as f64, busy.as_secs_f64() / tasks as f64, tasks as f64);
        let Some(earlier) = earlier else {
            return Self { seconds_per_task: shown, gross_seconds_per_task: gross, measured_tasks: tasks };
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
        let weight = count / (count + earlier.measured_tasks.max(tasks) as f64);
        let seconds_per_task = earlier.seconds_per_task + weight * (shown - earlier.seconds_per_task);
        let gross_seconds_per_task = gross.min(earlier.gross_seconds_per_task);
        Self { seconds_per_task, gross_seconds_per_task, measured_tasks: earlier.measured_tasks.max(tasks) }
    }

    /// The speed that is assumed before any task of the job is measured: the estimate by the pace of a job of the same class,
    /// else by [`ESTIMATE_SAFETY`], since the machine is not known yet.
    pub(crate) fn estimate(task: Duration, pace: Option<f64>) -> Self {
        let seconds = task.as_secs_f64() * pace.unwrap_or(ESTIMATE_SAFETY);
        Self { seconds_per_task: seconds, gross_seconds_per_task: seconds, measured_tasks: u64::MAX }
    }

    /// The task's duration in multiples of `estimate`, within bounds: a few tasks can profit from another lease's work.
    pub(crate) fn pace(self, estimate: Duration) -> Option<f64> {
        let estimate = estimate.as_secs_f64();
        (estimate > 0.0).then(|| (self.seconds_per_task / estimate).clamp(1.0 / MOST_OFF, MOST_OFF))
    }

    pub(crate) fn is_slower_than(self, other: Self) -> bool {
        other.seconds_per_task < self.seconds_per_task
    }

    /// Tasks that take about `target`, at least 1.
    pub(crate) fn tasks_in(self, target: Duration) -> u64 {
        let tasks = to_tasks(target.as_secs_f64() / self.seconds_per_task.max(1e-12));
        tasks.clamp(1, self.measured_tasks.saturating_mul(MAX_GROWTH))
    }

    /// Tasks for a lease of about `target`, at least 1.
    fn lease_tasks(self, target: Duration) -> u64 {
        let most = to_tasks(MAX_OVERSHOOT * target.as_secs_f64() / self.gross_seconds_per_task.max(1e-12));
        self.tasks_in(target).min(most.max(1))
    }

    /// Time that `tasks` should take.
    pub(crate) fn expect(self, tasks: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
        let seconds = self.seconds_per_task * tasks as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
fn to_tasks(tasks: f64) -> u64 {
    tasks as u64
}

/// Work that one lease should carry: the target, or enough for a set-up of `setup` to pay.
pub(crate) fn lease_target(target: Duration, setup: Duration) -> Duration {
    target.max(MAX_FLOOR.min(setup.saturating_mul(SETUP_TIMES)))
}

/// Leases of one size, one for each slot, so that the slots end at the same time if they are equally fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    tasks: u64,
    leases_left: u64,
    slots: u64,
}

impl Round {
    /// A round carries about half of what is left, so that the rounds get shorter towards the end and no slot idles while another
    /// holds a long run (factoring: Hummel, Schonberg and Flynn, 1992). What is left is not divided into leases that cost more than
    /// they bring: each of the `idle` slots, which have no lease of the job yet, gets its share where that pays.
    fn start(speed: Speed, unclaimed_tasks: u64, slots: u64, idle: u64) -> Self {
        let left = speed.expect(unclaimed_tasks).as_secs_f64();
        let worth = |least: Duration| to_tasks((left / least.as_secs_f64()).round());
        let leases = worth(LEAST_BALANCING).max(worth(LEAST_SHARE).min(idle)).clamp(1, 2 * slots);
        // Leases for a part of the slots would leave the other slots idle at the end.
        let leases = if leases < 2 * slots { leases.min(slots) } else { leases };
        Self { tasks: unclaimed_tasks.div_ceil(leases), leases_left: leases.min(slots), slots }
    }
}

/// Tasks for one lease: about `target` of work, but no more than a lease of the present `round` carries.
pub(crate) fn lease_size(
    speed: Option<Speed>,
    target: Duration,
    round: &mut Option<Round>,
    unclaimed_tasks: u64,
    slots: u64,
    idle: u64,
) -> u64 {
    let slots = slots.clamp(1, u64::MAX / 2);
    let Some(speed) = speed else {
        return FIRST_LEASE_TASKS;
    };
    let mut present = round.filter(|round| round.leases_left > 0 && round.slots == slots);
    let present = present.get_or_insert_with(|| Round::start(speed, unclaimed_tasks, slots, idle));
    present.leases_left -= 1;
    *round = Some(*present);
    speed.lease_tasks(target).min(present.tasks).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    fn first_of_a_round(speed: Option<Speed>, unclaimed_tasks: u64, slots: u64, idle: u64) -> u64 {
        lease_size(speed, TARGET, &mut None, unclaimed_tasks, slots, idle)
    }

    /// The leases of a job of so many tasks of ten microseconds, by slots that claim in turns.
    fn leases(mut unclaimed_tasks: u64, slots: u64) -> Vec<u64> {
        let speed = Some(Speed::learn(None, 1000, Duration::from_millis(10), Duration::ZERO));
        let (mut round, mut leases) = (None, Vec::new());
        while unclaimed_tasks > 0 {
            let idle = slots.saturating_sub(leases.len() as u64);
            let lease = lease_size(speed, TARGET, &mut round, unclaimed_tasks, slots, idle).min(unclaimed_tasks);
            leases.push(lease);
            unclaimed_tasks -= lease;
        }
        leases
    }

    #[test]
    fn a_lease_grows_to_the_target_by_at_most_a_factor_at_a_time() {
        assert_eq!(first_of_a_round(None, 1_000_000, 2, 2), 1);
        let first = Speed::learn(None, 1, Duration::from_millis(1), Duration::ZERO);
        assert_eq!(first_of_a_round(Some(first), 1_000_000, 2, 2), 8);
        let second = Speed::learn(Some(first), 64, Duration::from_millis(64), Duration::ZERO);
        assert_eq!(first_of_a_round(Some(second), 1_000_000, 2, 2), 100);
    }

    #[test]
    fn a_dear_set_up_makes_leases_longer_up_to_half_a_second() {
        let ms = Duration::from_millis;
        assert_eq!(lease_target(TARGET, ms(3)), TARGET);
        assert_eq!(lease_target(TARGET, ms(10)), ms(250));
        assert_eq!(lease_target(TARGET, ms(500)), ms(500));
        assert_eq!(lease_target(ms(2000), ms(500)), ms(2000));
    }

    #[test]
    fn the_set_up_does_not_count_as_the_tasks_time() {
        let speed = Speed::learn(None, 10, Duration::from_millis(30), Duration::from_millis(20));
        assert_eq!(speed.expect(100), Duration::from_millis(100));
        let overestimated = Speed::learn(None, 10, Duration::from_millis(30), Duration::from_secs(1));
        assert_eq!(overestimated.expect(10), Duration::from_millis(3));
    }

    #[test]
    fn a_set_up_that_is_estimated_too_long_makes_the_next_lease_twice_its_target_at_most() {
        let speed = Speed::learn(None, 100, Duration::from_millis(50), Duration::from_millis(50));
        assert_eq!(first_of_a_round(Some(speed), 1_000_000, 2, 2), 400, "200 ms if the set-up took no time");
        let next = Speed::learn(Some(speed), 400, Duration::from_millis(20), Duration::ZERO);
        assert!(first_of_a_round(Some(next), 1_000_000, 2, 2) > 1_900);
    }

    #[test]
    fn leases_shrink_toward_the_end_of_the_job_in_rounds_of_equal_ones() {
        assert_eq!(leases(4000, 2), [1000, 1000, 500, 500, 500, 500]);
        assert_eq!(leases(1200, 2), [300; 4], "no round has a lease for one slot alone");
        assert_eq!(leases(1800, 3), [300; 6]);
        assert_eq!(leases(1, 2), [1]);
    }

    #[test]
    fn what_is_left_is_divided_only_into_leases_that_are_worth_their_cost() {
        assert_eq!(leases(900, 2), [450; 2], "three leases of 3 ms would take longer than two");
        assert_eq!(leases(290, 2), [145; 2], "an even share for each slot");
        assert_eq!(leases(160, 2), [80; 2], "one lease for each slot");
        assert_eq!(leases(100, 2), [100], "two leases of half a millisecond would take longer");
        let speed = Some(Speed::learn(None, 1000, Duration::from_millis(10), Duration::ZERO));
        assert_eq!(first_of_a_round(speed, 80, 2, 1), 80, "what is left for the last slot");
    }

    #[test]
    fn a_task_longer_than_the_target_goes_alone_and_a_free_one_is_no_division_by_zero() {
        assert_eq!(
            first_of_a_round(Some(Speed::learn(None, 4, Duration::from_secs(40), Duration::ZERO)), 1_000, 1, 1),
            1
        );
        assert_eq!(first_of_a_round(Some(Speed::learn(None, 4, Duration::ZERO, Duration::ZERO)), 1_000, 1, 1), 32);
    }
}
