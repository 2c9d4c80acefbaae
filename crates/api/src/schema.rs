//! Descriptions of the model's types for OpenAPI, which the model itself knows nothing of. Each has the name, the fields and
//! the serde attributes of the type it describes; the tests compare what both read and write.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// Names with values, both texts.
#[derive(Debug)]
pub struct Labels;

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(Type::String);
        ObjectBuilder::new()
            .additional_properties(Some(value))
            .description(Some("Names with values, both texts."))
            .into()
    }
}

impl ToSchema for Labels {}

/// The id of a job. A UUIDv7, so that jobs sort by the time of their submission.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JobId(Uuid);

/// One execution of a lease. A UUID of version 8 that no coordinator gives twice, so that a late outcome names an attempt
/// without a lease.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AttemptId(Uuid);

/// The kind of a job.
#[derive(Debug)]
pub struct JobKind;

impl PartialSchema for JobKind {
    fn schema() -> RefOr<Schema> {
        let names = workloads::KINDS.iter().map(|kind| kind.name().to_string());
        let lines = workloads::KINDS.iter().map(|kind| format!("`{}`: {}.", kind.name(), kind.summary()));
        let description = lines.collect::<Vec<_>>().join(" ");
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some(description)).into()
    }
}

impl ToSchema for JobKind {}

/// The algorithm for the sum or the count of the primes in a range.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// The algorithm that is expected to take less time.
    Auto,
    /// A sieve over the range.
    Sieve,
    /// Two sums of all primes up to a number, in about x^(2/3) steps each.
    Combinatorial,
}

/// The priority of a job: 1 to 9, larger sooner.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(value_type = u8, minimum = 1, maximum = 9, default = 5)]
pub struct Priority(u8);

/// Workers that a job prefers. No slot stays idle for a preference.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Affinity {
    /// Labels of the workers that suit best.
    #[serde(skip_serializing_if = "model::Labels::is_empty")]
    #[schema(value_type = Labels)]
    labels: model::Labels,
    /// Tasks with the same key go to workers that have run a task with it and may reuse data that they loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Conditions that a worker must meet to get any of a job's tasks.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Labels that it has, all of them.
    #[serde(skip_serializing_if = "model::Labels::is_empty")]
    #[schema(value_type = Labels)]
    labels: model::Labels,
    /// Cores that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<u32>,
    /// Memory that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// Resources of a worker, which [`Requirements`] are compared with.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    /// Its cores.
    cpus: u32,
    /// Its memory.
    memory_bytes: u64,
}

/// Time limits. None: no limit.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// One attempt at a task; a longer one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    task_seconds: Option<NonZeroU32>,
    /// The job, from its submission, or its last retry, to its end; a longer one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    job_seconds: Option<NonZeroU32>,
}

/// Parameters of a job, by its kind.
#[derive(Debug)]
pub struct JobParams;

impl PartialSchema for JobParams {
    fn schema() -> RefOr<Schema> {
        let mut named: Vec<(&str, RefOr<Schema>)> = Vec::new();
        // Kinds may share a schema.
        for (name, schema) in workloads::KINDS.iter().map(|kind| kind.params_schema()) {
            if named.iter().all(|(known, _)| *known != name) {
                named.push((name, schema));
            }
        }
        let titled = |(name, schema)| match schema {
            RefOr::T(Schema::Object(object)) => ObjectBuilder::from(object).title(Some(name)).into(),
            other @ (RefOr::Ref(_) | RefOr::T(_)) => other,
        };
        named.into_iter().map(titled).fold(OneOfBuilder::new(), OneOfBuilder::item::<RefOr<Schema>>).into()
    }
}

impl ToSchema for JobParams {}

/// The state of a job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The job was accepted, and none of its tasks has been given out.
    Queued,
    /// A task of the job has been given out.
    Running,
    /// No task of the job runs until the job is resumed.
    Paused,
    /// Every task is done and the result is stored.
    Succeeded,
    /// The job is over without a result.
    Failed,
    /// The job was canceled.
    Canceled,
}

