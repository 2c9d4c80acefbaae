//! Reads events and the workers' state, for people and programs that look on.
//!
//! Without a group it looks for partitions that are added and for topics that are made anew: all their records are new, so they are
//! read from their start.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::WorkerStatus;
use model::JobEvent;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use crate::client::{Context, MadeAnew, why_unreachable};
use crate::settings::Settings;
use crate::topics::Topics;

/// Bound on the time of a broker's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound on the time of a look at the topics, during which nothing is read.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// A topic to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The workers' state.
    Workers,
    /// Events.
    Events,
}

/// Start of the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest kept record.
    Beginning,
    /// The next new record.
    Now,
}

/// A record that was read.
#[derive(Clone, Debug)]
pub enum Followed {
    /// A worker's state.
    Worker(WorkerStatus),
    /// An event.
    Event(JobEvent),
    /// No partition has more records at the moment. Only for one topic that is read without a group.
    End,
}

/// The reason why nothing is read.
#[derive(Debug, thiserror::Error)]
pub enum FollowerError {
    /// The brokers refuse, or librdkafka fails.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// No broker answers; the text says why.
    #[error("{0}")]
    Unreachable(String),
    /// A topic is not there.
    #[error("there is no topic {0}: does a coordinator publish to these brokers?")]
    NoTopic(String),
    /// A topic was deleted while it was read.
    #[error("topic {0} is gone: it is read from its start once it is there again")]
    Gone(String),
    /// The brokers do not describe a topic to this client.
    #[error("the brokers refuse topic {topic}: {error}")]
    Refused {
        /// The topic.
        topic: String,
        /// The reason.
        error: RDKafkaErrorCode,
    },
    /// A record has another form than divvy publishes.
    #[error("record {offset} of {topic} is not what divvy publishes: {error}")]
    Record {
        /// Its topic.
        topic: String,
        /// Its offset.
        offset: i64,
        /// The fault.
        error: serde_json::Error,
    },
}

/// A consumer of some of the topics.
pub struct Follower {
    consumer: BaseConsumer<Context>,
    topics: Vec<String>,
    /// Ends of the partitions; `None` if the follower reads some partitions only or several topics, whose ends do not name the
    /// topic.
    ends: Option<Ends>,
    is_grouped: bool,
    /// Topic, partition and offset of the last record, whose place the group does not have yet.
    last: Option<(String, i32, i64)>,
    events: String,
    without_leader: u64,
    /// The partitions that are read, by topic. A group assigns its own.
    assigned: BTreeMap<String, BTreeSet<i32>>,
    made_anew: MadeAnew,
    /// Topics that were there at the start and are not.
    gone: BTreeSet<String>,
    look_interval: Duration,
    /// The time of the next look at the topics.
    look_at: Instant,
}

/// The partitions of a topic that have been read to their end.
#[derive(Debug, Default)]
struct Ends {
    partitions: usize,
    ended: BTreeSet<i32>,
}

impl Ends {
    /// Notes that a partition had another record.
    fn read(&mut self, partition: i32) {
        self.ended.remove(&partition);
    }

