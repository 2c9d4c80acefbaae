//! Positions: how far a stream outside the store has been dealt with. A position moves in the transaction of the effects of its
//! records, from the place that its owner saw last: a move that was overtaken writes nothing.

use model::EventSource;

use crate::record::{NewJob, Submission};

/// The position of the reader that publishes events: the number of the first unpublished event. Once the position exists, events
/// that are forgotten before they are published are counted.
pub const OUTBOX: &str = "outbox";
/// Counts events that were forgotten before they were published.
pub const OUTBOX_LOST: &str = "outbox.lost";
/// The part of [`OUTBOX_LOST`] that a coordinator has told of, so that the next one does not tell of the same loss as a new one.
pub const OUTBOX_LOST_TOLD: &str = "outbox.lost.told";

/// Progress in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the next record; 0 if there is no position yet. Below 2^63.
    pub next: u64,
    /// The mark by which the record before `next` is recognized; the store only keeps it.
    pub mark: u64,
}

/// Moves a position, together with the job that the records in between submit.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The stream's name.
    pub stream: String,
    /// The number of the next record that the position must have before the move.
    pub from: u64,
    /// The position after the move.
    pub to: Position,
    /// The job, and the record that submits it. A job that is not accepted moves nothing.
    pub job: Option<(Box<NewJob>, EventSource)>,
}

/// The result of an [`Advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The position has moved.
    Moved,
    /// The position has moved, and the job is stored.
    Submitted(Submission),
    /// Nothing is written: the position has this value.
    Elsewhere(Position),
}
