//! Start of the reading of the topics of jobs: at the store's positions, if the partitions are still those that were read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use model::Priority;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use sha2::{Digest, Sha256};
use store::Position;

use crate::client::{Context, is_of_one_broker};
use crate::incoming;
use crate::marks::Marks;
use crate::topics::Topics;

/// Bound on the time of a broker's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition of a topic of jobs.
pub(crate) type Partition = (Priority, i32);

/// Partitions, each with the broker that leads it; `None` while none does.
pub(crate) type Leaders = BTreeMap<Partition, Option<i32>>;

/// The topics of jobs as the brokers describe them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The existing partitions.
    pub(crate) leaders: Leaders,
    /// The topics that this client has no right to.
    pub(crate) refused: Vec<String>,
}

impl Found {
    /// Names the topics that this client has no right to; `None` if there are none.
    pub(crate) fn refusal(&self) -> Option<String> {
        (!self.refused.is_empty()).then(|| format!("the brokers refuse access to {}", self.refused.join(", ")))
    }
}

/// Progress in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The store's position.
    pub(crate) stored: Position,
    /// Whether the record before the position is still to be compared with the position's mark.
    pub(crate) is_unproved: bool,
    /// Earlier records.
    pub(crate) marks: Marks,
}

/// Start of the reading of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Reading begins at this offset.
    At(u64),
    /// Reading begins at this offset, whose record is compared with the position's mark.
    Proving(u64),
    /// Reading begins at this offset; this number of unread records is gone.
    Missed(u64, u64),
    /// The position is beyond the partition's end: reading begins somewhere before it.
    Beyond,
}

/// The start in a partition that has the offsets from `low` to before `high`.
pub(crate) fn begin(position: Position, low: u64, high: u64) -> Begin {
    let next = position.next;
    if next == 0 {
        return Begin::At(low);
    }
    if next > high {
        return Begin::Beyond;
    }
    if next < low {
        return Begin::Missed(low, low - next);
    }
    if next == low || position.mark == 0 { Begin::At(next) } else { Begin::Proving(next - 1) }
}

/// The name of a partition's position.
pub(crate) fn stream(topics: &Topics, (priority, partition): Partition) -> String {
    format!("{}/{partition}", topics.submit(priority))
}

/// The mark by which a record is recognized: never 0.
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

/// Asks for the partitions of the topics of jobs.
pub(crate) fn find(client: &Client<Context>, topics: &Topics) -> Result<Found, KafkaError> {
    use RDKafkaErrorCode::{LeaderNotAvailable, TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition};
    let mut found = Found::default();
    for priority in Priority::all() {
        let name = topics.submit(priority);
        let metadata = client.fetch_metadata(Some(&name), ASK_TIMEOUT)?;
        for topic in metadata.topics() {
            match topic.error().map(RDKafkaErrorCode::from) {
                None => {
                    found.leaders.extend(topic.partitions().iter().map(|partition| {
                        let leader = Some(partition.leader()).filter(|leader| *leader >= 0);
                        ((priority, partition.id()), leader)
                    }));
                }
                // A topic that is being made has no partitions yet.
                Some(UnknownTopicOrPartition | UnknownTopic | LeaderNotAvailable) => (),
                // The other topics do not wait for a right to this one.
                Some(TopicAuthorizationFailed) => found.refused.push(name.clone()),
                Some(error) => return Err(KafkaError::MetadataFetch(error)),
            }
        }
    }
    Ok(found)
}

/// The store's positions of the partitions, and their marks.
pub(crate) fn places(
    topics: &Topics,
    partitions: &Leaders,
    positions: &[(String, Position)],
) -> BTreeMap<Partition, Place> {
    let place = |&partition: &Partition| {
        let name = stream(topics, partition);
        let stored = positions.iter().find(|(stream, _)| *stream == name).map_or(Position::default(), |&(_, at)| at);
        (partition, Place { stored, is_unproved: false, marks: Marks::of(topics, partition, positions) })
    };
    partitions.keys().map(place).collect()
}

/// Whether the error says that no broker leads the partition at the moment, or that its leader does not answer.
pub(crate) fn is_of_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable, UnknownPartition};
    // To librdkafka a partition without a leader is unknown. A new leader does not know at once how far the others are.
    let codes = [LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable, UnknownPartition];
    is_of_one_broker(error) || error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// The offsets of a partition.
pub(crate) fn offsets(
    client: &Client<Context>,
    topics: &Topics,
    (priority, partition): Partition,
) -> Result<Range<u64>, KafkaError> {
    let (low, high) = client.fetch_watermarks(&topics.submit(priority), partition, ASK_TIMEOUT)?;
    let count = |offset: i64| u64::try_from(offset).unwrap_or(0);
    Ok(count(low)..count(high))
}

