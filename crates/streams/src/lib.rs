//! Kafka: events and the state of workers go out, jobs come in.
//!
//! [`Outbox`] publishes the event table by number, [`Roster`] the workers each second, and [`Intake`] turns records into
//! jobs. Each runs on a thread of its own, as [`start`] starts it, so that a broker that is away slows nothing else.
//! [`Follower`] reads what they publish.

mod client;
mod dead_letters;
mod figures;
mod follower;
mod incoming;
mod intake;
mod marks;
mod outbox;
mod partitions;
mod record;
mod roster;
mod settings;
mod thread;
mod window;

pub use figures::{Figures, Part};
pub use follower::{Followed, Follower, FollowerError, From, Topic};
pub use intake::{Acceptor, Intake};
pub use outbox::Outbox;
pub use roster::Roster;
pub use settings::{InvalidSettings, Settings};
pub use thread::{Stop, start};

/// The topic of events, keyed by job.
pub const EVENTS_TOPIC: &str = "divvy.events";
/// The topic of the workers' state, keyed by worker.
pub const WORKERS_TOPIC: &str = "divvy.workers";
/// The topic of records that are no jobs.
pub const DEAD_TOPIC: &str = "divvy.submit.dead";
/// What the topics of jobs begin with; their priority follows.
const SUBMIT_PREFIX: &str = "divvy.submit.";

/// The topic of the jobs of a priority.
#[must_use]
pub fn submit_topic(priority: model::Priority) -> String {
    format!("{SUBMIT_PREFIX}{}", priority.get())
}
