//! Keeps the deletion cost of the worker's own pod at the number of its busy slots, so that Kubernetes takes idle workers
//! away first when there are to be fewer. Best effort, aside from all work.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use service::kubernetes::{ApiServer, PodName};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::Config;
use crate::executor::Executor;

const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Interval between checks of the slots.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time that slots must stay idle before the cost falls: between two leases a slot is idle for a moment.
const LINGER: Duration = Duration::from_secs(5);

/// Shortest interval between changes of the pod: the API server serves all workers of the cluster.
const LEAST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause while the API server refuses or does not answer; it doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The task that keeps the cost up to date. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct DeletionCost(JoinHandle<()>);

impl DeletionCost {
    /// Starts where the configuration names the pod.
    pub(crate) fn start_if_asked(config: &Config, executor: &Arc<Executor>) -> anyhow::Result<Option<Self>> {
        let Some(pod) = config.deletion_cost_pod.clone() else { return Ok(None) };
        let server = ApiServer::of_cluster(&config.kubernetes_account_dir);
        let server = server.context("prepare to keep the pod's deletion cost (DIVVY_DELETION_COST_POD)")?;
        Ok(Some(Self(tokio::spawn(run(server, pod, Arc::clone(executor))))))
    }
}

impl Drop for DeletionCost {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(server: ApiServer, pod: PodName, executor: Arc<Executor>) {
    let mut pace = Pace::new(Instant::now());
    loop {
        if let Some(cost) = pace.due(executor.running(), Instant::now()) {
            match server.annotate_pod(&pod, ANNOTATION, &cost.to_string()).await {
                Ok(()) => {
                    if pace.failures > 0 {
                        info!("the pod's deletion cost is kept again");
                    }
                    pace.written(cost, Instant::now());
                }
                Err(error) => {
                    if pace.failures == 0 {
                        let error = format!("{:#}", anyhow::Error::new(error));
                        warn!(error, "the pod's deletion cost cannot be kept: busy workers may be taken away first");
                    }
                    pace.failed(Instant::now());
                }
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Decides which cost is written, and when.
#[derive(Debug)]
struct Pace {
    /// `None` while nothing was written: an earlier run of the container may have left a cost.
    written: Option<u32>,
    /// The highest number of slots that were busy lately.
    cost: u32,
    falls_at: Instant,
    not_before: Instant,
    failures: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { written: None, cost: 0, falls_at: now, not_before: now, failures: 0 }
    }

    /// The cost to write now; `None` while no write is due.
    fn due(&mut self, busy: u32, now: Instant) -> Option<u32> {
        if busy >= self.cost || now >= self.falls_at {
            (self.cost, self.falls_at) = (busy, now + LINGER);
        }
        (self.written != Some(self.cost) && now >= self.not_before).then_some(self.cost)
    }

    fn written(&mut self, cost: u32, now: Instant) {
        (self.written, self.failures) = (Some(cost), 0);
        self.not_before = now + LEAST_PAUSE;
    }

    /// Doubling pauses, less a random part so that workers do not come back in step.
    fn failed(&mut self, now: Instant) {
        let pause = LEAST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_gets_busy_counts_at_once_and_an_idle_one_once_it_stays_idle() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        assert_eq!(pace.due(0, at(0)), Some(0), "an earlier run may have left another cost");
        pace.written(0, at(0));
        assert_eq!(pace.due(1, at(1)), None, "the pod was changed a second ago");
        assert_eq!(pace.due(1, at(10)), Some(1));
        pace.written(1, at(10));
        // Idle for a moment between two leases.
        assert_eq!((pace.due(0, at(12)), pace.due(1, at(13)), pace.due(0, at(17))), (None, None, None));
        assert_eq!(pace.due(1, at(25)), None);
        assert_eq!((pace.due(0, at(26)), pace.due(0, at(29))), (None, None));
        assert_eq!(pace.due(0, at(30)), Some(0));
    }

    #[test]
    fn an_api_server_that_refuses_is_asked_more_and_more_seldom() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for (failures, most) in [(1, 10), (2, 20), (3, 40), (6, 300), (1_000, 300)] {
            while pace.failures < failures {
                pace.failed(start);
            }
            let (most, pause) = (Duration::from_secs(most), pace.not_before - start);
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
        assert_eq!(pace.due(0, start), None);
        pace.written(0, start);
        assert_eq!(pace.not_before, start + LEAST_PAUSE);
    }
}
