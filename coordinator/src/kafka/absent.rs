//! Stands in for Kafka in a service that was built without it.

use std::future::Ready;
use std::sync::Arc;

use anyhow::ensure;
use api::KafkaStats;
use prometheus_client::registry::Registry;
use store::Store;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::term::Term;
use crate::workers::Workers;

/// No value exists: the service has no Kafka.
#[derive(Debug)]
pub(crate) enum Kafka {}

impl Kafka {
    pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
        ensure!(
            config.kafka_brokers.is_empty(),
            "DIVVY_KAFKA_BROKERS is set, but this was built without Kafka: build it with `--features kafka`"
        );
        Ok(())
    }

    pub(crate) fn from_config(config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        Self::check(config).map(|()| None)
    }

    pub(crate) fn register(self: &Arc<Self>, _: &mut Registry, _: &Arc<Store>) {
        match **self {}
    }

    pub(crate) fn stats(&self, _: u64) -> KafkaStats {
        match *self {}
    }

    pub(crate) fn start(&self, _: &mut JoinSet<()>, _: &Term, _: &Arc<Workers>) -> Ready<anyhow::Result<()>> {
        match *self {}
    }
}
