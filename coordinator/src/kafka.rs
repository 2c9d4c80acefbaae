//! Kafka, where the service was built with the feature `kafka` and `DIVVY_KAFKA_BROKERS` is set.

use std::fmt;

use serde::Deserialize;

#[cfg(not(feature = "kafka"))]
mod absent;
#[cfg(feature = "kafka")]
mod acceptor;
#[cfg(feature = "kafka")]
mod gauges;
#[cfg(feature = "kafka")]
mod present;

#[cfg(not(feature = "kafka"))]
pub(crate) use absent::Kafka;
#[cfg(feature = "kafka")]
pub(crate) use present::Kafka;

/// The settings as `key=value,…`, which may hold secrets and are never shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct KafkaConfig(String);

impl KafkaConfig {
    #[cfg(feature = "kafka")]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "KafkaConfig()" } else { "KafkaConfig(…)" })
    }
}
