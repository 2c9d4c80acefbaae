//! Records of the topics of jobs, as the consumer hands them over.

use std::time::Duration;

use model::Priority;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedMessage};

use crate::SUBMIT_PREFIX;
use crate::client::Context;
use crate::partitions::Partition;

/// Records that are taken at a time,
const MAX_BATCH: usize = 4_000;
/// and their bytes, about.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// The header with the client's own name for a request.
const KEY_HEADER: &str = "idempotency-key";

/// The records that are there, or the first that comes within `patience`.
pub(crate) fn poll(consumer: &BaseConsumer<Context>, mut patience: Duration) -> Result<Vec<OwnedMessage>, KafkaError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let Some(record) = next(consumer, patience) else { break };
        let record = record?;
        bytes += record.payload().map_or(0, <[u8]>::len);
        batch.push(record);
        patience = Duration::ZERO;
    }
    Ok(batch)
}

/// The next record that comes within `patience`. The group's coordinator is asked for by librdkafka itself: that a broker
/// refuses it does not matter where the group keeps nothing.
pub(crate) fn next(consumer: &BaseConsumer<Context>, patience: Duration) -> Option<Result<OwnedMessage, KafkaError>> {
    loop {
        match consumer.poll(patience)? {
            Ok(record) => return Some(Ok(record.detach())),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => (),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The partition of a record, where its topic is one of jobs.
pub(crate) fn partition_of(record: &OwnedMessage) -> Option<Partition> {
    let priority: u8 = record.topic().strip_prefix(SUBMIT_PREFIX)?.parse().ok()?;
    Some((Priority::try_from(priority).ok()?, record.partition()))
}

/// What the client calls the job itself.
pub(crate) fn idempotency_key(record: &OwnedMessage) -> Result<Option<&str>, String> {
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let Some(header) = headers.into_iter().find(|header| header.key.eq_ignore_ascii_case(KEY_HEADER)) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(header.value.unwrap_or_default());
    text.map(Some).map_err(|_| format!("the header {KEY_HEADER} must be readable text"))
}
