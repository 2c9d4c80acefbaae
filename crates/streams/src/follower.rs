//! Reads events and the workers' state, for people and programs that look on.

use std::collections::BTreeSet;
use std::time::Duration;

use api::WorkerStatus;
use model::JobEvent;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use crate::client::Context;
use crate::settings::Settings;
use crate::topics::Topics;

/// Bound on the time of a broker's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// No broker answers.
    #[error("no broker can be reached")]
    Unreachable,
    /// A topic is not there.
    #[error("there is no topic {0}: does a coordinator publish to these brokers?")]
    NoTopic(String),
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
    /// Ends of the partitions; `None` if the follower reads some partitions only or several topics, whose ends do not name the
    /// topic.
    ends: Option<Ends>,
    is_grouped: bool,
    /// Topic, partition and offset of the last record, whose place the group does not have yet.
    last: Option<(String, i32, i64)>,
    events: String,
    without_leader: u64,
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
        let reset = if from == From::Beginning { "earliest" } else { "latest" };
        let consumer = settings.follower(group, reset)?;
        let names: Vec<_> = topics.iter().map(|topic| topic.name(settings.topics())).collect();
        let (mut assignment, mut ends, mut without_leader) = (TopicPartitionList::new(), Ends::default(), 0);
        let offset = if from == From::Beginning { Offset::Beginning } else { Offset::End };
        for name in &names {
            let metadata = consumer.client().fetch_metadata(Some(name.as_str()), ASK_TIMEOUT).map_err(unfetched)?;
            for topic in metadata.topics() {
                match topic.error().map(RDKafkaErrorCode::from) {
                    Some(error) if !is_missing(error) => {
                        return Err(FollowerError::Refused { topic: name.clone(), error });
                    }
                    None if !topic.partitions().is_empty() => (),
                    Some(_) | None => return Err(FollowerError::NoTopic(name.clone())),
                }
                for partition in topic.partitions() {
                    assignment.add_partition_offset(name, partition.id(), offset)?;
                    ends.partitions += 1;
                    if partition.leader() < 0 {
                        without_leader += 1;
                    }
                }
            }
        }
        match group {
            Some(_) => consumer.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>())?,
            None => consumer.assign(&assignment)?,
        }
        let (is_grouped, events) = (group.is_some(), settings.topics().events());
        let ends = (!is_grouped && names.len() == 1).then_some(ends);
        Ok(Self { consumer, ends, is_grouped, last: None, events, without_leader })
    }

    /// The number of partitions that had no leader at the start: their records come only once they have one.
    #[must_use]
    pub fn partitions_without_leader(&self) -> u64 {
        self.without_leader
    }

    /// The next record; `None` if none has come within `patience`. A group goes on behind the record before it.
    ///
    /// # Errors
    /// The brokers refuse, or a record has another form than divvy publishes. The call waits for brokers that cannot be reached.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Followed>, FollowerError> {
        self.store_last();
        let Some(record) = self.consumer.poll(patience) else { return Ok(None) };
        match record {
            Ok(record) => {
                if let Some(ends) = &mut self.ends {
                    ends.read(record.partition());
                }
                if self.is_grouped {
                    self.last = Some((record.topic().to_owned(), record.partition(), record.offset()));
                }
                self.read(&record.detach()).map(Some)
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                let is_end = self.ends.as_mut().is_some_and(|ends| ends.end(partition));
                Ok(is_end.then_some(Followed::End))
            }
            // A follower without a group of its own does not need the right to a group.
            Err(error) if is_passing(&error) || (!self.is_grouped && is_of_group(&error)) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

/// Whether the error says that a topic does not exist, or is being made.
fn is_missing(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, UnknownTopic, UnknownTopicOrPartition};
    matches!(error, UnknownTopicOrPartition | UnknownTopic | LeaderNotAvailable)
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

/// The error of a start, for which no broker has described a topic. librdkafka names what has failed by its own terms.
fn unfetched(error: KafkaError) -> FollowerError {
    if is_passing(&error) { FollowerError::Unreachable } else { FollowerError::Kafka(error) }
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
        let told = |code| unfetched(KafkaError::MetadataFetch(code)).to_string();
        assert_eq!(told(RDKafkaErrorCode::BrokerTransportFailure), "no broker can be reached");
        assert_eq!(told(RDKafkaErrorCode::AllBrokersDown), "no broker can be reached");
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