    /// Notes that a partition has no more records at the moment. Returns whether no partition has.
    fn end(&mut self, partition: i32) -> bool {
        self.ended.insert(partition);
        self.ended.len() == self.partitions
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Follower {
    /// Begins to read: with a group where the group stopped, else from `from` on.
    ///
    /// # Errors
    /// The brokers cannot be reached or refuse a topic, or a topic does not exist.
    pub fn start(
        settings: &Settings,
        topics: &[Topic],
        from: From,
        group: Option<&str>,
    ) -> Result<Self, FollowerError> {
        let made_anew = MadeAnew::default();
        let context = if group.is_some() { Context::default() } else { Context::default().watching(&made_anew) };
        let consumer = settings.follower(group, context)?;
        let topics: Vec<_> = topics.iter().map(|topic| topic.name(settings.topics())).collect();
        let offset = if from == From::Beginning { Offset::Beginning } else { Offset::End };
        let (mut assignment, mut assigned, mut without_leader) = (TopicPartitionList::new(), BTreeMap::new(), 0);
        for topic in &topics {
            let found = partitions(&consumer, topic, ASK_TIMEOUT).map_err(|error| plainly(error, &consumer))?;
            without_leader += found.values().map(|is_led| u64::from(!is_led)).sum::<u64>();
            let found: BTreeSet<_> = found.into_keys().collect();
            if group.is_some() && from == From::Now {
                places::keep(&consumer, topic, &found)?;
            }
            add(&mut assignment, topic, &found, offset)?;
            assigned.insert(topic.clone(), found);
        }
        match group {
            Some(_) => consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?,
            None => consumer.assign(&assignment)?,
        }
        let (is_grouped, look_interval) = (group.is_some(), settings.look_interval());
        let ends =
            (!is_grouped && topics.len() == 1).then(|| Ends { partitions: assignment.count(), ..Ends::default() });
        Ok(Self {
            consumer,
            topics,
            ends,
            is_grouped,
            last: None,
            events: settings.topics().events(),
            without_leader,
            assigned,
            made_anew,
            gone: BTreeSet::new(),
            look_interval,
            look_at: Instant::now() + look_interval,
        })
    }

    /// The number of partitions that had no leader at the start: their records come only once they have one.
    #[must_use]
    pub fn partitions_without_leader(&self) -> u64 {
        self.without_leader
    }

    /// The next record; `None` if none has come within `patience`. A group goes on behind the record before it.
    ///
    /// # Errors
    /// The brokers refuse, a record has another form than divvy publishes, or a topic is gone, which is said once. The call waits
    /// for brokers that cannot be reached.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Followed>, FollowerError> {
        self.store_last();
        if self.look_at <= Instant::now() {
            self.look()?;
        }
        let polled = self.consumer.poll(patience).map(|record| record.map(|record| record.detach()));
        let anew = self.made_anew.take();
        for topic in &anew {
            self.forget(topic)?;
        }
        let Some(record) = polled else { return Ok(None) };
        match record {
            // It is read again with those before it.
            Ok(record) if anew.contains(record.topic()) => Ok(None),
            Ok(record) => {
                if let Some(ends) = &mut self.ends {
                    ends.read(record.partition());
                }
                if self.is_grouped {
                    self.last = Some((record.topic().to_owned(), record.partition(), record.offset()));
                }
                self.read(&record).map(Some)
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                let is_end = self.ends.as_mut().is_some_and(|ends| ends.end(partition));
                Ok(is_end.then_some(Followed::End))
            }
            Err(error) if is_of_topic(&error) => {
                self.look_at = Instant::now();
                Ok(None)
            }
            // A follower without a group of its own does not need the right to a group.
            Err(error) if is_passing(&error) || (!self.is_grouped && is_of_group(&error)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks for topics that are gone and, without a group, for partitions that are not read yet.
    fn look(&mut self) -> Result<(), FollowerError> {
        self.look_at = Instant::now() + self.look_interval;
        for topic in self.topics.clone() {
            match partitions(&self.consumer, &topic, LOOK_TIMEOUT) {
                Ok(found) => {
                    self.gone.remove(&topic);
                    self.assign_added(&topic, found.into_keys().collect())?;
                }
                Err(FollowerError::NoTopic(_)) => {
                    if self.gone.insert(topic.clone()) {
                        return Err(FollowerError::Gone(topic));
                    }
                }
                // Reading goes on, and the next look may succeed.
                Err(error) => debug!(topic, %error, "the topic is not described"),
            }
        }
        Ok(())
    }

    /// Reads from their start those of a topic's partitions that are not read yet.
    fn assign_added(&mut self, topic: &str, mut found: BTreeSet<i32>) -> Result<(), KafkaError> {
        if self.is_grouped {
            return Ok(());
        }
        let assigned = self.assigned.entry(topic.to_owned()).or_default();
        found.retain(|partition| !assigned.contains(partition));
        if found.is_empty() {
            return Ok(());
        }
        let mut added = TopicPartitionList::new();
        add(&mut added, topic, &found, Offset::Beginning)?;
        self.consumer.incremental_assign(&added)?;
        assigned.append(&mut found);
        if let Some(ends) = &mut self.ends {
            ends.partitions = assigned.len();
        }
        Ok(())
    }

    /// Stops reading a topic that was made anew, until the next look.
    fn forget(&mut self, topic: &str) -> Result<(), KafkaError> {
        self.look_at = Instant::now();
        let Some(assigned) = self.assigned.remove(topic) else { return Ok(()) };
        let mut removed = TopicPartitionList::new();
        add(&mut removed, topic, &assigned, Offset::Invalid)?;
        self.consumer.incremental_unassign(&removed)?;
        if let Some(ends) = &mut self.ends {
            *ends = Ends::default();
        }
        Ok(())
    }

    /// Ends the reading. A group goes on behind the last record; without this call the group reads it again.
    pub fn finish(mut self) {
        self.store_last();
    }

    /// Stores the place of the last record, before a call that may take its partition away.
    fn store_last(&mut self) {
        if let Some((topic, partition, offset)) = self.last.take()
            && let Err(error) = self.consumer.store_offset(&topic, partition, offset)
        {
            debug!(%error, "another member of the group has the partition");
        }
    }

    fn read(&self, record: &OwnedMessage) -> Result<Followed, FollowerError> {
        let value = record.payload().unwrap_or_default();
        let read = if record.topic() == self.events {
            serde_json::from_slice(value).map(Followed::Event)
        } else {
            serde_json::from_slice(value).map(Followed::Worker)
        };
        read.map_err(|error| FollowerError::Record { topic: record.topic().to_owned(), offset: record.offset(), error })
    }
}

impl Topic {
    fn name(self, topics: &Topics) -> String {
        match self {
            Self::Workers => topics.workers(),
            Self::Events => topics.events(),
        }
    }
}

/// The partitions of a topic, each with whether a broker leads it.
fn partitions(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    patience: Duration,
) -> Result<BTreeMap<i32, bool>, FollowerError> {
    let metadata = consumer.client().fetch_metadata(Some(topic), patience)?;
    let mut found = BTreeMap::new();
    for described in metadata.topics() {
        match described.error().map(RDKafkaErrorCode::from) {
            Some(error) if !is_missing(error) => {
                return Err(FollowerError::Refused { topic: topic.to_owned(), error });
            }
            Some(_) => (),
            None => found.extend(described.partitions().iter().map(|one| (one.id(), one.leader() >= 0))),
        }
    }
    if found.is_empty() { Err(FollowerError::NoTopic(topic.to_owned())) } else { Ok(found) }
}

/// Adds partitions of a topic to a list.
fn add(
    list: &mut TopicPartitionList,
    topic: &str,
    partitions: &BTreeSet<i32>,
    offset: Offset,
) -> Result<(), KafkaError> {
    partitions.iter().try_for_each(|&partition| list.add_partition_offset(topic, partition, offset))
}

/// Whether the error says that a topic does not exist, or is being made.
fn is_missing(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, UnknownTopic, UnknownTopicOrPartition};
    matches!(error, UnknownTopicOrPartition | UnknownTopic | LeaderNotAvailable)
}

/// Whether the error says that a topic, or a partition of it, is no longer there.
fn is_of_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
    let codes = [UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

/// The error of a start. librdkafka names what has failed by its own terms.
fn plainly(error: FollowerError, consumer: &BaseConsumer<Context>) -> FollowerError {
    if let FollowerError::Kafka(cause) = &error
        && is_passing(cause)
    {
        return FollowerError::Unreachable(why_unreachable(consumer));
    }
    error
}

fn is_of_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    #[test]
    fn partitions_without_a_leader_are_counted() {
        let cluster = MockCluster::new(1).expect("a broker");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let topic = settings.topics().events();
        cluster.create_topic(&topic, 3, 1).expect("a topic");
        for (expected, leader) in [(1, None), (0, Some(1))] {
            cluster.partition_leader(&topic, 1, leader).expect("a partition");
            let follower = Follower::start(&settings, &[Topic::Events], From::Beginning, None).expect("a topic");
            assert_eq!(follower.partitions_without_leader(), expected);
        }
    }

    #[test]
    fn a_topic_without_a_right_to_it_is_told_from_one_that_is_not_there() {
        let cluster = MockCluster::new(1).expect("a broker");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let told = || {
            let started = Follower::start(&settings, &[Topic::Events], From::Beginning, None);
            started.expect_err("it cannot be read").to_string()
        };
        assert!(told().starts_with("there is no topic divvy.events"), "{}", told());
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.topic_error(&settings.topics().events(), refused).expect("a topic");
        assert!(told().starts_with("the brokers refuse topic divvy.events: "), "{}", told());
    }

    #[test]
    fn a_start_without_any_broker_is_told_plainly() {
        let settings = Settings::parse("127.0.0.1:1", "").expect("valid");
        let consumer = settings.follower(None, Context::default()).expect("a consumer");
        let told = |code| plainly(KafkaError::MetadataFetch(code).into(), &consumer).to_string();
        for code in [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown] {
            assert!(told(code).starts_with("no broker can be reached"), "{}", told(code));
        }
        assert!(told(RDKafkaErrorCode::Authentication).contains("Authentication"));
    }

    #[test]
    fn a_partition_that_ends_again_and_again_does_not_stand_for_another() {
        let mut ends = Ends { partitions: 2, ..Ends::default() };
        for _ in 0..3 {
            assert!(!ends.end(0), "the other one has not been read");
            ends.read(0);
        }
        assert!(!ends.end(1), "more has come in the first");
        assert!(ends.end(0));
        ends.read(1);
        assert!(!ends.end(0));
    }
}