/// The last of the marked records, the latest in front, that the partition still has. The consumer, which tells the ends of
/// partitions, reads nothing else meanwhile.
pub(crate) fn last_common(
    consumer: &BaseConsumer<Context>,
    topics: &Topics,
    partition: Partition,
    marked: &[Position],
    offsets: &Range<u64>,
) -> Result<Option<Position>, KafkaError> {
    for position in marked.iter().filter(|position| offsets.contains(&(position.next - 1))) {
        let record = read_at(consumer, topics, partition, position.next - 1)?;
        if record.is_some_and(|record| mark(&record) == position.mark) {
            return Ok(Some(*position));
        }
    }
    Ok(None)
}

/// The record at an offset before the partition's end; `None` at a gap, such as a transaction leaves at the end.
fn read_at(
    consumer: &BaseConsumer<Context>,
    topics: &Topics,
    (priority, partition): Partition,
    offset: u64,
) -> Result<Option<OwnedMessage>, KafkaError> {
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topics.submit(priority), partition, Offset::Offset(offset))?;
    consumer.assign(&assignment)?;
    let until = Instant::now() + ASK_TIMEOUT;
    while Instant::now() < until {
        match incoming::next(consumer, Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(record) => return record.map(|record| Some(record).filter(|record| record.offset() == offset)),
            None => (),
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, Producer};
    use rdkafka::types::RDKafkaRespErr;

    use super::*;
    use crate::settings::Settings;

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
            (at(5, 1), 0, 4, Begin::Beyond),
            (at(5, 1), 0, 0, Begin::Beyond),
        ] {
            assert_eq!(begin(position, low, high), expected, "{position:?} in {low}..{high}");
        }
    }

    #[test]
    fn a_topic_without_a_right_to_it_hides_no_other_one() {
        let cluster = MockCluster::new(1).expect("a broker");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let topics = settings.topics();
        let [five, seven] = [5_u8, 7].map(|number| Priority::try_from(number).expect("a priority"));
        cluster.create_topic(&topics.submit(five), 2, 1).expect("a topic");
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.topic_error(&topics.submit(seven), refused).expect("a topic");
        let consumer = settings.consumer("divvy-test", Context::default()).expect("a consumer");
        let found = find(consumer.client(), topics).expect("an answer");
        let leaders = [((five, 0), Some(1)), ((five, 1), Some(1))].into_iter().collect();
        assert_eq!(found, Found { leaders, refused: vec![topics.submit(seven)] });
        assert_eq!(found.refusal().as_deref(), Some("the brokers refuse access to divvy.submit.7"));
        assert_eq!(Found::default().refusal(), None);
    }

    #[test]
    fn a_marked_place_without_a_record_up_to_the_end_is_a_gap() {
        let cluster = MockCluster::new(1).expect("a broker");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let (topics, partition) = (settings.topics(), (Priority::try_from(5).expect("a priority"), 0));
        let topic = topics.submit(partition.0);
        cluster.create_topic(&topic, 1, 1).expect("a topic");
        let producer = settings.producer(Context::default(), 1).expect("a producer");
        producer.send(BaseRecord::<(), str>::to(&topic).payload("a job")).map_err(|(error, _)| error).expect("room");
        producer.flush(Duration::from_secs(60)).expect("the broker takes it");
        let consumer = settings.ending_consumer("divvy-test").expect("a consumer");
        let record = read_at(&consumer, topics, partition, 0).expect("an answer").expect("a record");
        let marked = [Position { next: 2, mark: 7 }, Position { next: 1, mark: mark(&record) }];
        // The brokers count the end of a transaction too.
        let found = last_common(&consumer, topics, partition, &marked, &(0..2)).expect("an answer");
        assert_eq!(found, Some(marked[1]));
    }

    #[test]
    fn an_error_of_one_leader_is_told_from_one_of_all_brokers() {
        use RDKafkaErrorCode::{
            AllBrokersDown, LeaderNotAvailable, OffsetNotAvailable, OperationTimedOut, TopicAuthorizationFailed,
        };
        for code in [LeaderNotAvailable, OffsetNotAvailable, OperationTimedOut] {
            assert!(is_of_leader(&KafkaError::MetadataFetch(code)), "{code:?}");
        }
        for code in [AllBrokersDown, TopicAuthorizationFailed] {
            assert!(!is_of_leader(&KafkaError::MetadataFetch(code)), "{code:?}");
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
