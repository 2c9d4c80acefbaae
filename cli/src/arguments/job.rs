//! The arguments of `divvy job`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use model::{JobId, JobKind, JobState, Priority, Share, TaskState};
use uuid::Uuid;

use super::Method;
use super::described::Described;
use super::program::{Logs, ProgramArguments};
use super::values::{
    count, decimal, duration, integer, job_id, kinds, label, memory, names, number, own_id, priority, request_key,
    seconds, share, tag_filter,
};

/// The most jobs or tasks that are listed at a time: they are all in memory until they are printed.
const MAX_LISTED: u64 = 1_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    Submit(Box<Submit>),
    List(List),
    Show(Show),
    Tasks(Tasks),
    Wait(Wait),
    Result(ResultOf),
    /// Cancels jobs and stops their running tasks
    Cancel(Change),
    /// Pauses jobs: none of their tasks runs until they are resumed
    Pause(Change),
    /// Resumes paused jobs
    Resume(Change),
    /// Runs the failed tasks of jobs again
    Retry(Change),
    Events(Events),
    Explain(Explain),
    Logs(Logs),
}

/// Submits a job and prints it.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    #[command(subcommand)]
    pub(crate) work: Option<Work>,
    /// Read the whole job, as the API takes it, from this file; '-' is stdin. Options win over the file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: SubmitOptions,
}

/// The kind of job and its parameters.
#[derive(Debug)]
pub(crate) enum Work {
    /// A kind with a command of its own.
    Named(WorkCommand),
    /// A kind whose command its description makes.
    Described(Described),
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkCommand {
    /// The sum of all primes from A to B, both included
    SumOfPrimes(RangeArguments),
    /// How many primes there are from A to B, both included
    CountPrimes(RangeArguments),
    /// Tasks that take time and do nothing
    Sleep(SleepArguments),
    /// Individual tasks for workers that pull
    Tasks(TasksArguments),
    /// A program of your own, once for each list of arguments
    Program(Box<ProgramArguments>),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RangeArguments {
    /// First number, 0 to 18446744073709551615 (2^64-1), such as 1000, 10_000 or 1e9
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) a: u64,
    /// Last number, A to 18446744073709551615 (2^64-1)
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) b: u64,
    #[command(flatten)]
    pub(crate) method: Method,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SleepArguments {
    /// Seconds that each task takes, 0 to 86400
    #[arg(long, value_name = "S", value_parser = decimal(0.0..=86_400.0), allow_negative_numbers = true)]
    pub(crate) seconds: f64,
    /// How many tasks, 1 to 10000000
    #[arg(long, value_name = "N", value_parser = integer::<u64>(1..=10_000_000), default_value = "1", allow_negative_numbers = true)]
    pub(crate) tasks: u64,
    /// Share of the attempts that fail, 0 to 1
    #[arg(long, value_name = "R", value_parser = decimal(0.0..=1.0), default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) fail_rate: f64,
}

#[derive(Debug, Args)]
pub(crate) struct TasksArguments {
    /// The tasks' payloads: one JSON value a line, or one JSON array of them; '-' is stdin
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of every job")]
pub(crate) struct SubmitOptions {
    /// Priority of the job, 9 soonest [default: 5]
    #[arg(long, global = true, value_name = "1-9", value_parser = priority, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) priority: Option<Priority>,
    /// A tag to find the job by; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = label, value_hint = ValueHint::Other)]
    pub(crate) tag: Vec<(String, String)>,
    /// Prefer workers that ran tasks of jobs with this key
    #[arg(long, global = true, value_name = "KEY", value_hint = ValueHint::Other)]
    pub(crate) affinity_key: Option<String>,
    /// Prefer workers with this label; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = label, value_hint = ValueHint::Other)]
    pub(crate) affinity_label: Vec<(String, String)>,
    /// A label that a worker must have; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = label, value_hint = ValueHint::Other)]
    pub(crate) require: Vec<(String, String)>,
    /// Cores that a worker must have
    #[arg(long, global = true, value_name = "N", value_parser = integer::<u32>(1..=65_536), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) require_cpus: Option<u32>,
    /// Memory that a worker must have, in bytes or such as 512MB or 4GiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) require_memory: Option<u64>,
    /// Attempts at a task before it has failed, 1 to 100 [default: 4]
    #[arg(long, global = true, value_name = "N", value_parser = count(100), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) max_attempts: Option<NonZeroU32>,
    /// How long an attempt at a task may take, such as 30s or 5m [default: no limit]
    #[arg(long, global = true, value_name = "DURATION", value_parser = seconds, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) task_timeout: Option<NonZeroU32>,
    /// How long the job may take from its submission, or its last retry, to its end [default: no limit]
    #[arg(long, global = true, value_name = "DURATION", value_parser = seconds, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) job_timeout: Option<NonZeroU32>,
    /// Share of the job's leases that another worker computes again and compares, above 0 and up to 1
    #[arg(long, global = true, value_name = "R", value_parser = share, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) verify_share: Option<Share>,
    /// Store the result under this name too
    #[arg(long, global = true, value_name = "NAME", value_hint = ValueHint::Other)]
    pub(crate) output_name: Option<String>,
    /// The job's id: the job is submitted once, however often the command is repeated
    #[arg(long, global = true, value_name = "UUID", value_parser = own_id, value_hint = ValueHint::Other)]
    pub(crate) id: Option<Uuid>,
    /// A key of your own: the job is submitted once, however often the command is repeated
    #[arg(long, global = true, value_name = "KEY", value_parser = request_key, conflicts_with = "id", value_hint = ValueHint::Other)]
    pub(crate) idempotency_key: Option<String>,
    /// Wait for the job's end, as `divvy job wait` does
    #[arg(long, global = true)]
    pub(crate) wait: bool,
}

/// The filter of jobs.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Jobs in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = names::<JobState>(JobState::ALL.map(JobState::as_str)))]
    pub(crate) state: Vec<JobState>,
    /// Jobs of this kind
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub(crate) kind: Option<JobKind>,
    /// Jobs with this tag; if repeated, jobs with all of the tags
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = tag_filter, value_hint = ValueHint::Other)]
    pub(crate) tag: Vec<String>,
}

