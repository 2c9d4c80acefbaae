//! Publishes the workers' state each second, each record keyed by its worker. State that cannot be sent is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::WorkerStatus;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord};

use crate::client::Context;
use crate::figures::{Figures, Part};
use crate::settings::Settings;
use crate::thread::Stop;

/// Interval at which the workers are published.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time of failures after which the producer is made anew: librdkafka may keep to a broker that no longer leads a partition.
const RENEWAL: Duration = Duration::from_mins(2);

/// Most records of a batch.
const TOGETHER: u32 = 10_000;

/// Publishes the workers' state.
pub struct Roster {
    /// The brokers that the state is published to.
    pub settings: Settings,
    /// The workers as they are now.
    pub workers: Box<dyn Fn() -> Vec<WorkerStatus> + Send>,
    /// Counts of the roster's work.
    pub figures: Arc<Figures>,
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roster").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Roster {
    /// Publishes until `stop` is set.
    pub fn run(self, stop: &Stop) {
        while stop.wait_to_act() {
            if let Err(error) = self.session(stop) {
                self.figures.failed(Part::Roster, &error.to_string());
                stop.sleep(INTERVAL);
            }
        }
        self.figures.ended(Part::Roster);
    }

    /// The last moment without failures: now, or as `before`.
    fn worked_at(&self, before: Instant) -> Instant {
        if self.figures.is_failing(Part::Roster) { before } else { Instant::now() }
    }

    /// Publishes until it may not act, or is to go on with another producer: unsent records are dropped with the producer.
    fn session(&self, stop: &Stop) -> Result<(), KafkaError> {
        let producer: BaseProducer<Context> =
            self.settings.producer(Context::of(&self.figures, Part::Roster), TOGETHER)?;
        let topic = self.settings.topics().workers();
        let (mut next, mut worked_at) = (Instant::now(), Instant::now());
        while stop.may_act() && worked_at.elapsed() < RENEWAL {
            worked_at = self.worked_at(worked_at);
            let workers = (self.workers)();
            if workers.is_empty() {
                self.figures.recovered(Part::Roster);
            }
            for worker in workers {
                if !stop.may_act() {
                    return Ok(());
                }
                let value = serde_json::to_string(&worker).expect("a state is JSON");
                let record = BaseRecord::to(&topic).key(worker.id.as_str()).payload(value.as_str());
                if let Err((error, _)) = producer.send(record) {
                    self.figures.failed(Part::Roster, &error.to_string());
                    break;
                }
            }
            next = (next + INTERVAL).max(Instant::now());
            while stop.may_act() && Instant::now() < next {
                producer.poll(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_of_its_own_brings_the_renewal_of_its_producer_nearer() {
        let settings = Settings::parse("one:1", "").expect("valid");
        let figures = Arc::new(Figures::default());
        let workers = Box::new(Vec::<WorkerStatus>::new);
        let roster = Roster { settings, workers, figures: Arc::clone(&figures) };
        // A moment that no clock shows yet.
        let before = Instant::now() + Duration::from_hours(1);
        figures.failed(Part::Intake, "a topic is not there");
        assert!(roster.worked_at(before) < before, "another part fails");
        figures.failed(Part::Roster, "a record was not delivered");
        assert_eq!(roster.worked_at(before), before);
        figures.recovered(Part::Roster);
        assert!(roster.worked_at(before) < before);
    }
}
