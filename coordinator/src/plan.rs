//! What a job computes, divided into tasks: how the core is told of it, and what a worker is told of a lease.

use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;

use api::{Nap, Stretch, Work};
use model::{JobKind, JobOptions, JobWork, NumberRange, SleepParams, Split, setup_estimate, sieve_estimate};
use scheduler::{JobSpec, OnExhausted, Order};
use serde_json::value::RawValue;

/// Each leaves an attempt in the store.
const MAX_SLEEPS_PER_LEASE: u64 = 1_000;

/// A job's work as numbered tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    Sum(Split),
    Count(Split),
    Sleep(SleepParams),
    /// Individual payloads, which are in the store.
    Tasks {
        count: u64,
    },
}

impl Plan {
    pub(crate) fn new(work: JobWork, chunk_size: NonZeroU64) -> Self {
        match work {
            JobWork::SumOfPrimes(range) => Self::Sum(Split::new(range, chunk_size)),
            JobWork::CountPrimes(range) => Self::Count(Split::new(range, chunk_size)),
            JobWork::Sleep(params) => Self::Sleep(params),
            JobWork::Tasks { count } => Self::Tasks { count },
        }
    }

    pub(crate) fn kind(&self) -> JobKind {
        match self {
            Self::Sum(_) => JobKind::SumOfPrimes,
            Self::Count(_) => JobKind::CountPrimes,
            Self::Sleep(_) => JobKind::Sleep,
            Self::Tasks { .. } => JobKind::Tasks,
        }
    }

    pub(crate) fn tasks(&self) -> u64 {
        match self {
            Self::Sum(split) | Self::Count(split) => split.tasks(),
            Self::Sleep(params) => params.tasks,
            Self::Tasks { count } => *count,
        }
    }

    /// Whether each task is somebody's own, with a state and a result of its own.
    pub(crate) fn is_individual(&self) -> bool {
        matches!(self, Self::Sleep(_) | Self::Tasks { .. })
    }

    /// What the core has to know; times that depend on the clock are the caller's to set.
    pub(crate) fn spec(&self, options: &JobOptions) -> JobSpec {
        let seconds = |seconds: Option<std::num::NonZeroU32>| seconds.map(|s| Duration::from_secs(s.get().into()));
        let mut spec = JobSpec {
            priority: options.priority,
            requires: options.requires.clone(),
            affinity: options.affinity.clone(),
            max_attempts: options.max_attempts.get(),
            task_timeout: seconds(options.timeout.task_seconds),
            ..JobSpec::new(self.kind(), self.tasks())
        };
        match self {
            Self::Sum(split) | Self::Count(split) => {
                let first = split.numbers(&(0..1));
                spec.order = Order::Stripes;
                spec.setup = setup_estimate(split.range().b());
                let numbers = u64::try_from(first.len()).unwrap_or(u64::MAX);
                spec.task_estimate = Some(sieve_estimate(numbers, split.range().b()));
            }
            Self::Sleep(params) => {
                spec.on_exhausted = OnExhausted::SkipTask;
                spec.task_estimate = Some(Duration::try_from_secs_f64(params.seconds).unwrap_or_default());
                // An attempt fails as a whole: each task has its own chance.
                spec.max_lease_tasks = if params.fail_rate > 0.0 { 1 } else { MAX_SLEEPS_PER_LEASE };
            }
            Self::Tasks { .. } => spec.on_exhausted = OnExhausted::SkipTask,
        }
        spec
    }

    /// What a worker that is sent its leases computes, for kinds that such a worker runs.
    pub(crate) fn work(&self, tasks: &Range<u64>, horizon: u64) -> Option<Work> {
        let stretch = |split: &Split| {
            let (part, whole) = (split.numbers(tasks), split.numbers(&(tasks.start..horizon)));
            Stretch { a: part.a(), b: part.b(), horizon: whole.b() }
        };
        match self {
            Self::Sum(split) => Some(Work::SumOfPrimes(stretch(split))),
            Self::Count(split) => Some(Work::CountPrimes(stretch(split))),
            Self::Sleep(SleepParams { seconds, fail_rate, .. }) => {
                Some(Work::Sleep(Nap { seconds: *seconds, fail_rate: *fail_rate, tasks: tasks.end - tasks.start }))
            }
            Self::Tasks { .. } => None,
        }
    }

    /// The numbers of some tasks, for kinds with a range.
    pub(crate) fn numbers(&self, tasks: &Range<u64>) -> Option<NumberRange> {
        match self {
            Self::Sum(split) | Self::Count(split) => Some(split.numbers(tasks)),
            Self::Sleep(_) | Self::Tasks { .. } => None,
        }
    }

    /// The numbers that so many tasks have, about: the last task of a range may be shorter.
    pub(crate) fn numbers_in(&self, tasks: u64) -> Option<u128> {
        match self {
            Self::Sum(_) | Self::Count(_) if tasks == 0 => Some(0),
            Self::Sum(split) | Self::Count(split) => Some(split.numbers(&(0..tasks.min(split.tasks()))).len()),
            Self::Sleep(_) | Self::Tasks { .. } => None,
        }
    }

    /// What a job that succeeded answers; none where the tasks' own answers have to be put together.
    pub(crate) fn result(&self, total: u128) -> Option<Box<RawValue>> {
        let json = match self {
            Self::Sum(split) => {
                let range = split.range();
                format!(r#"{{"a":{},"b":{},"sum":"{total}"}}"#, range.a(), range.b())
            }
            Self::Count(split) => {
                let range = split.range();
                format!(r#"{{"a":{},"b":{},"count":"{total}"}}"#, range.a(), range.b())
            }
            Self::Sleep(params) => format!(r#"{{"tasks":{}}}"#, params.tasks),
            Self::Tasks { .. } => return None,
        };
        Some(RawValue::from_string(json).expect("numbers in braces are JSON"))
    }

    /// The largest value that some tasks can have: a bound for judging an outcome.
    pub(crate) fn max_value(&self, tasks: &Range<u64>) -> u128 {
        match self {
            Self::Sum(split) => split.numbers(tasks).max_sum(),
            Self::Count(split) => split.numbers(tasks).len(),
            Self::Sleep(_) | Self::Tasks { .. } => 0,
        }
    }
}
