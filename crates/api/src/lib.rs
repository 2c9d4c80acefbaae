//! Messages between clients, the coordinator and its workers: requests, answers, heartbeats, leases and problems, with their
//! OpenAPI description, and the HTTP client of a grid.

mod answer;
#[cfg(feature = "client")]
pub mod client;
mod coordinator;
mod heartbeat;
mod kafka;
mod lease;
mod problem;
mod program;
mod pull;
mod request;
pub mod schema;
mod statistics;
mod stream;
mod task;
mod view;

pub use answer::{Delivery, SumOfPrimes, WorkerState, WorkerSummary, WorkerSuspension};
pub use coordinator::{CoordinatorList, CoordinatorRole, CoordinatorSummary};
pub use heartbeat::{
    Deregistration, Heartbeat, HeartbeatAnswer, HeldLease, HeldState, MAX_HEARTBEAT_ANSWER_BYTES, MAX_HEARTBEAT_BYTES,
    MAX_HELD_LEASES, MAX_SLOTS_PER_WORKER,
};
pub use kafka::{KafkaStats, WorkerStatus};
pub use lease::{
    LeaseName, LeaseOutcome, LeaseRequest, MAX_LEASE_BYTES, MAX_STREAMED_BYTES, StreamedAnswer, StreamedOrder,
};
pub use problem::{PROBLEM_JSON, Problem};
pub use program::{
    BroughtProgram, LogPage, LogReport, MAX_DESCRIPTION_BYTES, MAX_LOG_BYTES, MAX_PROGRAM_NAMES, NamedAbility, Program,
    ProgramAbilities, ProgramNames, ProgramPage, TaskLog,
};
pub use pull::{
    ClaimRequest, Claimed, ClaimedTask, Completion, MAX_CLAIM_TASKS, ReleaseRequest, RenewRequest, Renewed, TaskFailure,
};
pub use request::{ASKED_MS_AGO, JobRequest, ParsedJob, Simulation};
pub use statistics::{
    AttemptFigures, DurationFigures, JobFigures, PeriodStatistics, StatisticsPage, TaskFigures, TaskStarts,
    TaskStartsPage, csv_lines,
};
pub use stream::{RESET_EVENT, StreamReset};
pub use task::{MAX_SKIPPED, SkipRequest, Skipped, Task, TaskPage};
pub use view::{
    Changed, DiskStats, Explanation, Job, JobPage, JobProgress, JobVerification, KindDemand, SimulationStarted, Stats,
    WorkerStats,
};
