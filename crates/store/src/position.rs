//! How far a stream outside the store has been dealt with. A position moves in the transaction of what it stands for, from
//! where its owner last saw it: a move that was overtaken writes nothing.

use model::EventSource;

use crate::record::{NewJob, Submission};

/// The position of the reader that publishes events: the number of the first that it has not. Once it is there, events
/// that are forgotten before they are published are counted.
pub const OUTBOX: &str = "outbox";
/// Counts events that were forgotten before they were published.
pub const OUTBOX_LOST: &str = "outbox.lost";

/// How far a stream has been dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the next record; 0 where there is no position yet. Below 2^63.
    pub next: u64,
    /// By what the record before it is recognized; the store only keeps it.
    pub mark: u64,
}

/// Moves a position, together with the job that the records in between submit.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The stream's name.
    pub stream: String,
    /// Where the position must stand: at the number of its next record.
    pub from: u64,
    /// Where it stands then.
    pub to: Position,
    /// The job, and the record that submits it. A job that is not accepted moves nothing.
    pub job: Option<(Box<NewJob>, EventSource)>,
}

/// What became of an [`Advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The position has moved.
    Moved,
    /// The position has moved, and the job is there.
    Submitted(Submission),
    /// Nothing is written: the position stands here.
    Elsewhere(Position),
}
