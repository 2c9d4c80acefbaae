//! Messages of librdkafka about itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use tracing::debug;

use crate::figures::{Figures, Part};

/// Text in librdkafka's message when a topic has another id than before.
const MADE_ANEW: &str = " changed id from ";
/// Text of that message when no id of the topic was known before.
const NO_ID: &str = "changed id from AAAAAAAAAAAAAAAAAAAAAA";

/// Time without failures after which a producer works again: deliveries to other partitions may succeed beside failing ones.
const QUIET: Duration = Duration::from_secs(5);

/// Names of topics that were made anew while they were read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct MadeAnew(Arc<Mutex<BTreeSet<String>>>);

impl MadeAnew {
    fn note(&self, topic: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned());
    }

    /// The topics that were noted since the last call.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The topic that librdkafka's message says to be made anew.
fn made_anew(message: &str) -> Option<&str> {
    let (topic, _) = message.split_once(MADE_ANEW).filter(|_| !message.contains(NO_ID))?;
    topic.rsplit(' ').next()
}

/// Passes errors to the figures and notes topics that are made anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    figures: Option<(Arc<Figures>, Part)>,
    made_anew: Option<MadeAnew>,
}

impl Context {
    pub(crate) fn of(figures: &Arc<Figures>, part: Part) -> Self {
        Self { figures: Some((Arc::clone(figures), part)), made_anew: None }
    }

    /// Notes a topic that was made anew, before any of its records is read.
    pub(crate) fn watching(self, made_anew: &MadeAnew) -> Self {
        Self { made_anew: Some(made_anew.clone()), ..self }
    }

    pub(crate) fn watches_topics(&self) -> bool {
        self.made_anew.is_some()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(noted) = &self.made_anew
            && let Some(topic) = made_anew(message)
        {
            noted.note(topic);
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
        // librdkafka asks for the coordinator of every group, also of a group without stored offsets.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            return;
        }
        // The intake goes on with the other brokers.
        let is_intake = self.figures.as_ref().is_some_and(|(_, part)| *part == Part::Intake);
        if is_intake && is_of_one_broker(&error) {
            return;
        }
        // The roster hears of each record.
        if let Some((figures, part)) = self.figures.as_ref().filter(|(_, part)| *part != Part::Roster) {
            figures.failed(*part, cause(&error, reason));
        }
    }
}

/// Whether a broker cannot be reached, which says nothing of the others: librdkafka connects to it again by itself.
pub(crate) fn is_of_one_broker(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(error.rdkafka_error_code(), Some(BrokerTransportFailure | OperationTimedOut | Resolve))
}

/// librdkafka counts brokers that it has forgotten meanwhile: "0/2 brokers are down".
fn cause<'a>(error: &KafkaError, reason: &'a str) -> &'a str {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
        "no broker can be reached"
    } else {
        reason
    }
}

/// Logs librdkafka's messages at debug level: the parts themselves report relevant errors.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if !matches!(level, RDKafkaLogLevel::Debug) {
        debug!(facility, message, "librdkafka");
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let Some((figures, part)) = &self.figures else { return };
        match delivery {
            Ok(_) => figures.recovered_after(*part, QUIET),
            Err((error, _)) => figures.failed(*part, &error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_all_away_are_not_counted() {
        let told = |code| cause(&KafkaError::Global(code), "0/2 brokers are down").to_owned();
        assert_eq!(told(RDKafkaErrorCode::AllBrokersDown), "no broker can be reached");
        assert_eq!(told(RDKafkaErrorCode::Authentication), "0/2 brokers are down");
    }

    #[test]
    fn a_topic_that_is_made_anew_is_noted_by_its_name_and_one_that_is_seen_first_is_not() {
        let noted = MadeAnew::default();
        let context = Context::default().watching(&noted);
        let tell = |from: &str| {
            let message = format!("[thrd:main]: Topic divvy.submit.3 changed id from {from} to 5qIkZb3LTtCFOEKeWbMfCQ");
            context.log(RDKafkaLogLevel::Debug, "METADATA", &message);
            noted.take()
        };
        assert_eq!(tell("AAAAAAAAAAAAAAAAAAAAAA"), BTreeSet::new());
        assert_eq!(tell("CFOEKeWbMfCQ5qIkZb3LTt"), BTreeSet::from(["divvy.submit.3".to_owned()]));
        assert_eq!(noted.take(), BTreeSet::new());
    }

    #[test]
    fn a_broker_that_is_away_stops_the_intake_only_with_all_others() {
        let figures = Arc::new(Figures::default());
        let context = Context::of(&figures, Part::Intake);
        let errors = || figures.stats(0).errors.len();
        context.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "one:1: connection refused");
        assert_eq!(errors(), 0);
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        assert_eq!(errors(), 1);
        let is_passed = |code| is_of_one_broker(&KafkaError::MessageConsumption(code));
        assert!(is_passed(RDKafkaErrorCode::BrokerTransportFailure) && is_passed(RDKafkaErrorCode::Resolve));
        assert!(!is_passed(RDKafkaErrorCode::AllBrokersDown) && !is_passed(RDKafkaErrorCode::Authentication));
    }
}
