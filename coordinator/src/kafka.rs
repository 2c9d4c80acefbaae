//! Kafka, where the service was built with the feature `kafka` and `DIVVY_KAFKA_BROKERS` is set.

use std::fmt;

use serde::Deserialize;
use store::{OUTBOX, Store};
use tracing::warn;

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

/// Warns where events of this store were published to Kafka, for a term that publishes none.
pub(crate) async fn warn_of_absence(store: &Store) {
    match store.positions().await {
        Ok(positions) if positions.iter().any(|(stream, _)| stream == OUTBOX) => {
            warn!(
                "events of this store were published to Kafka, but DIVVY_KAFKA_BROKERS is not set here: while this \
                 coordinator leads, no event is published and no job is taken from a topic"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot read whether events were published to Kafka"),
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "KafkaConfig()" } else { "KafkaConfig(…)" })
    }
}
