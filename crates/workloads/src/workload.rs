//! The interface of a kind of job.

use std::fmt::Debug;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Algorithm, Composition, InvalidJob, JobKind, JobOptions, Labels, NamedFields, NumberRange, OnExhausted, Order,
    Payloads, Requirements, json_cause, json_place, predicate,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};

use crate::execute::Execute;

/// A kind of job. Stateless: each job's own data is its [`Workload`].
pub trait Kind: Debug + Send + Sync {
    /// The name on the wire.
    fn name(&self) -> JobKind;

    /// The summary in one sentence, for help texts and the description of the API.
    fn summary(&self) -> &'static str;

    /// The schema of its parameters and the name under which the API's description lists it.
    fn params_schema(&self) -> (&'static str, RefOr<Schema>);

    /// Checks the parameters of a new job. `chunk_size` is the coordinator's setting, for kinds that divide a range.
    ///
    /// # Errors
    /// The first parameter that is out of bounds.
    fn parse(&self, params: &RawValue, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob>;

    /// Rebuilds the work of a stored job from the parameters that [`Parsed::stored`] had and the chunk size of its
    /// submission.
    ///
    /// # Errors
    /// The parameters differ from the form in which this kind writes them.
    fn restore(&self, stored: &RawValue, chunk_size: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob>;

    /// The parameters of a stored job as its client gave them.
    fn asked(&self, stored: &RawValue) -> Box<RawValue> {
        stored.to_owned()
    }

    /// Completes a new job's work from the job's other settings, and those from its work.
    ///
    /// # Errors
    /// The work and the settings contradict each other.
    fn complete(&self, parsed: Parsed, options: &mut JobOptions) -> Result<Parsed, InvalidJob> {
        let _ = options;
        Ok(parsed)
    }

    /// A computation for one slot of a worker; `None` where only pulling workers run this kind, or where the worker
    /// brings its own.
    fn executor(&self) -> Option<Box<dyn Execute>>;

    /// The abilities of this release's executor beyond the first release with this kind, as labels for [`Workload::requires`].
    fn abilities(&self) -> Labels {
        Labels::new()
    }

    /// Whether leases of this kind are sent to workers. Called often: an executor is too large to be made for the answer.
    fn is_pushed(&self) -> bool {
        true
    }
}

/// A new job's work.
#[derive(Debug)]
pub struct Parsed {
    /// The work.
    pub workload: Arc<dyn Workload>,
    /// The parameters as [`Kind::restore`] and [`Kind::asked`] read them.
    pub stored: Box<RawValue>,
    /// A payload for each task, to be stored, for kinds whose tasks have one; else empty.
    pub payloads: Payloads,
    /// The parameters in the one form that all spellings of this job have, to recognize a repeated submission.
    pub identity: Box<RawValue>,
    /// The same job for workers that lack the abilities of [`Workload::requires`]; `None` where there is no such way.
    pub fallback: Option<Division>,
}

/// A job's work, and the parameters that it is restored from.
#[derive(Debug)]
pub struct Division {
    /// The work.
    pub workload: Arc<dyn Workload>,
    /// The parameters, as [`Parsed::stored`] has them.
    pub stored: Box<RawValue>,
}

impl Parsed {
    /// A job that its stored parameters identify, with no other way to compute it.
    #[must_use]
    pub fn new(workload: Arc<dyn Workload>, stored: Box<RawValue>, payloads: Payloads) -> Self {
        Self { workload, identity: stored.clone(), stored, payloads, fallback: None }
    }

    /// Takes the other way to compute the job, where there is one.
    pub fn fall_back(&mut self) {
        if let Some(Division { workload, stored }) = self.fallback.take() {
            (self.workload, self.stored) = (workload, stored);
        }
    }
}

/// The work of one job, divided into the tasks `0..tasks()`.
pub trait Workload: Debug + Send + Sync {
    /// The number of tasks, at least 1.
    fn tasks(&self) -> u64;

    /// The properties of the tasks, for the scheduler and the store.
    fn profile(&self) -> Profile;

    /// The algorithm that was chosen, for kinds that have several.
    fn algorithm(&self) -> Option<Algorithm> {
        None
    }

    /// The requirements beyond the client's, such as an ability that workers of earlier releases lack.
    fn requires(&self) -> Requirements {
        Requirements::default()
    }

    /// Tasks that begin a section, ascending: no lease has tasks of two sections.
    fn sections(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The share of the job's work that `tasks` are, in a unit of its own: progress is told by it.
    fn weight(&self, tasks: &Range<u64>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share: 53 bits are plenty")]
        let tasks = (tasks.end - tasks.start) as f64;
        tasks
    }

    /// Whether the tasks differ in their [weight](Self::weight), so that the number of done tasks does not tell the work done.
    fn is_uneven(&self) -> bool {
        false
    }

    /// The work of the consecutive `tasks`, as [`Execute::run`] reads it. The slot's next leases will probably go on up to the
    /// task before `horizon`.
    fn lease(&self, tasks: &Range<u64>, horizon: u64) -> Box<RawValue>;

    /// The payload of a task for a worker that pulls; `None` where it is the task's stored payload.
    fn payload(&self, task: u64) -> Option<Box<RawValue>>;

    /// The numbers that `tasks` search, for kinds that search a range.
    fn numbers(&self, tasks: &Range<u64>) -> Option<NumberRange> {
        let _ = tasks;
        None
    }

    /// Whether `tasks`, which are of one section, compute the job a second time: their values are compared.
    fn is_check(&self, tasks: &Range<u64>) -> bool {
        let _ = tasks;
        false
    }

    /// Checks a worker's report for `tasks`.
    ///
    /// # Errors
    /// The report has the wrong form or a value that these tasks cannot have.
    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport>;

    /// Whether the sums of [`Accepted::value`] and [`Accepted::check`] over all tasks, modulo 2^128, can be right.
    ///
    /// # Errors
    /// They cannot: the error says why.
    fn judge(&self, total: u128, check: u128) -> Result<(), Contradiction> {
        let _ = (total, check);
        Ok(())
    }

    /// The job's result from the sum of the values of its tasks, which [`Self::judge`] has approved.
    fn combine(&self, total: u128) -> Combined;

    /// The composition of the result from the tasks' stored results, where [`Self::combine`] asks for it.
    fn composition(&self) -> Composition {
        Composition::TaskResults
    }
}

/// The parts of a job add up to something that cannot be its result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

/// The properties of a job's tasks, for the scheduler and the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Whether each task has a state and a result of its own, so that its attempts are stored.
    pub is_individual: bool,
    /// The order in which tasks are leased.
    pub order: Order,
    /// The consequence for the job of a task without attempts left.
    pub on_exhausted: OnExhausted,
    /// The most tasks in one lease.
    pub max_lease_tasks: u64,
    /// The cost of a lease before its first task, unless it continues where the slot's last lease ended.
    pub setup: Duration,
    /// The expected time of a task, where it is known. An estimate that is too long costs less than one that is too short.
    pub task_estimate: Option<Duration>,
    /// Time of the last task minus that of the first, as a share of the average task's, 0 to 1. The times between rise evenly.
    pub rise: f64,
    /// Time of a lease beside the time limits of its tasks, such as for fetching their inputs.
    pub lease_slack: Duration,
    /// Whether the last task is leased only when all others are done.
    pub last_task_waits: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            is_individual: false,
            order: Order::FirstInFirstOut,
            on_exhausted: OnExhausted::FailJob,
            max_lease_tasks: u64::MAX,
            setup: Duration::ZERO,
            task_estimate: None,
            rise: 0.0,
            lease_slack: Duration::ZERO,
            last_task_waits: false,
        }
    }
}

/// A worker's report for a lease.
#[derive(Debug, Default)]
pub struct Report {
    /// The lease's part of the job's total; a worker that reports results of single tasks leaves it out.
    pub value: Option<u128>,
    /// A result for each task, in order, or an empty list.
    pub results: Vec<Box<RawValue>>,
}

/// A report that was checked.
#[derive(Debug, Default)]
pub struct Accepted {
    /// The lease's part of the job's total, modulo 2^128.
    pub value: u128,
    /// The lease's part of the total that is compared with the job's, for tasks that compute the job a second time; modulo 2^128.
    pub check: u128,
    /// Results to be stored with the tasks: one for each task, or none.
    pub results: Vec<Box<RawValue>>,
}

/// A report that no honest worker sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidReport(pub String);

/// The result of a job, or the way to it.
#[derive(Debug)]
pub enum Combined {
    /// The result itself.
    Result(Box<RawValue>),
    /// The result is put together from the tasks' stored results: see [`Workload::composition`].
    TaskResults,
}

pub(crate) fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("the caller writes JSON")
}

