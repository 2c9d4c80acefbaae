//! Messages of librdkafka about itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
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
/// Silence after which librdkafka has told why no broker can be reached.
const TELLING: Duration = Duration::from_millis(50);
/// Most messages that are read for this.
const MAX_MESSAGES: usize = 100;

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
    /// Last message of the client about a single broker.
    broker: Arc<Mutex<Option<String>>>,
}

impl Context {
    pub(crate) fn of(figures: &Arc<Figures>, part: Part) -> Self {
        Self { figures: Some((Arc::clone(figures), part)), ..Self::default() }
    }

    /// Notes a topic that was made anew, before any of its records is read.
    pub(crate) fn watching(self, made_anew: &MadeAnew) -> Self {
        Self { made_anew: Some(made_anew.clone()), ..self }
    }

    pub(crate) fn watches_topics(&self) -> bool {
        self.made_anew.is_some()
    }

    fn note_broker(&self, message: &str) {
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
    }

    /// Says that no broker can be reached, and why not.
    fn unreachable(&self) -> String {
        unreachable(self.broker.lock().unwrap_or_else(PoisonError::into_inner).as_deref())
    }

    /// Forgets what was said about a broker: records are taken.
    fn forget_broker(&self) {
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Says why a record was not delivered. That its time is over says nothing of the cause, which a broker has told as a rule.
    fn undelivered(&self, error: &KafkaError) -> String {
        let broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        match broker.as_deref() {
            Some(broker) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) => {
                format!("a record was not delivered in time: {broker}")
            }
            _ => error.to_string(),
        }
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
        let is_of_all = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if is_of_login(&error) || is_of_one_broker(&error) {
            self.note_broker(reason);
        }
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
            // librdkafka counts brokers that it has forgotten meanwhile: "0/2 brokers are down".
            figures.failed(*part, &if is_of_all { self.unreachable() } else { reason.to_owned() });
        }
    }
}

/// Whether a broker cannot be reached, which says nothing of the others: librdkafka connects to it again by itself.
pub(crate) fn is_of_one_broker(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(error.rdkafka_error_code(), Some(BrokerTransportFailure | OperationTimedOut | Resolve))
}

/// Whether a broker does not take the client's name and password, or client and broker do not agree about TLS.
pub(crate) fn is_of_login(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Authentication, SSL};
    matches!(error.rdkafka_error_code(), Some(Authentication | SSL))
}

/// Says that no broker can be reached, with the last message about one.
pub(crate) fn unreachable(broker: Option<&str>) -> String {
    let why = broker.map_or_else(String::new, |broker| format!(": {broker}"));
    format!("no broker can be reached{why}")
}

/// Says why no broker has answered a consumer that reads nothing yet.
pub(crate) fn why_unreachable(consumer: &BaseConsumer<Context>) -> String {
    // The messages about brokers come out of the queue of records, before the records.
    let mut polls = 0..MAX_MESSAGES;
    while polls.next().is_some() && consumer.poll(TELLING).is_some() {}
    consumer.context().unreachable()
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
            Ok(_) => {
                self.forget_broker();
                figures.recovered_after(*part, QUIET);
            }
            Err((error, _)) => figures.failed(*part, &self.undelivered(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_all_away_are_not_counted_and_the_last_one_says_why() {
        let figures = Arc::new(Figures::default());
        let context = Context::of(&figures, Part::Outbox);
        let told = |code, reason| {
            context.error(KafkaError::Global(code), reason);
            figures.stats(0).errors["events"].clone()
        };
        assert_eq!(told(RDKafkaErrorCode::AllBrokersDown, "0/2 brokers are down"), "no broker can be reached");
        assert_eq!(told(RDKafkaErrorCode::Authentication, "one:1: wrong password"), "one:1: wrong password");
        let why = "no broker can be reached: one:1: wrong password";
        assert_eq!(told(RDKafkaErrorCode::AllBrokersDown, "1/2 brokers are down"), why);
    }

    #[test]
    fn a_record_whose_time_is_over_is_told_with_what_the_last_broker_has_said() {
        let context = Context::of(&Arc::new(Figures::default()), Part::Roster);
        let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        assert_eq!(context.undelivered(&late), late.to_string());
        context.error(KafkaError::Global(RDKafkaErrorCode::Authentication), "one:1: wrong password");
        assert_eq!(context.undelivered(&late), "a record was not delivered in time: one:1: wrong password");
        let refused = KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(context.undelivered(&refused), refused.to_string());
        context.forget_broker();
        assert_eq!(context.undelivered(&late), late.to_string(), "it was long ago");
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
