//! Limits of the wait for a first worker, by class: a class with a worker costs nothing, and all jobs of a class with equal
//! limits cost one timer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::JobId;

use crate::id_map::IdMap;
use crate::queue::ClassId;

#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// The waiting jobs by their limit, each with the start of its wait.
    waits: IdMap<ClassId, BTreeMap<Duration, BTreeSet<(Instant, JobId)>>>,
    /// For each class without a worker, the instant at which its first job gives up.
    due: BTreeSet<(Instant, ClassId)>,
    due_at: IdMap<ClassId, Instant>,
}

impl Patience {
    pub(crate) fn insert(&mut self, class: ClassId, wait: Duration, since: Instant, job: JobId) {
        self.waits.entry(class).or_default().entry(wait).or_default().insert((since, job));
    }

    pub(crate) fn remove(&mut self, class: ClassId, wait: Duration, since: Instant, job: JobId) {
        let Some(waits) = self.waits.get_mut(&class) else { return };
        if let Some(jobs) = waits.get_mut(&wait) {
            jobs.remove(&(since, job));
            if jobs.is_empty() {
                waits.remove(&wait);
            }
        }
        if waits.is_empty() {
            self.waits.remove(&class);
        }
    }

    /// Sets the class's timer; the class has no worker since `unserved_since`.
    pub(crate) fn rearm(&mut self, class: ClassId, unserved_since: Option<Instant>) {
        let due_at = unserved_since.and_then(|unserved| self.first(class, unserved)).map(|(due_at, ..)| due_at);
        if let Some(before) = self.due_at.remove(&class) {
            self.due.remove(&(before, class));
        }
        if let Some(due_at) = due_at {
            self.due_at.insert(class, due_at);
            self.due.insert((due_at, class));
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due_at, _)| *due_at)
    }

    /// The first class whose timer is due.
    pub(crate) fn due_class(&self, now: Instant) -> Option<ClassId> {
        self.due.first().filter(|(due_at, _)| *due_at <= now).map(|(_, class)| *class)
    }

    /// The job of a class that gives up first: the instant, the job, and its limit.
    pub(crate) fn first(&self, class: ClassId, unserved_since: Instant) -> Option<(Instant, JobId, Duration)> {
        let waits = self.waits.get(&class)?;
        let firsts = waits.iter().filter_map(|(wait, jobs)| jobs.first().map(|(since, job)| (wait, since, job)));
        firsts.map(|(wait, since, job)| ((*since).max(unserved_since) + *wait, *job, *wait)).min()
    }
}
