//! Gauges of Kafka, read when the metrics are collected.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use streams::Part;
use tokio::sync::watch;

use super::Kafka;

/// The metrics of Kafka.
#[derive(Debug)]
pub(super) struct KafkaGauges {
    pub(super) kafka: Arc<Kafka>,
    pub(super) latest_event: watch::Receiver<u64>,
}

impl Collector for KafkaGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let stats = self.kafka.stats(*self.latest_event.borrow());
        let unpublished = ConstGauge::new(stats.unpublished_events);
        let help = "Events that wait to be published to Kafka";
        let name = "divvy_kafka_unpublished_events";
        unpublished.encode(encoder.encode_descriptor(name, help, None, unpublished.metric_type())?)?;
        for (name, help, count) in [
            (
                "divvy_kafka_lost_events",
                "Events that were deleted before they were published, as this coordinator was the first to notice",
                self.kafka.newly_lost(),
            ),
            ("divvy_kafka_taken_records", "Records that became jobs, or repeated jobs", stats.records_taken),
            ("divvy_kafka_dead_records", "Records that were no jobs", stats.records_dead),
            (
                "divvy_kafka_refused_dead_letters",
                "Records that were no jobs and that the topic of dead letters did not take",
                stats.dead_letters_refused,
            ),
            ("divvy_kafka_missed_records", "Records that were deleted before they were read", stats.records_missed),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let help = "Whether a part cannot go on";
        let zero = ConstGauge::new(0_u64);
        let mut family = encoder.encode_descriptor("divvy_kafka_failing", help, None, zero.metric_type())?;
        for part in [Part::Outbox, Part::Roster, Part::Intake] {
            let is_failing = stats.errors.contains_key(part.as_str());
            ConstGauge::new(u64::from(is_failing)).encode(family.encode_family(&[("part", part.as_str())])?)?;
        }
        Ok(())
    }
}
