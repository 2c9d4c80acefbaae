//! A job that is computed twice, in two ways, and compared: the tasks of the first way, then those of the second.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{Algorithm, NumberRange, OnExhausted, Order, Requirements};
use serde_json::value::RawValue;

use crate::workload::{Accepted, Combined, Contradiction, InvalidReport, Profile, Report, Workload};

/// The longest time that a lease is expected to take. A worker that goes on from the tasks of one way to those of the other has
/// shown its speed on tasks that may take a thousandth of the time: without a bound, leases of as many would expire.
const LONGEST_LEASE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Verified {
    first: Arc<dyn Workload>,
    second: Arc<dyn Workload>,
}

impl Verified {
    pub(crate) fn new(first: Arc<dyn Workload>, second: Arc<dyn Workload>) -> Self {
        Self { first, second }
    }

    /// The way that tasks of one section belong to, their numbers in it, and whether it is the second one.
    fn way(&self, tasks: &Range<u64>) -> (&dyn Workload, Range<u64>, bool) {
        let first = self.first.tasks();
        if tasks.start < first {
            return (&*self.first, tasks.start..tasks.end.min(first), false);
        }
        (&*self.second, tasks.start - first..tasks.end - first, true)
    }
}

impl Workload for Verified {
    fn tasks(&self) -> u64 {
        self.first.tasks().saturating_add(self.second.tasks())
    }

    fn profile(&self) -> Profile {
        let (first, second) = (self.first.profile(), self.second.profile());
        let task_estimate = first.task_estimate.zip(second.task_estimate).map(|(one, other)| one.max(other));
        Profile {
            order: Order::Stripes,
            on_exhausted: OnExhausted::FailJob,
            max_lease_tasks: task_estimate.map_or(u64::MAX, tasks_of_longest_lease),
            setup: first.setup.max(second.setup),
            task_estimate,
            ..Profile::default()
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        self.first.algorithm()
    }

    fn requires(&self) -> Requirements {
        let (mut all, second) = (self.first.requires(), self.second.requires());
        all.labels.extend(second.labels);
        all.cpus = all.cpus.max(second.cpus);
        all.memory_bytes = all.memory_bytes.max(second.memory_bytes);
        all.slot_memory_bytes = all.slot_memory_bytes.max(second.slot_memory_bytes);
        all
    }

    fn sections(&self) -> Vec<u64> {
        let first = self.first.tasks();
        let seconds = self.second.sections();
        let seconds = seconds.into_iter().map(|start| start + first);
        self.first.sections().into_iter().chain([first]).chain(seconds).collect()
    }

    fn weight(&self, tasks: &Range<u64>) -> f64 {
        let first = self.first.tasks();
        let of = |way: &dyn Workload, tasks: Range<u64>| if tasks.is_empty() { 0.0 } else { way.weight(&tasks) };
        of(&*self.first, tasks.start.min(first)..tasks.end.min(first))
            + of(&*self.second, tasks.start.saturating_sub(first)..tasks.end.saturating_sub(first))
    }

    fn is_uneven(&self) -> bool {
        true
    }

    fn lease(&self, tasks: &Range<u64>, horizon: u64) -> Box<RawValue> {
        let (workload, own, is_second) = self.way(tasks);
        let before = if is_second { self.first.tasks() } else { 0 };
        workload.lease(&own, (horizon - before).min(workload.tasks()))
    }

    fn payload(&self, task: u64) -> Option<Box<RawValue>> {
        let (workload, own, _) = self.way(&(task..task + 1));
        workload.payload(own.start)
    }

    fn numbers(&self, _: &Range<u64>) -> Option<NumberRange> {
        None
    }

    fn is_check(&self, tasks: &Range<u64>) -> bool {
        tasks.start >= self.first.tasks()
    }

    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        let (workload, own, is_second) = self.way(tasks);
        let accepted = workload.accept(&own, report)?;
        Ok(if is_second { Accepted { value: 0, check: accepted.value, ..accepted } } else { accepted })
    }

    fn judge(&self, total: u128, check: u128) -> Result<(), Contradiction> {
        self.first.judge(total, 0)?;
        if total == check {
            return Ok(());
        }
        let name = |way: &dyn Workload| way.algorithm().map_or("one of them", Algorithm::as_str);
        let (first, second) = (name(&*self.first), name(&*self.second));
        Err(Contradiction(format!("the two algorithms disagree: {first} gives {total}, {second} gives {check}")))
    }

    fn combine(&self, total: u128) -> Combined {
        self.first.combine(total)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
fn tasks_of_longest_lease(estimate: Duration) -> u64 {
    ((LONGEST_LEASE.as_secs_f64() / estimate.as_secs_f64()) as u64).max(1)
}
