//! The spans of records whose headers name the span that they are part of.

use std::time::SystemTime;

use model::{JobId, TraceContext};
use rdkafka::message::OwnedMessage;
use uuid::Uuid;

use crate::incoming::trace;
use crate::partitions::Partition;

/// The span of a record whose headers name a parent span. Its id follows from the record's place, so that it is the same when
/// the record is read again.
#[derive(Clone, Debug)]
pub struct RecordSpan {
    /// The span that the headers name.
    pub parent: TraceContext,
    /// Its own id.
    pub id: u64,
    /// Start of the work on the record.
    pub started_at: SystemTime,
}

/// A record that has been handled.
#[derive(Clone, Copy, Debug)]
pub struct EndedRecord<'a> {
    /// Its span.
    pub span: &'a RecordSpan,
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: u64,
    /// The record's job, or the reason why it is no job.
    pub outcome: Result<JobId, &'a str>,
}

impl RecordSpan {
    pub(crate) fn of(record: &OwnedMessage, (priority, partition): Partition, offset: u64) -> Option<Self> {
        let parent = trace(record)?;
        let topic_and_partition = (u64::from(priority.get()) << 32) | u64::from(partition.unsigned_abs());
        let id = TraceContext::span_of(Uuid::from_u64_pair(topic_and_partition, offset));
        Some(Self { parent, id, started_at: SystemTime::now() })
    }

    /// The span as its job names it.
    pub(crate) fn context(&self) -> TraceContext {
        self.parent.at(self.id)
    }
}
