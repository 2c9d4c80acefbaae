//! What crosses the wire between a client, the coordinator and its workers: ids, ranges, heartbeats, leases and
//! problems. Values only: no I/O, no clock, no randomness.

mod answer;
pub mod decimal;
mod heartbeat;
mod ids;
mod lease;
mod problem;
mod range;

pub use answer::{SumOfPrimes, WorkerState, WorkerSummary};
pub use heartbeat::{Deregistration, Heartbeat, MAX_SLOTS_PER_WORKER};
pub use ids::{AttemptId, BootId, InvalidWorkerId, JobId, WorkerId};
pub use lease::{LeaseOutcome, LeaseRequest, Work};
pub use problem::{PROBLEM_JSON, Problem};
pub use range::{DEFAULT_CHUNK_SIZE, InvalidRange, NumberRange, Split};
