//! `sleep`: simulated work. Its tasks take time and compute nothing.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use model::{InvalidJob, JobKind, OnExhausted, Payloads, read_whole};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::execute::{Execute, ExecuteError, parse_work};
use crate::workload::{
    Accepted, Combined, InvalidReport, Kind, Parsed, Profile, Report, Workload, accept_results, parse_params, raw,
    restore_params,
};

/// A bound, since each task leaves an attempt in the store.
const MAX_TASKS_PER_LEASE: u64 = 1_000;
const MAX_TASKS: u64 = 10_000_000;
const MAX_SECONDS: f64 = 86_400.0;

/// The longest parameters of a client, in bytes: they are stored and shown as they are written, with each job of a list.
const MAX_PARAMS_BYTES: usize = 4096;

/// Longest time until a sleeping slot notices a stop.
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// Parameters of `sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SleepParams {
    /// Time that each task takes, 0 to 86400.
    #[schema(minimum = 0, maximum = 86400)]
    pub seconds: f64,
    /// Share of the attempts that fail, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub fail_rate: f64,
    /// How many tasks, 1 to 10000000.
    #[serde(default = "one_task", deserialize_with = "read_whole::<1, MAX_TASKS, _, _>")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub tasks: u64,
    /// The most tasks in one lease, 1 to 1000.
    #[serde(
        default = "default_tasks_per_lease",
        deserialize_with = "read_whole::<1, MAX_TASKS_PER_LEASE, _, _>",
        skip_serializing_if = "is_default_tasks_per_lease"
    )]
    #[schema(minimum = 1, maximum = 1000, default = 1000)]
    pub tasks_per_lease: u64,
}

fn default_tasks_per_lease() -> u64 {
    MAX_TASKS_PER_LEASE
}

fn is_default_tasks_per_lease(tasks: &u64) -> bool {
    *tasks == MAX_TASKS_PER_LEASE
}

fn one_task() -> u64 {
    1
}

