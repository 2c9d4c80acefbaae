//! Records that are no jobs, with their cause.
//!
//! The letters have no order among each other: while a partition has no leader that takes records, its letters go to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tracing::warn;

use crate::client::log;
use crate::settings::Settings;
use crate::thread::Stop;

/// The longest cause, in bytes.
const MAX_CAUSE_BYTES: usize = 4096;
/// Bound on the time of a broker's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a partition gets no letters after its leader has not taken one in time.
const AVOIDANCE: Duration = Duration::from_secs(60);

/// Results of the records on their way to the broker.
#[derive(Clone, Debug, Default)]
struct Deliveries(Arc<Mutex<DeliveryState>>);

#[derive(Debug, Default)]
struct DeliveryState {
    outstanding: usize,
    /// Records that the broker does not take because of their size.
    too_large: Vec<usize>,
    /// Records that were not taken in time, and their partitions.
    late: BTreeMap<usize, i32>,
    failed: Option<KafkaError>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        // No code that holds it can panic half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, place: usize) {
        let mut state = self.lock();
        state.outstanding -= 1;
        match delivery {
            Ok(_) => (),
            Err((error, _)) if is_too_large(error) => state.too_large.push(place),
            Err((error, letter)) if is_late(error) && letter.partition() >= 0 => {
                state.late.insert(place, letter.partition());
            }
            Err((error, _)) => drop(state.failed.get_or_insert(error.clone())),
        }
    }
}

/// Whether the record is longer than the topic takes, or its batch, which holds no other record, is longer than a segment.
fn is_too_large(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | MessageBatchTooLarge))
}

/// Whether the leader of the record's partition did not take it in time.
fn is_late(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut)
}

/// The part of a record that goes into its dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    /// The record without its value and its headers.
    Key,
    /// Only the record's place and the cause.
    Cause,
}

/// The reason why a dead letter is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unburied {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("this coordinator may not act as the leader")]
    MayNotAct,
}

/// A record, and the reason why it is no job.
pub(crate) type Letter<'a> = (&'a OwnedMessage, &'a str);

/// The topic of dead letters.
pub(crate) struct DeadLetters {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    topic: String,
    /// Partitions whose leader did not take a letter in time, and when.
    avoided: BTreeMap<i32, Instant>,
}

impl DeadLetters {
    pub(crate) fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let deliveries = Deliveries::default();
        // Records are sent alone, since a broker refuses all records of a batch that is too large.
        let producer = settings.producer(deliveries.clone(), 1)?;
        Ok(Self { producer, deliveries, topic: settings.topics().dead(), avoided: BTreeMap::new() })
    }

    /// Publishes records with their causes; the brokers have them when the call returns. A record that is too large is sent
    /// without its value, then without its key. Returns the number of records that are too large even without both, which cannot
    /// be published.
    pub(crate) fn bury(&mut self, letters: &[Letter<'_>], stop: &Stop) -> Result<u64, Unburied> {
        self.avoided.retain(|_, since| since.elapsed() < AVOIDANCE);
        let mut places: Vec<_> = (0..letters.len()).collect();
        for extent in [Extent::Whole, Extent::Key, Extent::Cause] {
            places = self.send(letters, places, extent, stop)?;
        }
        for &place in &places {
            let (record, cause) = letters[place];
            let (topic, partition, offset) = (record.topic(), record.partition(), record.offset());
            warn!(topic, partition, offset, cause, "no dead letter of this record is small enough for its topic");
        }
        Ok(places.len() as u64)
    }

    /// Sends the letters and returns the places of those that are too large.
    fn send(
        &mut self,
        letters: &[Letter<'_>],
        mut places: Vec<usize>,
        extent: Extent,
        stop: &Stop,
    ) -> Result<Vec<usize>, Unburied> {
        let mut too_large = Vec::new();
        let mut led = if places.is_empty() { None } else { self.led() };
        loop {
            *self.deliveries.lock() = DeliveryState::default();
            for &place in &places {
                let partition = led.as_ref().map(|led| led[place % led.len()]);
                self.send_one(letters[place], (place, partition), extent, stop)?;
            }
            // The loop ends: each record is delivered or fails within the producer's time limit.
            while self.deliveries.lock().outstanding > 0 {
                self.poll(stop)?;
            }
            let DeliveryState { too_large: more, late, failed, .. } = std::mem::take(&mut *self.deliveries.lock());
            if let Some(error) = failed {
                return Err(error.into());
            }
            too_large.extend(more);
            if late.is_empty() {
                return Ok(too_large);
            }
            let known = self.avoided.len();
            self.avoided.extend(late.values().map(|partition| (*partition, Instant::now())));
            led = self.led();
            // The loop ends: each turn avoids another partition.
            if led.is_none() || self.avoided.len() == known {
                return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut).into());
            }
            places = late.into_keys().collect();
        }
    }

    /// The partitions with a leader that takes letters; `None` if all partitions have one or none has: librdkafka then chooses
    /// by the key.
    fn led(&self) -> Option<Vec<i32>> {
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), ASK_TIMEOUT).ok()?;
        let topic = metadata.topics().first().filter(|topic| topic.error().is_none())?;
        let all: Vec<_> = topic.partitions().iter().map(|partition| (partition.id(), partition.leader())).collect();
        let is_avoided = |id: &i32| self.avoided.contains_key(id);
        let silent: BTreeSet<_> = all.iter().filter(|(id, _)| is_avoided(id)).map(|&(_, leader)| leader).collect();
        let is_led = |id: &i32, leader: &i32| *leader >= 0 && !is_avoided(id) && !silent.contains(leader);
        let led: Vec<_> = all.iter().filter(|(id, leader)| is_led(id, leader)).map(|&(id, _)| id).collect();
        Some(led).filter(|led| !led.is_empty() && led.len() < all.len())
    }

    fn send_one(
        &self,
        (record, cause): Letter<'_>,
        (place, partition): (usize, Option<i32>),
        extent: Extent,
        stop: &Stop,
    ) -> Result<(), Unburied> {
        let headers = headers(record, cause, extent);
        let mut letter = BaseRecord::with_opaque_to(&self.topic, place).headers(headers);
        if let Some(partition) = partition {
            letter = letter.partition(partition);
        }
        if let Some(key) = record.key().filter(|_| extent != Extent::Cause) {
            letter = letter.key(key);
        }
        if let Some(value) = record.payload().filter(|_| extent == Extent::Whole) {
            letter = letter.payload(value);
        }
        if !stop.may_act() {
            return Err(self.give_up());
        }
        self.deliveries.lock().outstanding += 1;
        while let Err((error, back)) = self.producer.send(letter) {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                self.poll(stop)?;
                letter = back;
                continue;
            }
            let mut state = self.deliveries.lock();
            state.outstanding -= 1;
            if !is_too_large(&error) {
                return Err(error.into());
            }
            state.too_large.push(place);
            break;
        }
        Ok(())
    }

    fn poll(&self, stop: &Stop) -> Result<(), Unburied> {
        if !stop.may_act() {
            return Err(self.give_up());
        }
        self.producer.poll(Duration::from_millis(10));
        Ok(())
    }

    /// Discards unsent records.
    fn give_up(&self) -> Unburied {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        Unburied::MayNotAct
    }
}

