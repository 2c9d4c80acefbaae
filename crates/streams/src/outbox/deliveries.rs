//! The results of deliveries, as the brokers answer them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use crate::client::{is_of_login, is_of_one_broker, log, unreachable};
use crate::window::Window;

/// Receives the results of deliveries.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) window: Arc<Mutex<Window>>,
}

pub(super) fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    // No code that holds it can panic half way through a change.
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut window = lock(&self.window);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => window.fail(reason.to_owned()),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let why = unreachable(window.broker());
                window.warn(why);
            }
            // Partitions get other leaders. An event that waits for this broker is reported when it is late.
            _ if is_of_one_broker(&error) => window.note_broker(reason.to_owned()),
            _ => {
                if is_of_login(&error) {
                    window.note_broker(reason.to_owned());
                }
                window.warn(reason.to_owned());
            }
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, seq: usize) {
        match delivery {
            Ok(message) if message.offset() >= 0 => lock(&self.window).acknowledged(seq as u64),
            Ok(_) => lock(&self.window).fail("librdkafka does not know where the broker wrote it".to_owned()),
            Err((error, _)) => lock(&self.window).fail(error.to_string()),
        }
    }
}