/// Reads the parameters of a client: an object, as is every struct in it.
pub(crate) fn parse_params<'a, T: Deserialize<'a>>(params: &'a RawValue) -> Result<T, InvalidJob> {
    let deserializer = || serde_json::Deserializer::from_str(params.get());
    // Keeping count of the place costs time: only parameters that are wrong are read so.
    T::deserialize(NamedFields(&mut deserializer())).or_else(|_| {
        let read = serde_path_to_error::deserialize::<_, T>(NamedFields(&mut deserializer()));
        read.map_err(|error| {
            let path = error.path().to_string();
            invalid_params(if path == "." { "" } else { &path }, error.inner())
        })
    })
}

/// Reads parameters that a kind has written, or that an earlier release has taken from a client.
pub(crate) fn restore_params<'a, T: Deserialize<'a>>(stored: &'a RawValue) -> Result<T, InvalidJob> {
    serde_json::from_str(stored.get()).map_err(|error| invalid_params("", &error))
}

/// `path` is the parameter that is wrong, empty where it is not known.
fn invalid_params(path: &str, error: &serde_json::Error) -> InvalidJob {
    let (place, cause) = (json_place(path, error), json_cause(error));
    let message = match predicate(&cause) {
        Some(predicate) => format!("{place} {predicate}"),
        None if cause.starts_with("must ") => format!("{place} {cause}"),
        None => format!("{place} is wrong: {cause}"),
    };
    let message = message.trim_start();
    InvalidJob::new("params", message)
}

/// The rule for kinds whose tasks are individual: one result for each task, or none.
pub(crate) fn accept_results(tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
    let (count, results) = (tasks.end - tasks.start, report.results);
    if results.is_empty() || results.len() as u64 == count {
        return Ok(Accepted { results, ..Accepted::default() });
    }
    Err(InvalidReport(format!("must hold one result for each of the {count} tasks, or none at all")))
}
