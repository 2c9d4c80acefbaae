//! Why a job's tasks wait.

use model::{JobId, Requirements};

use crate::event::WaitReason;
use crate::pool::Worker;
use crate::scheduler::Scheduler;

impl Scheduler {
    /// Why tasks of a job wait, or that they do not; nothing for a job that is over.
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<WaitReason> {
        let job = self.job(id)?;
        if job.is_paused {
            return Some(WaitReason::Paused);
        }
        let counts = job.counts();
        let slots = self.pool().slots_for(job.class);
        if self.pool().slots() == 0 {
            return Some(WaitReason::NoWorker);
        }
        if slots == 0 {
            return Some(self.no_match(job.spec.kind, &job.spec.requires));
        }
        if counts.running > 0 || counts.pending == 0 {
            return Some(WaitReason::Running { running: counts.running, pending: counts.pending });
        }
        let is_ahead = |other: &JobId| self.job(*other).is_some_and(|other| other.spec.priority >= job.spec.priority);
        let ahead = self.queue().jobs().filter(|other| *other != id).filter(is_ahead).count();
        Some(WaitReason::Busy { slots, ahead })
    }

    /// What keeps every worker that is ready now from running such a job; nothing if one could.
    #[must_use]
    pub fn mismatch(&self, kind: model::JobKind, requires: &Requirements) -> Option<WaitReason> {
        if self.pool().slots() == 0 {
            return Some(WaitReason::NoWorker);
        }
        let is_served = self.pool().iter_active().any(|worker| worker.spec.matches(kind, requires));
        (!is_served).then(|| self.no_match(kind, requires))
    }

    fn no_match(&self, kind: model::JobKind, requires: &Requirements) -> WaitReason {
        let workers: Vec<_> = self.pool().iter_active().filter(|worker| !worker.spec.is_reserved).collect();
        let runs_it = |worker: &&&Worker| worker.spec.kinds.contains(&kind);
        let lacking = workers.iter().filter(runs_it).map(|worker| missing(worker, requires));
        let missing =
            lacking.min_by_key(Vec::len).map_or_else(|| format!("no worker runs {kind}"), |nearest| nearest.join(", "));
        WaitReason::NoMatch { workers: workers.len(), kind, missing }
    }
}

fn missing(worker: &Worker, requires: &Requirements) -> Vec<String> {
    let has = |key: &String, value: &String| worker.spec.labels.get(key) == Some(value);
    let labels = requires.labels.iter().filter(|(key, value)| !has(key, value));
    let mut missing: Vec<_> = labels.map(|(key, value)| format!("the label {key}={value}")).collect();
    if let Some(cpus) = requires.cpus.filter(|cpus| *cpus > worker.spec.resources.cpus) {
        missing.push(format!("{cpus} cores"));
    }
    if let Some(bytes) = requires.memory_bytes.filter(|bytes| *bytes > worker.spec.resources.memory_bytes) {
        missing.push(format!("{bytes} bytes of memory"));
    }
    missing
}