/// The type of an event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The job was accepted.
    Submitted,
    /// The job's first task was given out.
    Started,
    /// Attempts ended; at most one a second.
    Progress,
    /// No task of the job runs until the job is resumed.
    Paused,
    /// The job was resumed.
    Resumed,
    /// The job's failed tasks run again.
    Retried,
    /// A task ran out of attempts.
    TaskFailed,
    /// The job is over and its result is stored.
    Succeeded,
    /// The job is over without a result.
    Failed,
    /// The job was canceled.
    Canceled,
}

/// A record of a topic of Kafka.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventSource {
    /// The topic.
    topic: String,
    /// The partition of the topic.
    partition: i32,
    /// The record's place in the partition.
    offset: u64,
}

/// One event, as the `data` of a Server-Sent Event whose `id` is `seq` and whose `event` is `type`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JobEvent {
    /// The event's number, which grows over all jobs.
    seq: u64,
    /// The job that the event is about.
    job: JobId,
    /// The type of the event.
    #[serde(rename = "type")]
    kind: EventKind,
    /// Time of the event.
    #[schema(format = DateTime)]
    at: String,
    /// The job's kind.
    #[serde(rename = "kind", skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<JobKind>)]
    job_kind: Option<String>,
    /// The name of the job's tasks, where they have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    task: Option<String>,
    /// Tasks of the job that were done by then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_done: Option<u64>,
    /// All tasks of the job.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_total: Option<u64>,
    /// The reason, where something failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    error: Option<String>,
    /// The record that submitted the job, in the job's first event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source: Option<EventSource>,
    /// Figures that the event adds to the statistics.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    counts: Option<Counts>,
}

/// Figures of a job since its event before: an event adds them to the statistics of its kind and time. A figure that is
/// zero is left out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Jobs that were accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_submitted: Option<u64>,
    /// Jobs whose first task was leased.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_started: Option<u64>,
    /// Jobs that succeeded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_succeeded: Option<u64>,
    /// Jobs that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_failed: Option<u64>,
    /// Jobs that were canceled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_canceled: Option<u64>,
    /// Jobs that were retried, whether over or not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_retried: Option<u64>,
    /// Jobs that became open, less those that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jobs_pending: Option<i64>,
    /// Tasks of jobs that were accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_submitted: Option<u64>,
    /// Tasks whose first attempt has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_started: Option<u64>,
    /// Tasks that succeeded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_succeeded: Option<u64>,
    /// Tasks that ran out of attempts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_failed: Option<u64>,
    /// Tasks that were open when their job was canceled or failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_canceled: Option<u64>,
    /// Tasks that a retry opened again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_retried: Option<u64>,
    /// Tasks that became open, less those that succeeded, failed or were canceled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tasks_pending: Option<i64>,
    /// Tasks of the attempts that ended: a task counts once for each attempt at it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    task_starts: Option<u64>,
    /// Attempts that ended, completed or failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    attempts: Option<u64>,
    /// Attempts that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    attempts_failed: Option<u64>,
    /// Of jobs that started: the time since their submission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    waiting: Option<Durations>,
    /// Of jobs that ended and had started: the time since their start, or since their last retry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    running: Option<Durations>,
    /// Of attempts that completed: the time that the worker was busy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    computing: Option<Durations>,
}

/// A histogram of durations.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Durations {
    /// Their sum in microseconds.
    sum_us: u64,
    /// The number of durations in each bucket that has some, by the bucket's upper bound in microseconds.
    buckets: BTreeMap<String, u64>,
}

/// The state of a task.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// The task waits for a worker.
    Pending,
    /// A worker holds the task.
    Running,
    /// The task succeeded.
    Succeeded,
    /// The task ran out of attempts.
    Failed,
}

/// Tasks of a job by state.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// All tasks.
    total: u64,
    /// Tasks that wait for a worker.
    pending: u64,
    /// Tasks that workers hold.
    running: u64,
    /// Tasks that succeeded.
    succeeded: u64,
    /// Tasks that ran out of attempts.
    failed: u64,
}

/// The length of the periods of statistics, in UTC. Weeks are those of ISO 8601.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days.
    Day,
    /// Weeks, from Monday on.
    Week,
    /// Months.
    Month,
}

#[cfg(test)]
mod tests;
