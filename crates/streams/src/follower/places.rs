//! The places of a consumer group that is to read from now on.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::{ASK_TIMEOUT, add};
use crate::client::Context;

/// Bound on the time of an answer of the group's coordinator: brokers make the topic of the groups' places for their first group.
const GROUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Stores the ends of a topic's partitions as the places of a group that has no place in the topic. So it goes on from here in a
/// partition from which it does not read a record before it stops, and begins with the first record of one that is added later.
pub(super) fn keep(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partitions: &BTreeSet<i32>,
) -> Result<(), KafkaError> {
    let mut stored = TopicPartitionList::new();
    add(&mut stored, topic, partitions, Offset::Invalid)?;
    let stored = consumer.committed_offsets(stored, GROUP_TIMEOUT)?;
    if stored.elements().iter().any(|place| place.offset() != Offset::Invalid) {
        return Ok(());
    }
    let mut ends = TopicPartitionList::new();
    for &partition in partitions {
        match consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT) {
            Ok((_, end)) => ends.add_partition_offset(topic, partition, Offset::Offset(end))?,
            Err(error) => {
                debug!(topic, partition, %error, "the partition is read from its start: its end is not known")
            }
        }
    }
    if ends.count() == 0 {
        return Ok(());
    }
    match consumer.commit(&ends, CommitMode::Sync) {
        Err(error) if is_of_member(&error) => {
            debug!(topic, %error, "other members of the group read the topic");
            Ok(())
        }
        committed => committed,
    }
}

/// Whether the error says that only members of the group may store its places.
fn is_of_member(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    let codes = [IllegalGeneration, RebalanceInProgress, UnknownMemberId];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}
