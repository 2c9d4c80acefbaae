//! Where reading the topics of jobs begins: at the store's positions, if the partitions are still those that were read.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Priority;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use sha2::{Digest, Sha256};
use store::Position;

use crate::client::Context;
use crate::submit_topic;

/// How long a broker may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition of a topic of jobs.
pub(crate) type Partition = (Priority, i32);

/// How far a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The store's position.
    pub(crate) stored: Position,
    /// Whether the record before the position is still to be compared with the position's mark.
    pub(crate) is_unproved: bool,
}

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At this offset.
    At(u64),
    /// At this offset, whose record is compared with the position's mark.
    Proving(u64),
    /// At this offset: so many records are gone that were not read.
    Missed(u64, u64),
    /// At this offset: the partition is another one than that of the position.
    Anew(u64),
}

/// Where to begin in a partition that has the offsets from `low` to before `high`.
pub(crate) fn begin(position: Position, low: u64, high: u64) -> Begin {
    let next = position.next;
    if next == 0 {
        return Begin::At(low);
    }
    if next > high {
        return Begin::Anew(low);
    }
    if next < low {
        return Begin::Missed(low, low - next);
    }
    if next == low || position.mark == 0 { Begin::At(next) } else { Begin::Proving(next - 1) }
}

/// The name of a partition's position.
pub(crate) fn stream((priority, partition): Partition) -> String {
    format!("{}/{partition}", submit_topic(priority))
}

/// By what a record is recognized: never 0.
pub(crate) fn mark(record: &OwnedMessage) -> u64 {
    let mut hash = Sha256::new();
    hash.update(record.timestamp().to_millis().unwrap_or(-1).to_le_bytes());
    for part in [record.key(), record.payload()] {
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

/// The partitions of the topics of jobs that there are.
pub(crate) fn find(client: &Client<Context>) -> Result<Vec<Partition>, KafkaError> {
    let mut partitions = Vec::new();
    for priority in Priority::all() {
        let metadata = client.fetch_metadata(Some(&submit_topic(priority)), ASK_TIMEOUT)?;
        for topic in metadata.topics() {
            match topic.error().map(RDKafkaErrorCode::from) {
                None => partitions.extend(topic.partitions().iter().map(|partition| (priority, partition.id()))),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => (),
                Some(error) => return Err(KafkaError::MetadataFetch(error)),
            }
        }
    }
    Ok(partitions)
}

/// Where each of the partitions begins, by the store's positions.
pub(crate) fn places(
    client: &Client<Context>,
    partitions: &[Partition],
    positions: &[(String, Position)],
) -> Result<BTreeMap<Partition, (Position, Begin)>, KafkaError> {
    let place = |&partition: &Partition| {
        let name = stream(partition);
        let position = positions.iter().find(|(stream, _)| *stream == name).map_or(Position::default(), |&(_, at)| at);
        let (low, high) = client.fetch_watermarks(&submit_topic(partition.0), partition.1, ASK_TIMEOUT)?;
        let count = |offset: i64| u64::try_from(offset).unwrap_or(0);
        Ok((partition, (position, begin(position, count(low), count(high)))))
    };
    partitions.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_where_it_ended_unless_the_partition_shows_that_it_is_another() {
        let at = |next, mark| Position { next, mark };
        for (position, low, high, expected) in [
            (at(0, 0), 0, 0, Begin::At(0)),
            (at(0, 0), 7, 9, Begin::At(7)),
            (at(5, 1), 0, 9, Begin::Proving(4)),
            (at(5, 1), 0, 5, Begin::Proving(4)),
            (at(5, 0), 0, 9, Begin::At(5)),
            (at(5, 1), 5, 9, Begin::At(5)),
            (at(5, 1), 8, 9, Begin::Missed(8, 3)),
            (at(5, 1), 0, 4, Begin::Anew(0)),
            (at(5, 1), 0, 0, Begin::Anew(0)),
        ] {
            assert_eq!(begin(position, low, high), expected, "{position:?} in {low}..{high}");
        }
    }

    #[test]
    fn a_mark_tells_records_apart() {
        let record = |key: Option<&str>, value: &str, millis| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let time = rdkafka::Timestamp::CreateTime(millis);
            OwnedMessage::new(Some(bytes(value)), key.map(bytes), "topic".to_owned(), time, 0, 0, None)
        };
        let marks = [
            mark(&record(None, "ab", 1)),
            mark(&record(None, "ab", 2)),
            mark(&record(Some("a"), "b", 1)),
            mark(&record(None, "", 1)),
        ];
        assert!(marks.iter().enumerate().all(|(place, mark)| !marks[..place].contains(mark)), "{marks:?}");
        assert_eq!(mark(&record(None, "ab", 1)), marks[0]);
    }
}
