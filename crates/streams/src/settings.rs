//! Addresses of the brokers, and settings of librdkafka beside those of the parts.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, ProducerContext};

use crate::client::Context;
use crate::topics::{MAX_PREFIX_LENGTH, Topics};

/// Settings on which the guarantees of the parts depend, by all their names.
const RESERVED: [&str; 18] = [
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "test.mock.num.brokers",
    "transactional.id",
];
/// Other names of settings that the parts have a value for. librdkafka takes the last value of two names.
const OTHER_NAMES: [(&str, &str); 2] =
    [("compression.codec", "compression.type"), ("linger.ms", "queue.buffering.max.ms")];
/// Longest interval of the search for added topics and partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The setting of librdkafka for this interval.
const REFRESH_INTERVAL: &str = "topic.metadata.refresh.interval.ms";
/// The protocols that the address of a broker may begin with.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
/// The setting of librdkafka for the protocol of all brokers, and its default.
const PROTOCOL: (&str, &str) = ("security.protocol", "plaintext");
/// Parts of the names of settings whose values are secret.
const SECRET: [&str; 5] = ["password", "secret", "pem", "sasl.oauthbearer.config", "username"];

/// Address of Kafka and settings of its clients.
#[derive(Clone)]
pub struct Settings {
    brokers: String,
    extra: Vec<(String, String)>,
    topics: Topics,
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The text is not a list of `host:port`.
    #[error("{0:?} is not a broker: give host:port, several separated by commas")]
    Broker(String),
    /// The broker's address begins with another protocol than is set. librdkafka would leave it and those behind it out.
    #[error("broker {0:?} names another protocol than the setting security.protocol, which is {1}")]
    Protocol(String, String),
    /// The text is not a list of `key=value`.
    #[error("setting {0} has no value: give key=value, several separated by commas, a comma in a value as \\,")]
    NoValue(usize),
    /// No topic can have a name with this prefix.
    #[error(
        "topics cannot begin with {0:?}: give 1 to {MAX_PREFIX_LENGTH} letters, digits, dots, hyphens and underscores"
    )]
    Prefix(String),
    /// The setting is divvy's alone.
    #[error("{0} is set by divvy")]
    Reserved(String),
    /// librdkafka does not know the setting, or refuses its value.
    #[error("{0}")]
    Refused(String),
}

impl fmt::Debug for Settings {
    /// Shows only the names of settings whose value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value): &(String, String)| {
            if is_secret(key) { format!("{key}=…") } else { format!("{key}={value}") }
        };
        let extra: Vec<_> = self.extra.iter().map(shown).collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("extra", &extra)
            .finish()
    }
}

fn is_secret(key: &str) -> bool {
    SECRET.iter().any(|secret| key.contains(secret))
}

impl Settings {
    /// Reads `host:port,…` and `key=value,…` as [`Self::read`] does and lets librdkafka check them: files of certificates are
    /// read, no broker is asked.
    ///
    /// # Errors
    /// See [`InvalidSettings`]; no message holds a secret.
    pub fn parse(brokers: &str, config: &str) -> Result<Self, InvalidSettings> {
        let settings = Self::read(brokers, config)?;
        let refused = |error: KafkaError| InvalidSettings::Refused(settings.describe(&error));
        // Some combinations are refused only when a client is made, and not for each kind of client.
        settings.ordered_producer(Context::default()).map_err(refused)?;
        settings.producer(Context::default(), 1).map_err(refused)?;
        settings.consumer("divvy-check", Context::default()).map_err(refused)?;
        settings.follower(None, Context::default()).map_err(refused)?;
        Ok(settings)
    }

