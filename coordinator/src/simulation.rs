//! Simulated workers: they fetch tasks as any worker does and sleep, so that a grid can be tried out without one. The
//! number of tasks under way is bounded by them as by real ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{JobKind, Labels, Requirements, Resources, WorkerId};
use scheduler::{Failure, Outcome, WorkerSpec};
use uuid::Uuid;

use crate::grid::{Fetched, Grid, LeaseEnd, Revoked};
use crate::plan::Plan;

/// The label that binds simulated workers and jobs together.
const LABEL: &str = "divvy.simulation";

/// Workers that exist for some jobs only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated(Uuid);

/// Whether a job is for simulated workers, which end with their coordinator.
pub(crate) fn is_simulated(requires: &Requirements) -> bool {
    requires.labels.contains_key(LABEL)
}

impl Simulated {
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// What a job must require to get these workers and no others.
    pub(crate) fn labels(self) -> Labels {
        Labels::from([(LABEL.to_owned(), self.0.to_string())])
    }

    /// Starts the workers; they leave when `is_over` says that nothing is left for them.
    pub(crate) fn start<F>(self, grid: &Arc<Grid>, workers: u32, is_over: F)
    where
        F: Fn() -> bool + Clone + Send + 'static,
    {
        for number in 1..=workers {
            let (grid, is_over, labels) = (Arc::clone(grid), is_over.clone(), self.labels());
            let name = format!("simulated-{}-{number}", self.0.simple());
            let id = WorkerId::try_from(name).expect("letters, digits and dashes");
            tokio::spawn(async move {
                let key = grid.next_worker_key();
                let (kinds, resources) = (vec![JobKind::Sleep], Resources::default());
                grid.worker_joined(key, id, WorkerSpec { slots: 1, kinds, labels, resources, is_reserved: true });
                while !is_over() {
                    let more = grid.work_to_fetch();
                    tokio::pin!(more);
                    more.as_mut().enable();
                    match grid.fetch_revocable(key) {
                        Some((fetched, revoked)) => run(&grid, fetched, revoked).await,
                        // The end of the last job wakes nobody.
                        None => drop(tokio::time::timeout(LONGEST_WAIT, more).await),
                    }
                }
                grid.worker_lost(key);
            });
        }
    }
}

/// How late a simulated worker notices that nothing is left.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

async fn run(grid: &Grid, fetched: Fetched, revoked: Revoked) {
    let Plan::Sleep(params) = fetched.plan else { return };
    let started_at = Instant::now();
    let work = tokio::time::sleep(Duration::try_from_secs_f64(params.seconds).unwrap_or_default());
    tokio::select! {
        () = work => (),
        Ok(()) = revoked => return,
    }
    let end = if fastrand::f64() < params.fail_rate {
        LeaseEnd::Failed(Failure::Refused("it failed, as simulated work does at times".to_owned()))
    } else {
        LeaseEnd::Completed(Outcome { value: 0, busy: started_at.elapsed() })
    };
    // An attempt that lost its lease meanwhile changes nothing.
    let _ = grid.report(fetched.attempt, end, Vec::new());
}