impl SleepParams {
    /// The parameters without what is left to the default, and with whole seconds as integers.
    fn identity(&self) -> Box<RawValue> {
        let Self { seconds, fail_rate, tasks, tasks_per_lease } = *self;
        let mut identity = format!(r#"{{"seconds":{}"#, shortest(seconds));
        if fail_rate > 0.0 {
            identity += &format!(r#","fail_rate":{}"#, shortest(fail_rate));
        }
        if tasks != one_task() {
            identity += &format!(r#","tasks":{tasks}"#);
        }
        if !is_default_tasks_per_lease(&tasks_per_lease) {
            identity += &format!(r#","tasks_per_lease":{tasks_per_lease}"#);
        }
        raw(identity + "}")
    }
}

/// A number that is finite and not negative, as an integer if it is one.
fn shortest(number: f64) -> String {
    // A zero with a sign becomes one without.
    let json = serde_json::Value::from(number + 0.0).to_string();
    json.strip_suffix(".0").map_or_else(|| json.clone(), str::to_owned)
}

/// The work of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Nap {
    seconds: f64,
    fail_rate: f64,
}

#[derive(Debug)]
pub(crate) struct Sleep;

impl Kind for Sleep {
    fn name(&self) -> JobKind {
        JobKind::SLEEP
    }

    fn summary(&self) -> &'static str {
        "Simulated work: tasks that take time and compute nothing"
    }

    fn params_schema(&self) -> (&'static str, RefOr<Schema>) {
        ("Sleep", SleepParams::schema())
    }

    fn parse(&self, params: &RawValue, _: NonZeroU64) -> Result<Parsed, InvalidJob> {
        let work: SleepParams = parse_params(params)?;
        let wrong = |message: &str| Err(InvalidJob::new("params", message));
        if params.get().len() > MAX_PARAMS_BYTES {
            return Err(InvalidJob::new("params", format!("must be at most {MAX_PARAMS_BYTES} bytes long")));
        }
        if !(0.0..=MAX_SECONDS).contains(&work.seconds) {
            return wrong("seconds must be from 0 to 86400");
        }
        if !(0.0..=1.0).contains(&work.fail_rate) {
            return wrong("fail_rate must be from 0 to 1");
        }
        let parsed = Parsed::new(Arc::new(work), params.to_owned(), Payloads::default());
        Ok(Parsed { identity: work.identity(), ..parsed })
    }

    fn restore(&self, shown: &RawValue, _: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
        Ok(Arc::new(restore_params::<SleepParams>(shown)?))
    }

    fn executor(&self) -> Option<Box<dyn Execute>> {
        Some(Box::new(Sleeper))
    }
}

impl Workload for SleepParams {
    fn tasks(&self) -> u64 {
        self.tasks
    }

    fn profile(&self) -> Profile {
        Profile {
            is_individual: true,
            on_exhausted: OnExhausted::SkipTask,
            task_estimate: Some(Duration::try_from_secs_f64(self.seconds).unwrap_or_default()),
            // An attempt fails as a whole, so that with failures each task needs its own.
            max_lease_tasks: if self.fail_rate > 0.0 { 1 } else { self.tasks_per_lease },
            ..Profile::default()
        }
    }

    fn lease(&self, _: &Range<u64>, _: u64) -> Box<RawValue> {
        raw(format!(r#"{{"seconds":{},"fail_rate":{}}}"#, self.seconds, self.fail_rate))
    }

    fn payload(&self, _: u64) -> Option<Box<RawValue>> {
        Some(raw(format!(r#"{{"seconds":{}}}"#, self.seconds)))
    }

    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        accept_results(tasks, report)
    }

    fn combine(&self, _: u128) -> Combined {
        Combined::Result(raw(format!(r#"{{"tasks":{}}}"#, self.tasks)))
    }
}

struct Sleeper;

impl Execute for Sleeper {
    fn run(&mut self, work: &RawValue, tasks: &Range<u64>, stop: &AtomicBool) -> Result<Report, ExecuteError> {
        let Nap { seconds, fail_rate } = parse_work(work)?;
        // A time that does not fit was refused at submission; no task is worth a panic.
        let task = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let started_at = Instant::now();
        for done in 1..=tasks.end - tasks.start {
            let until = task.saturating_mul(u32::try_from(done).unwrap_or(u32::MAX));
            loop {
                if stop.load(Ordering::Relaxed) {
                    return Err(ExecuteError::Stopped);
                }
                let left = until.saturating_sub(started_at.elapsed());
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(LONGEST_NAP));
            }
            if fastrand::f64() < fail_rate {
                return Err(ExecuteError::Failed("it failed, as simulated work does at times".to_owned()));
            }
        }
        Ok(Report::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(work: &str, tasks: Range<u64>, stop: bool) -> Result<Report, ExecuteError> {
        Sleeper.run(&raw(work.to_owned()), &tasks, &AtomicBool::new(stop))
    }

    #[test]
    fn simulated_work_takes_its_time_for_each_task() {
        let started_at = Instant::now();
        assert!(run(r#"{"seconds":0.02,"fail_rate":0}"#, 5..8, false).is_ok());
        assert!(started_at.elapsed() >= Duration::from_millis(60));
        assert!(matches!(run(r#"{"seconds":0,"fail_rate":1}"#, 0..1, false), Err(ExecuteError::Failed(_))));
    }

    #[test]
    fn simulated_work_stops_when_it_is_told_to() {
        assert_eq!(run(r#"{"seconds":3600,"fail_rate":0}"#, 0..1, true).err(), Some(ExecuteError::Stopped));
    }

    #[test]
    fn parameters_out_of_their_bounds_are_refused() {
        let parse = |json: &str| Sleep.parse(&raw(json.to_owned()), NonZeroU64::MIN);
        assert!(parse(r#"{"seconds":0.5,"tasks":10000000}"#).is_ok());
        for wrong in [
            r#"{"seconds":-1}"#,
            r#"{"seconds":86401}"#,
            r#"{"seconds":1,"tasks":0}"#,
            r#"{"seconds":1,"fail_rate":2}"#,
        ] {
            assert_eq!(parse(wrong).expect_err(wrong).field, "params");
        }
        let of_length = |bytes: usize| parse(&format!("{:<1$}}}", r#"{"seconds":1"#, bytes - 1));
        assert!(of_length(MAX_PARAMS_BYTES).is_ok());
        let long = of_length(MAX_PARAMS_BYTES + 1).expect_err("too long");
        assert_eq!((long.field, long.message.as_str()), ("params", "must be at most 4096 bytes long"));
    }

    #[test]
    fn parameters_are_an_object_and_a_wrong_one_is_named_in_plain_words() {
        let message = |json: &str| Sleep.parse(&raw(json.to_owned()), NonZeroU64::MIN).expect_err(json).message;
        assert_eq!(message("[0.5]"), "must be an object, but is an array");
        assert_eq!(message(r#"{"seconds":"1"}"#), r#"seconds must be a number, but is "1""#);
        assert_eq!(message(r#"{"seconds":1e400}"#), "seconds must be a number from -1.7e308 to 1.7e308");
        let whole = "must be a whole number from 1 to 10000000";
        assert_eq!(message(r#"{"seconds":1,"tasks":1.5}"#), format!("tasks {whole}, but is 1.5"));
        assert_eq!(message("{}"), "seconds is missing");
        // A release before this rule may have stored one.
        assert!(Sleep.restore(&raw("[0.5]".to_owned()), NonZeroU64::MIN).is_ok());
    }
}