/// The headers of a dead letter: those of the record if its value is kept, and its origin.
fn headers(record: &OwnedMessage, cause: &str, extent: Extent) -> OwnedHeaders {
    let mut headers = record.headers().filter(|_| extent == Extent::Whole).cloned().unwrap_or_default();
    let end = cause.floor_char_boundary(MAX_CAUSE_BYTES);
    let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
    let too_large = Some("too large");
    let is_without = |part: Option<&[u8]>, is_left_out: bool| too_large.filter(|_| is_left_out && part.is_some());
    for (key, value) in [
        ("divvy-cause", Some(&cause[..end])),
        ("divvy-topic", Some(record.topic())),
        ("divvy-partition", Some(partition.as_str())),
        ("divvy-offset", Some(offset.as_str())),
        ("divvy-value", is_without(record.payload(), extent != Extent::Whole)),
        ("divvy-key", is_without(record.key(), extent == Extent::Cause)),
    ] {
        if value.is_some() {
            headers = headers.insert(Header { key, value });
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Buries records with keys that spread over all partitions. Returns the partitions that are avoided afterwards.
    fn bury(settings: &Settings) -> Vec<i32> {
        let time = rdkafka::Timestamp::CreateTime(0);
        let record = |number: i64| {
            let key = Some(format!("key-{number}").into_bytes());
            OwnedMessage::new(None, key, "divvy.submit.5".to_owned(), time, 0, number, None)
        };
        let records: Vec<_> = (0..30).map(record).collect();
        let letters: Vec<_> = records.iter().map(|record| (record, "no value")).collect();
        let mut dead_letters = DeadLetters::new(settings).expect("a producer");
        let refused = dead_letters.bury(&letters, &Stop::new(|| true));
        assert_eq!(refused.expect("the other partitions take them"), 0);
        dead_letters.avoided.into_keys().collect()
    }

    #[test]
    fn letters_do_not_wait_for_a_partition_whose_leader_is_away() {
        let cluster = MockCluster::new(2).expect("brokers");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let topic = settings.topics().dead();
        cluster.create_topic(&topic, 3, 1).expect("a topic");
        for (partition, leader) in [(0, Some(1)), (1, None), (2, Some(1))] {
            cluster.partition_leader(&topic, partition, leader).expect("a partition");
        }
        assert_eq!(bury(&settings), [0; 0], "it has no leader");
        // The client has not noticed yet that the leader of the partition is gone.
        cluster.partition_leader(&topic, 1, Some(2)).expect("a partition");
        cluster.broker_down(2).expect("a broker");
        assert_eq!(bury(&settings), [1]);
    }

    #[test]
    fn headers_say_what_was_left_out() {
        let time = rdkafka::Timestamp::CreateTime(0);
        let own = OwnedHeaders::new().insert(Header { key: "from", value: Some("a test") });
        let key = Some(b"key".to_vec());
        let record = OwnedMessage::new(None, key, "divvy.submit.5".to_owned(), time, 2, 7, Some(own));
        let names = |extent| -> Vec<_> {
            headers(&record, "no value", extent).iter().map(|header| header.key.to_owned()).collect()
        };
        let place = ["divvy-cause", "divvy-topic", "divvy-partition", "divvy-offset"];
        assert_eq!(names(Extent::Whole), [&["from"][..], &place].concat());
        assert_eq!(names(Extent::Key), place);
        assert_eq!(names(Extent::Cause), [&place[..], &["divvy-key"]].concat());
    }
}
