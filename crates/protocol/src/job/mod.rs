//! Jobs on the wire: submitted, seen, followed, and served by workers that pull.

mod event;
mod pull;
mod request;
mod task;
mod view;

pub use event::{EventKind, JobEvent};
pub use pull::{ClaimRequest, Claimed, ClaimedTask, Completion, Renewed, TaskFailure};
pub use request::{
    Affinity, DEFAULT_MAX_ATTEMPTS, InvalidJob, JobKind, JobOptions, JobParams, JobRequest, JobWork, Labels, MAX_TASKS,
    ParsedJob, Priority, Requirements, Resources, Simulation, SleepParams, TasksParams, Timeout, check_words,
};
pub use task::{Task, TaskPage, TaskState};
pub use view::{
    Changed, Explanation, Job, JobPage, JobProgress, JobState, SimulationStarted, Stats, TaskCounts, WorkerStats,
};