    /// Reads `host:port,…` and `key=value,…`, without librdkafka and so without the files that they name.
    ///
    /// # Errors
    /// See [`InvalidSettings`]; no message holds a secret.
    pub fn read(brokers: &str, config: &str) -> Result<Self, InvalidSettings> {
        let brokers: Vec<_> = brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()).collect();
        if let Some(wrong) = brokers.iter().find(|broker| !is_broker(broker)) {
            return Err(InvalidSettings::Broker((*wrong).to_owned()));
        }
        if brokers.is_empty() {
            return Err(InvalidSettings::Broker(String::new()));
        }
        let extra = pairs(config)?;
        if let Some((key, _)) = extra.iter().find(|(key, _)| RESERVED.contains(&key.as_str())) {
            return Err(InvalidSettings::Reserved(key.clone()));
        }
        let set = extra.iter().rfind(|(key, _)| key == PROTOCOL.0).map_or(PROTOCOL.1, |(_, value)| value.as_str());
        let is_other = |broker: &&&str| protocol_of(broker).is_some_and(|named| !named.eq_ignore_ascii_case(set));
        if let Some(other) = brokers.iter().find(is_other) {
            return Err(InvalidSettings::Protocol((*other).to_owned(), set.to_owned()));
        }
        Ok(Self { brokers: brokers.join(","), extra, topics: Topics::default() })
    }

    fn describe(&self, error: &KafkaError) -> String {
        if let KafkaError::ClientConfig(_, description, key, _) = error {
            return if is_secret(key) { format!("{key} is not as it must be") } else { description.trim().to_owned() };
        }
        let text = error.to_string();
        // An error may repeat a value, such as the name of a file that cannot be read.
        let is_shown = |(key, value): &(String, String)| is_secret(key) && !value.is_empty() && text.contains(value);
        if self.extra.iter().any(is_shown) {
            return "librdkafka refuses a client with these settings".to_owned();
        }
        text
    }

    /// The settings with topics whose names begin with `prefix` instead of `divvy`.
    ///
    /// # Errors
    /// Kafka allows no such names.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, InvalidSettings> {
        let topics = Topics::with_prefix(prefix).ok_or_else(|| InvalidSettings::Prefix(prefix.to_owned()))?;
        Ok(Self { topics, ..self })
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Interval of the search for added topics and partitions: the interval that librdkafka is set to, if that is shorter than
    /// its default.
    pub(crate) fn look_interval(&self) -> Duration {
        let mut values = self.extra.iter().filter(|(key, _)| key == REFRESH_INTERVAL).map(|(_, value)| value.parse());
        let told = values.next_back().and_then(Result::ok).filter(|millis| *millis > 0).map(Duration::from_millis);
        told.map_or(LOOK_INTERVAL, |told| told.min(LOOK_INTERVAL))
    }

    /// The brokers, as `host:port,…`.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "divvy").set("log.connection.close", "false");
        // Lost answers on a connection that stays open are waited for as long.
        config.set("socket.timeout.ms", "20000");
        config.set("reconnect.backoff.max.ms", "2000").set(REFRESH_INTERVAL, "30000");
        let is_given = |name: &str| self.extra.iter().any(|(key, _)| key == name);
        let is_given_otherwise = |key: &str| OTHER_NAMES.iter().any(|(name, other)| *name == key && is_given(other));
        for (key, value) in own.iter().filter(|(key, _)| !is_given_otherwise(key)) {
            config.set(*key, *value);
        }
        for (key, value) in &self.extra {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers).set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// A producer of records none of which may be missing and each partition of which has its order: a record that fails for good
    /// ends the producer before any later record is sent.
    pub(crate) fn ordered_producer<C: ProducerContext>(&self, context: C) -> Result<BaseProducer<C>, KafkaError> {
        let mut config = self.client(&[
            ("compression.codec", "lz4"),
            ("linger.ms", "5"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
        ]);
        config.set("enable.idempotence", "true").set("enable.gapless.guarantee", "true");
        // A broker that does not know the producer of a partition takes any number of a first batch. If it refuses a batch and
        // takes the next one that is under way too, librdkafka counts both as delivered.
        config.set("max.in.flight", "1");
        // Without an end, a record that was not sent in time would leave a gap.
        config.set("message.timeout.ms", "0").set("partitioner", "murmur2_random");
        config.create_with_context(context)
    }

    /// A producer of records that may be lost when Kafka is away for long. At most `together` records are in a batch.
    pub(crate) fn producer<C: ProducerContext>(
        &self,
        context: C,
        together: u32,
    ) -> Result<BaseProducer<C>, KafkaError> {
        self.producer_config(together).create_with_context(context)
    }

    fn producer_config(&self, together: u32) -> ClientConfig {
        let mut config = self.client(&[
            ("compression.codec", "lz4"),
            ("linger.ms", "20"),
            // The broker decides the largest size of a record.
            ("message.max.bytes", "104857600"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "131072"),
        ]);
        config.set("message.timeout.ms", "10000").set("partitioner", "murmur2_random");
        // Set after the settings from outside: a broker refuses a record that is too large together with the others of its batch.
        config.set("batch.num.messages", together.to_string());
        config
    }

    /// A consumer without stored offsets.
    pub(crate) fn consumer(&self, group: &str, context: Context) -> Result<BaseConsumer<Context>, KafkaError> {
        create_consumer(&mut self.consumer_config(group), context)
    }

    /// A consumer without stored offsets that tells the ends of partitions.
    pub(crate) fn ending_consumer(&self, group: &str) -> Result<BaseConsumer<Context>, KafkaError> {
        self.consumer_config(group).set("enable.partition.eof", "true").create_with_context(Context::default())
    }

    fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = self.client(&[
            ("allow.auto.create.topics", "false"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
            ("queued.max.messages.kbytes", "65536"),
            ("max.poll.interval.ms", "86400000"),
        ]);
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config
    }

    /// A consumer for a person, in a group where one is given. It reads a partition without a place from the start.
    pub(crate) fn follower(&self, group: Option<&str>, context: Context) -> Result<BaseConsumer<Context>, KafkaError> {
        let mut config = self.client(&[
            ("allow.auto.create.topics", "false"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "100"),
        ]);
        config.set("group.id", group.unwrap_or("divvy-monitor")).set("auto.offset.reset", "earliest");
        config.set("enable.auto.commit", if group.is_some() { "true" } else { "false" });
        // While it is closed, a consumer takes further records, which nobody reads.
        config.set("enable.auto.offset.store", "false").set("enable.partition.eof", "true");
        create_consumer(&mut config, context)
    }
}

