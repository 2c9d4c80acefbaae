//! Records that are no jobs, with their cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};

use crate::DEAD_TOPIC;
use crate::client::log;
use crate::settings::Settings;

/// The longest cause, in bytes.
const MAX_CAUSE_BYTES: usize = 4096;

/// What became of the records that are on their way.
#[derive(Clone, Debug, Default)]
struct Deliveries(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    outstanding: usize,
    /// Records that the broker does not take because of their size.
    too_large: Vec<usize>,
    failed: Option<KafkaError>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, State> {
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
            Err((error, _)) => drop(state.failed.get_or_insert(error.clone())),
        }
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// The topic of dead letters.
pub(crate) struct DeadLetters {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
}

impl DeadLetters {
    pub(crate) fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let deliveries = Deliveries::default();
        Ok(Self { producer: settings.producer(deliveries.clone())?, deliveries })
    }

    /// Publishes records with their causes; the brokers have them when it returns. A record that is too large goes
    /// without its value.
    pub(crate) fn bury(&self, records: &[(&OwnedMessage, &str)]) -> Result<(), KafkaError> {
        let all: Vec<_> = (0..records.len()).collect();
        let too_large = self.send(records, &all, true)?;
        self.send(records, &too_large, false).map(drop)
    }

    /// Returns the places of those that are too large.
    fn send(&self, records: &[(&OwnedMessage, &str)], places: &[usize], whole: bool) -> Result<Vec<usize>, KafkaError> {
        *self.deliveries.lock() = State::default();
        for &place in places {
            let (record, cause) = records[place];
            let headers = headers(record, cause, whole);
            let mut letter = BaseRecord::with_opaque_to(DEAD_TOPIC, place).headers(headers);
            if let Some(key) = record.key() {
                letter = letter.key(key);
            }
            if let Some(value) = record.payload().filter(|_| whole) {
                letter = letter.payload(value);
            }
            self.deliveries.lock().outstanding += 1;
            while let Err((error, back)) = self.producer.send(letter) {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    self.producer.poll(Duration::from_millis(10));
                    letter = back;
                    continue;
                }
                let mut state = self.deliveries.lock();
                state.outstanding -= 1;
                if !(whole && is_too_large(&error)) {
                    return Err(error);
                }
                state.too_large.push(place);
                break;
            }
        }
        // Ends: each record is delivered or fails within the producer's time limit.
        while self.deliveries.lock().outstanding > 0 {
            self.producer.poll(Duration::from_millis(10));
        }
        let mut state = self.deliveries.lock();
        match state.failed.take() {
            Some(error) => Err(error),
            None if whole => Ok(std::mem::take(&mut state.too_large)),
            None if state.too_large.is_empty() => Ok(Vec::new()),
            None => Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)),
        }
    }
}

/// Those of the record where the value goes with it, and where it comes from.
fn headers(record: &OwnedMessage, cause: &str, whole: bool) -> OwnedHeaders {
    let mut headers = record.headers().filter(|_| whole).cloned().unwrap_or_default();
    let end = cause.floor_char_boundary(MAX_CAUSE_BYTES);
    let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
    for (key, value) in [
        ("divvy-cause", &cause[..end]),
        ("divvy-topic", record.topic()),
        ("divvy-partition", &partition),
        ("divvy-offset", &offset),
    ] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    if whole { headers } else { headers.insert(Header { key: "divvy-value", value: Some("too large") }) }
}
