//! Lets the process that holds a coordinator see its jobs.

use std::sync::{Arc, Weak};

use api::JobProgress;
use engine::Engine;
use model::TaskCounts;

use crate::job_view;
use crate::role::Role;
use crate::term::Term;

/// Watches the jobs of coordinators in the same process, without keeping the coordinators alive.
#[derive(Clone, Debug, Default)]
pub struct JobWatch(Vec<Weak<Role>>);

impl JobWatch {
    pub(crate) fn of(role: &Arc<Role>) -> Self {
        Self(vec![Arc::downgrade(role)])
    }

    /// The task counts and the progress of every job; empty while no coordinator leads.
    #[must_use]
    pub fn progress(&self) -> Vec<(TaskCounts, JobProgress)> {
        let jobs = self.term().map_or_else(Vec::new, |term| term.driver.view(Engine::progress));
        jobs.into_iter().map(|job| (job.counts, job_view::progress(&job))).collect()
    }

    /// Whether a client waits for the answer of a job that is not stored, as those of `GET /sum-of-primes` do.
    #[must_use]
    pub fn has_waiting_clients(&self) -> bool {
        self.term().is_some_and(|term| term.driver.view(Engine::has_waiting_clients))
    }

    fn term(&self) -> Option<Arc<Term>> {
        self.0.iter().find_map(|role| role.upgrade().and_then(|role| role.term()))
    }

    /// Watches the coordinators of `other` too.
    pub fn add(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }
}
