//! Stored jobs as their clients draw them, and the work of their tasks at a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;

use model::{JobId, JobKind, JobOptions, Priority, Share, Timeout};
use rand::RngExt;
use serde_json::value::RawValue;
use store::NewJob;

use crate::client::CHUNK;
use crate::outcome::{answer_to, json, value};
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::world::{SETTLING, World};

/// Time by which an attempt overruns: longer than a lease may wait for its slot, which its time limit includes.
const OVERRUN: Micros = 300 * SECOND;

/// The draw of a job whose last task folds the answers of the others.
const FOLD: u32 = 4;

/// The kind, the parameters and the payloads of a job, and its expected result.
struct Work {
    kind: JobKind,
    params: String,
    payloads: Vec<Box<RawValue>>,
    expected: String,
    /// See [`SimJob::fold_input`].
    fold_input: Option<u64>,
}

/// A stored job and its clients' knowledge of it.
#[derive(Debug)]
pub(crate) struct SimJob {
    pub(crate) new: NewJob,
    pub(crate) expected: String,
    pub(crate) task_time: Micros,
    /// The number of failing attempts before one succeeds, by task.
    pub(crate) failures: BTreeMap<u64, u32>,
    /// The number of attempts beyond the time limit before one keeps to it, by task.
    pub(crate) overruns: BTreeMap<u64, u32>,
    pub(crate) is_poisoned: bool,
    pub(crate) is_accepted: bool,
    pub(crate) was_touched: bool,
    /// Start of an acknowledged pause, with no other request since.
    pub(crate) paused_since: Option<Micros>,
    /// Whether a cancellation is acknowledged and no retry was requested since.
    pub(crate) is_canceled: bool,
    /// The number of retries that clients may still request before the end.
    pub(crate) retries_left: u32,
    /// The tasks that the present request has skipped.
    pub(crate) skipping: Vec<u64>,
    /// The payload of the last task, if it folds the answers of the others.
    pub(crate) fold_input: Option<u64>,
}

impl SimJob {
    /// Whether the job goes on without a task that is out of attempts.
    pub(crate) fn goes_on_without(&self) -> bool {
        self.new.is_individual && self.fold_input.is_none()
    }

    /// Whether a task always fails and is not skipped.
    pub(crate) fn must_fail(&self, skipped: &BTreeSet<u64>) -> bool {
        let mut never = self.failures.iter().chain(&self.overruns).filter(|(_, count)| **count == u32::MAX);
        never.any(|(task, _)| !skipped.contains(task))
    }