/// Lists jobs, the newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// The most jobs to list, 1 to 1000000 [default: 100]
    #[arg(long, value_name = "N", value_parser = count(MAX_LISTED), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) limit: Option<NonZeroU32>,
}

/// Shows a job.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: JobId,
}

/// Lists a job's tasks.
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: JobId,
    /// Tasks in this state
    #[arg(long, value_name = "STATE", value_parser = names::<TaskState>(TaskState::ALL.map(TaskState::as_str)))]
    pub(crate) state: Option<TaskState>,
    /// The most tasks to list, 1 to 1000000 [default: 1000]
    #[arg(long, value_name = "N", value_parser = count(MAX_LISTED), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) limit: Option<NonZeroU32>,
}

/// Waits until jobs are over and prints them; the exit code tells how they ended.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[arg(value_name = "ID", required = true, value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) ids: Vec<JobId>,
}

/// Prints a job's result, as JSON, or that of one task.
#[derive(Debug, Args)]
pub(crate) struct ResultOf {
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: JobId,
    /// Print the result of this task alone: JSON, or the bytes that a program has printed
    #[arg(long, value_name = "N", value_parser = integer::<u64>(0..=u64::MAX), conflicts_with = "wait", allow_negative_numbers = true, value_hint = ValueHint::Other)]
    pub(crate) task: Option<u64>,
    /// Wait for the result this long, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) wait: Option<Duration>,
    /// Write the result to this file instead of stdout
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// The jobs
    #[arg(value_name = "ID", value_parser = job_id, conflicts_with = "all", value_hint = ValueHint::Other)]
    pub(crate) ids: Vec<JobId>,
    /// All jobs that allow the change (retry: failed jobs), or those of them that match --state, --kind and --tag
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Prints the events of a job, or of all jobs.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The job; all jobs where none is named
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: Option<JobId>,
    /// Also print events as they happen: of a job until its end, of all jobs until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only events with a larger number [default: 0; with --follow and without an id, the newest event's]
    #[arg(long, value_name = "N", value_parser = integer::<u64>(0..=u64::MAX), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) after: Option<u64>,
}

/// Tells why a job's tasks wait.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: JobId,
}
