//! Explains why a job's tasks wait.

use model::{JobId, Requirements, program_ability};

use crate::abilities::Ability;
use crate::event::WaitReason;
use crate::scheduler::Scheduler;

impl Scheduler {
    /// The reason why tasks of a job wait, or that they run; `None` for a job that is over.
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<WaitReason> {
        let job = self.job(id)?;
        if job.is_paused {
            return Some(WaitReason::Paused);
        }
        let counts = job.counts();
        let slots = self.workers().slots_for(job.class);
        if self.workers().slots() == 0 {
            return Some(WaitReason::NoWorker);
        }
        if slots == 0 {
            return Some(self.no_match(job.spec.kind, &job.spec.requires));
        }
        if counts.running > 0 {
            return Some(WaitReason::Running { running: counts.running, pending: counts.pending });
        }
        if job.is_held {
            return Some(WaitReason::Recovering);
        }
        // The job itself is among them.
        let ahead = self.queue().jobs_from(job.spec.priority.get()).saturating_sub(1);
        Some(WaitReason::Busy { slots, busy: self.workers().busy_for(job.class), ahead })
    }

    /// The reason why no ready worker can run such a job; `None` if some worker can.
    #[must_use]
    pub fn mismatch(&self, kind: model::JobKind, requires: &Requirements) -> Option<WaitReason> {
        if self.workers().slots() == 0 {
            return Some(WaitReason::NoWorker);
        }
        let is_served = self.workers().active_abilities().any(|ability| ability.matches(kind, requires));
        (!is_served).then(|| self.no_match(kind, requires))
    }

    fn no_match(&self, kind: model::JobKind, requires: &Requirements) -> WaitReason {
        let abilities: Vec<_> = self.workers().active_abilities().filter(|ability| !ability.is_reserved).collect();
        let runs_it = |ability: &&&Ability| ability.kinds.contains(&kind);
        let lacking = abilities.iter().filter(runs_it).map(|ability| missing(ability, requires));
        let workers = abilities.iter().map(|ability| ability.active_workers).sum();
        if workers == 0 {
            return WaitReason::NoWorker;
        }
        match lacking.min_by_key(Vec::len) {
            Some(closest) => WaitReason::NoMatch { workers, kind, missing: closest.join(", ") },
            None => WaitReason::NoKind { workers, kind },
        }
    }
}

fn missing(ability: &Ability, requires: &Requirements) -> Vec<String> {
    let has = |key: &String, value: &String| ability.labels.get(key) == Some(value);
    let labels = requires.labels.iter().filter(|(key, value)| !has(key, value));
    let named =
        |(key, value): (&String, &String)| program_ability(key).unwrap_or_else(|| format!("the label {key}={value}"));
    let mut missing: Vec<_> = labels.map(named).collect();
    if let Some(cpus) = requires.cpus.filter(|cpus| *cpus > ability.resources.cpus) {
        missing.push(format!("{cpus} cores"));
    }
    if let Some(bytes) = requires.memory_bytes.filter(|bytes| *bytes > ability.resources.memory_bytes) {
        missing.push(format!("{bytes} bytes of memory"));
    }
    if let Some(bytes) = requires.slot_memory_bytes.filter(|bytes| *bytes > ability.slot_memory_bytes) {
        missing.push(format!("{bytes} bytes of memory for each of its slots"));
    }
    missing
}