fn create_consumer(config: &mut ClientConfig, context: Context) -> Result<BaseConsumer<Context>, KafkaError> {
    if context.watches_topics() {
        // Only librdkafka's log shows that a topic was made anew.
        let debug = config.get("debug").map_or_else(|| "topic".to_owned(), |debug| format!("{debug},topic"));
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    }
    config.create_with_context(context)
}

/// The protocol that the address of a broker begins with.
fn protocol_of(broker: &str) -> Option<&str> {
    broker.split_once("://").map(|(protocol, _)| protocol)
}

fn is_broker(broker: &str) -> bool {
    let is_known = |protocol: &str| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol));
    let address = broker.split_once("://").map_or(broker, |(_, address)| address);
    protocol_of(broker).is_none_or(is_known)
        && address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `key=value,…`, with `\,` for a comma in a value.
fn pairs(config: &str) -> Result<Vec<(String, String)>, InvalidSettings> {
    let mut parts = vec![String::new()];
    let mut characters = config.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&',') => {
                characters.next();
                parts.last_mut().map(|part| part.push(',')).unwrap_or_default();
            }
            ',' => parts.push(String::new()),
            other => parts.last_mut().map(|part| part.push(other)).unwrap_or_default(),
        }
    }
    let mut pairs = Vec::new();
    for (place, part) in parts.iter().enumerate().filter(|(_, part)| !part.trim().is_empty()) {
        let (key, value) = part.split_once('=').ok_or(InvalidSettings::NoValue(place + 1))?;
        pairs.push((key.trim().to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_and_settings_are_checked_before_any_broker_is_asked() {
        let settings =
            Settings::parse("one:9092, two:9093", r"sasl.password=a\,b=c,socket.timeout.ms=5000").expect("valid");
        assert_eq!(settings.brokers(), "one:9092,two:9093");
        assert_eq!(settings.extra[0], ("sasl.password".to_owned(), "a,b=c".to_owned()));
        for brokers in ["", "one", "one:", ":9092", "one:0", "one:9092,two"] {
            assert!(matches!(Settings::parse(brokers, ""), Err(InvalidSettings::Broker(_))), "{brokers}");
        }
        assert_eq!(Settings::parse("one:1", "a=b,c").err(), Some(InvalidSettings::NoValue(2)));
        for name in RESERVED {
            let reserved = Settings::parse("one:1", &format!("{name}=1")).err();
            assert_eq!(reserved, Some(InvalidSettings::Reserved(name.to_owned())));
        }
        for config in
            ["no.such.setting=1", "socket.timeout.ms=soon", "security.protocol=ssl,ssl.ca.location=/no/such/file"]
        {
            assert!(matches!(Settings::parse("one:1", config), Err(InvalidSettings::Refused(_))), "{config}");
        }
    }

    #[test]
    fn a_broker_that_librdkafka_would_leave_out_for_its_protocol_is_refused() {
        for (brokers, config) in [
            ("plaintext://one:1,two:1", ""),
            ("SSL://one:1,ssl://two:1", "security.protocol=ssl"),
            ("one:1", "security.protocol=ssl"),
        ] {
            assert!(Settings::read(brokers, config).is_ok(), "{brokers}");
        }
        for brokers in ["kafka://one:1", "one:1,http://two:1", "://one:1"] {
            assert!(matches!(Settings::read(brokers, ""), Err(InvalidSettings::Broker(_))), "{brokers}");
        }
        for (brokers, config, set) in
            [("one:1,ssl://two:1", "", "plaintext"), ("ssl://two:1", "security.protocol=sasl_ssl", "sasl_ssl")]
        {
            let refused = InvalidSettings::Protocol("ssl://two:1".to_owned(), set.to_owned());
            assert_eq!(Settings::read(brokers, config).err(), Some(refused));
        }
    }

    #[test]
    fn settings_that_would_lose_or_reorder_events_are_refused_by_each_of_their_names() {
        for config in
            ["acks=1", "request.required.acks=0", "retries=0", "message.send.max.retries=0", "queuing.strategy=lifo"]
        {
            assert!(matches!(Settings::parse("one:1", config), Err(InvalidSettings::Refused(_))), "{config}");
        }
        for config in ["acks=all", "retries=100", "linger.ms=50", "compression.type=zstd"] {
            assert!(Settings::parse("one:1", config).is_ok(), "{config}");
        }
    }

    #[test]
    fn records_that_go_alone_do_so_whatever_is_set_for_batches() {
        let settings = Settings::parse("one:1", "batch.num.messages=5000,linger.ms=50").expect("valid");
        let config = settings.producer_config(1);
        assert_eq!((config.get("batch.num.messages"), config.get("linger.ms")), (Some("1"), Some("50")));
    }

    #[test]
    fn a_setting_counts_by_each_of_its_names() {
        let config = |config| Settings::parse("one:1", config).expect("valid").producer_config(1);
        let named = config("compression.type=zstd,queue.buffering.max.ms=50");
        assert_eq!((named.get("compression.codec"), named.get("linger.ms")), (None, None));
        assert_eq!(named.get("compression.type"), Some("zstd"));
        assert_eq!(config("").get("compression.codec"), Some("lz4"));
    }

    #[test]
    fn partitions_are_looked_for_as_often_as_librdkafka_is_told_to_but_not_more_seldom_than_by_default() {
        let told = |millis: &str| format!("{REFRESH_INTERVAL}={millis}");
        for (config, millis) in
            [(String::new(), 10_000), (told("500"), 500), (told("-1"), 10_000), (told("60000"), 10_000)]
        {
            let settings = Settings::parse("one:1", &config).expect("valid");
            assert_eq!(settings.look_interval(), Duration::from_millis(millis), "{config}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = "sasl.username=me,sasl.password=hunter2,security.protocol=sasl_ssl,sasl.mechanism=PLAIN";
        let settings = Settings::parse("one:1", config).expect("valid");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("sasl_ssl"), "{shown}");
        let error = Settings::parse("one:1", "security.protocol=ssl,ssl.key.pem=hunter2").expect_err("no key");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
