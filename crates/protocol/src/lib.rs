//! What crosses the wire between a client, the coordinator and its workers: ids, ranges, heartbeats, leases and
//! problems. Values only: no I/O, no clock, no randomness.

mod answer;
pub mod decimal;
mod heartbeat;
mod ids;
mod job;
mod lease;
mod problem;
mod range;

pub use answer::{SumOfPrimes, WorkerState, WorkerSummary};
pub use heartbeat::{Deregistration, Heartbeat, MAX_SLOTS_PER_WORKER};
pub use ids::{AttemptId, BootId, InvalidWorkerId, JobId, WorkerId};
pub use job::{
    Affinity, Changed, ClaimRequest, Claimed, ClaimedTask, Completion, DEFAULT_MAX_ATTEMPTS, EventKind, Explanation,
    InvalidJob, Job, JobEvent, JobKind, JobOptions, JobPage, JobParams, JobProgress, JobRequest, JobState, JobWork,
    Labels, MAX_TASKS, ParsedJob, Priority, Renewed, Requirements, Resources, Simulation, SimulationStarted,
    SleepParams, Stats, Task, TaskCounts, TaskFailure, TaskPage, TaskState, TasksParams, Timeout, WorkerStats,
    check_words,
};
pub use lease::{LeaseOutcome, LeaseRequest, Nap, Stretch, Work, setup_estimate, sieve_estimate};
pub use problem::{PROBLEM_JSON, Problem};
pub use range::{DEFAULT_CHUNK_SIZE, InvalidRange, NumberRange, Split};