    /// The result if these tasks are skipped.
    pub(crate) fn expected_without(&self, skipped: &BTreeSet<u64>) -> String {
        let list = self.expected.strip_prefix(r#"{"tasks":["#).and_then(|list| list.strip_suffix("]}"));
        let Some(list) = list.filter(|_| !skipped.is_empty()) else { return self.expected.clone() };
        let answer = |(task, answer)| if skipped.contains(&task) { "null" } else { answer };
        let answers: Vec<_> = (0..).zip(list.split(',')).map(answer).collect();
        format!(r#"{{"tasks":[{}]}}"#, answers.join(","))
    }
}

impl World {
    pub(crate) fn range_kind(&mut self) -> JobKind {
        if self.rng.random_bool(0.5) { JobKind::SUM_OF_PRIMES } else { JobKind::COUNT_PRIMES }
    }

    pub(crate) fn priority(&mut self) -> Priority {
        Priority::try_from(self.rng.random_range(1..=9)).unwrap_or_default()
    }

    /// The share of leases that are compared: all where faults restart workers or coordinators, since a part would miss lies
    /// then.
    fn share(&mut self) -> Option<Share> {
        let is_part = self.plan.faults == Faults::None && self.rng.random_bool(0.7);
        let share = if is_part { Share::try_from(0.4).ok() } else { Some(Share::ALL) };
        share.filter(|_| self.plan.has_liar && self.rng.random_bool(0.6))
    }

    /// The work of a job of this many tasks, each of which takes `task_time`.
    fn plan_work(&mut self, drawn: u32, tasks: u64, task_time: Micros) -> Work {
        let mut fold_input = None;
        let (kind, params, payloads, expected) = match drawn {
            2 => {
                let seconds = task_time as f64 / 1e6;
                let params = format!(r#"{{"seconds":{seconds},"tasks":{tasks}}}"#);
                (JobKind::SLEEP, params, Vec::new(), format!(r#"{{"tasks":{tasks}}}"#))
            }
            3 => {
                let numbers: Vec<u64> = (0..tasks).map(|_| self.rng.random_range(0..1_000_000)).collect();
                let answers: Vec<_> = numbers.iter().map(|number| answer_to(*number).to_string()).collect();
                let payloads = numbers.iter().map(|number| json(number.to_string())).collect();
                let expected = format!(r#"{{"tasks":[{}]}}"#, answers.join(","));
                (JobKind::TASKS, format!(r#"{{"count":{tasks}}}"#), payloads, expected)
            }
            FOLD => {
                let numbers: Vec<u64> = (1..tasks).map(|_| self.rng.random_range(0..1_000_000)).collect();
                fold_input = Some(numbers.iter().map(|number| answer_to(*number)).sum::<u64>() % 1_000_000);
                let most = self.rng.random_range(1..8);
                let params = format!(
                    r#"{{"program":"add","count":{},"has_payloads":true,"combine":{{"program":"add"}},"limits":{{}},"seconds":60,"tasks_per_lease":{most}}}"#,
                    tasks - 1
                );
                let payloads = numbers.iter().map(|number| json(number.to_string())).chain([json("{}".to_owned())]);
                let expected = format!(r#"{{"output":{}}}"#, answer_to(fold_input.unwrap_or(0)));
                (JobKind::PROGRAM, params, payloads.collect(), expected)
            }
            _ => {
                let (kind, a) = (self.range_kind(), self.rng.random_range(0..1 << 40));
                let b = a + tasks * 1_000 - 1;
                let (name, total) = (if kind == JobKind::SUM_OF_PRIMES { "sum" } else { "count" }, value(kind, a, b));
                (
                    kind,
                    format!(r#"{{"a":{a},"b":{b}}}"#),
                    Vec::new(),
                    format!(r#"{{"a":{a},"b":{b},"{name}":"{total}"}}"#),
                )
            }
        };
        Work { kind, params, payloads, expected, fold_input }
    }

    pub(crate) fn plan_job(&mut self) -> SimJob {
        let drawn = self.rng.random_range(0..if self.plan.pullers > 0 { 5 } else { 3 });
        let has_limit = drawn != FOLD && self.plan.has_limits && self.rng.random_bool(0.5);
        let tasks = [1, 3, 20, if has_limit { 20 } else { 120 }][self.rng.random_range(0..4)];
        let tasks = self.rng.random_range(1..=tasks).max(if drawn == FOLD { 2 } else { 1 });
        let task_time = [MS / 2, 5 * MS, 60 * MS, 600 * MS][self.rng.random_range(0..4)];
        let Work { kind, params, payloads, expected, fold_input } = self.plan_work(drawn, tasks, task_time);
        let is_range = kind == JobKind::SUM_OF_PRIMES || kind == JobKind::COUNT_PRIMES;
        let limit = has_limit.then(|| self.rng.random_range(1..4)).and_then(NonZeroU32::new);
        let options = JobOptions {
            timeout: Timeout { task_seconds: limit, ..Timeout::default() },
            verify: if is_range { self.share() } else { None },
            priority: self.priority(),
            max_attempts: NonZeroU32::new(self.rng.random_range(2..6)).unwrap_or(NonZeroU32::MIN),
            chunk_size: Some(CHUNK),
            ..JobOptions::default()
        };
        let (failures, overruns, is_poisoned) = self.planned_failures(tasks, options.max_attempts.get(), has_limit);
        let new = NewJob {
            id: JobId(self.new_uuid()),
            kind,
            is_individual: [JobKind::SLEEP, JobKind::TASKS, JobKind::PROGRAM].contains(&kind),
            payloads: payloads.into(),
            params: json(params),
            tasks,
            options,
            fingerprint: self.rng.random(),
            idempotency_key: Some(self.new_uuid().to_string()),
            submitted_at: self.clock().at,
        };
        SimJob {
            new,
            expected,
            task_time,
            failures,
            overruns,
            is_poisoned,
            is_accepted: false,
            was_touched: false,
            paused_since: None,
            is_canceled: false,
            retries_left: 20,
            skipping: Vec::new(),
            fold_input,
        }
    }

    /// The tasks of a job whose first attempts fail or exceed the time limit, each with their number, and whether some task
    /// never succeeds.
    fn planned_failures(
        &mut self,
        tasks: u64,
        max_attempts: u32,
        has_limit: bool,
    ) -> (BTreeMap<u64, u32>, BTreeMap<u64, u32>, bool) {
        let (mut failures, mut overruns, mut is_poisoned) = (BTreeMap::new(), BTreeMap::new(), false);
        if self.plan.has_failures && self.rng.random_bool(0.4) {
            is_poisoned = self.rng.random_bool(0.3);
            let count = if is_poisoned { u32::MAX } else { self.rng.random_range(1..max_attempts) };
            failures.insert(self.rng.random_range(0..tasks), count);
        }
        if has_limit && self.rng.random_bool(0.6) {
            let is_always = !is_poisoned && self.rng.random_bool(0.2);
            is_poisoned |= is_always;
            let count = if is_always { u32::MAX } else { self.rng.random_range(1..max_attempts) };
            overruns.insert(self.rng.random_range(0..tasks), count);
        }
        (failures, overruns, is_poisoned)
    }

    pub(crate) fn compute_time(&mut self, job: JobId, tasks: &Range<u64>) -> Micros {
        if let Some(limit) = self.time_limit(job, tasks).filter(|_| self.overruns(job, tasks)) {
            return limit + OVERRUN;
        }
        let tasks = tasks.end - tasks.start;
        let task = self.by_id.get(&job).map_or(2 * MS, |number| self.jobs[*number].task_time);
        let is_slow = self.plan.faults == Faults::All && !self.is_calm && self.rng.random_bool(0.02);
        let busy = task * tasks;
        // The slowed lease ends while the world settles: the first lease of a job has no faster rival, since the job's cost is
        // unknown before that lease ends.
        let slowed = if is_slow { busy.max((busy * 30).min(SETTLING / 3)) } else { busy };
        slowed.max(100)
    }

    /// Whether an attempt at these tasks fails as planned.
    pub(crate) fn fails(&mut self, job: JobId, tasks: &Range<u64>) -> bool {
        let number = self.by_id.get(&job);
        number.is_some_and(|number| take_one(&mut self.jobs[*number].failures, tasks))
    }

    /// Whether an attempt at these tasks takes longer than their time limit as planned.
    fn overruns(&mut self, job: JobId, tasks: &Range<u64>) -> bool {
        let number = self.by_id.get(&job);
        number.is_some_and(|number| take_one(&mut self.jobs[*number].overruns, tasks))
    }

    /// The time limit of an attempt at these tasks.
    pub(crate) fn time_limit(&self, job: JobId, tasks: &Range<u64>) -> Option<Micros> {
        let seconds = self.jobs[*self.by_id.get(&job)?].new.options.timeout.task_seconds?;
        Some(u64::from(seconds.get()) * SECOND * (tasks.end - tasks.start))
    }
}

/// Takes one of the attempts that each of these tasks has left, unless their number is endless. Returns whether any task had one.
pub(crate) fn take_one(left: &mut BTreeMap<u64, u32>, tasks: &Range<u64>) -> bool {
    let mut is_any = false;
    for (_, left) in left.range_mut(tasks.clone()).filter(|(_, left)| **left > 0) {
        is_any = true;
        *left = if *left == u32::MAX { *left } else { *left - 1 };
    }
    is_any
}
