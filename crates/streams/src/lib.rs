//! Kafka: publishes events and the state of workers, and takes jobs in.
//!
//! [`Outbox`] publishes the event table by number, [`Roster`] the workers each second, and [`Intake`] turns records into jobs.
//! Each runs on a thread of its own, started by [`start`], so that a broker that cannot be reached slows nothing else.
//! [`Follower`] reads the published topics.

mod client;
mod dead_letters;
mod figures;
mod follower;
mod incoming;
mod intake;
mod marks;
mod outbox;
mod partitions;
mod patience;
mod quietly;
mod record;
mod roster;
mod settings;
mod spans;
mod thread;
mod topics;
mod window;

pub use figures::{Figures, Part};
pub use follower::{Followed, Follower, FollowerError, From, Topic};
pub use intake::{Acceptor, IncomingJob, Intake};
pub use outbox::Outbox;
pub use roster::Roster;
pub use settings::{InvalidSettings, Settings};
pub use spans::{EndedRecord, RecordSpan};
pub use thread::{Stop, start};
