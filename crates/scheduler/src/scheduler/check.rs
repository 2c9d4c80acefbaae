//! The invariants of the whole state, for tests and simulations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use model::{AttemptId, JobId, JobKind, JobState};

use super::{LeaseRecord, Scheduler};
use crate::figures::{Demand, JobCounts};
use crate::lease::Lane;

impl Scheduler {
    #[cfg(test)]
    pub(crate) fn live_attempts(&self) -> BTreeSet<AttemptId> {
        self.leases.keys().copied().collect()
    }

    /// Lanes that walk a job.
    #[cfg(test)]
    pub(crate) fn walking(&self) -> usize {
        self.walks.len()
    }

    /// Whether the slot waits for work.
    #[must_use]
    pub fn is_idle(&self, lane: Lane) -> bool {
        self.workers.is_idle(lane)
    }

    /// Number of a job's open tasks that are held back from the worker that had them last.
    #[must_use]
    pub fn held_back_tasks(&self, job: JobId, now: Instant) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.tasks.held_back(now))
    }

    /// Checks every invariant that the present state can show.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn check(&self) {
        self.check_jobs();
        self.check_leases();
        self.check_figures();
        let timed = self.jobs.iter().filter_map(|(id, job)| Some((job.spec.deadline?, *id)));
        assert_eq!(self.deadlines, timed.collect(), "a deadline for each job that has a time limit");
        self.queue.check(|class| self.workers.slots_for(class) > 0);
        self.workers.check(self.leases.len());
    }

    fn check_jobs(&self) {
        let mut waiting = 0;
        for (id, job) in &self.jobs {
            // Of two attempts at the same run only the first is checked.
            let is_first =
                |attempt: &AttemptId, record: &LeaseRecord| record.rival.is_none_or(|rival| *attempt < rival);
            let leases = self.leases.iter().filter(|(attempt, record)| record.job == *id && is_first(attempt, record));
            job.tasks.check(leases.map(|(_, record)| record.run.tasks.clone()));
            let held: BTreeSet<_> =
                self.leases.iter().filter(|(_, record)| record.job == *id).map(|(attempt, _)| *attempt).collect();
            assert_eq!(job.leases, held);
            assert_eq!(job.place, job.place_due(), "one place for a job with open tasks, else none");
            assert_eq!(job.counted, Some(job.figures(self.policy.lease_target)));
            let counts = job.counts();
            assert!(counts.pending + counts.running > 0, "a finished job is still here");
            waiting += usize::from(job.place.is_some());
            let is_ready = self.stragglers.ready_jobs(job.class).any(|ready| ready == *id);
            assert_eq!(is_ready, self.stragglers.has_late(*id) && !job.is_paused && job.tasks.unclaimed() == 0);
            self.check_patience(job);
        }
        assert_eq!(self.queue.jobs().count(), waiting);
    }

    fn check_patience(&self, job: &crate::job::Job) {
        if let (Some(_), Some(wait), Some(unserved)) =
            (job.place, job.spec.worker_wait, self.workers.unserved_since(job.class))
        {
            let due_at = job.patient_since.max(unserved) + wait;
            assert!(self.poll_timeout().is_some_and(|at| at <= due_at), "a job that waits for ever");
        }
    }

    fn check_leases(&self) {
        for (attempt, record) in &self.leases {
            assert!(self.jobs.contains_key(&record.job), "a lease without a job");
            let worker = self.workers.get(record.lane.worker).expect("a lease without a worker");
            assert!(worker.held.contains(attempt), "a lease that its worker does not list");
            assert!(worker.leases_of_slot(record.lane.slot).any(|other| other == attempt), "a lease in no slot");
            assert!(self.expiries.contains(&(record.expires_at, *attempt)), "a lease that never expires");
            assert!(record.limit_at.is_none_or(|limit| record.expires_at <= limit), "a lease beyond its time limit");
            if let Some(rival) = record.rival {
                let rival = &self.leases[&rival];
                assert_eq!((rival.rival, &rival.run.tasks), (Some(*attempt), &record.run.tasks));
                assert_ne!(rival.lane.worker, record.lane.worker);
            }
        }
        assert_eq!(self.expiries.len(), self.leases.len());
    }

    fn check_figures(&self) {
        let (mut demands, mut jobs, mut runnable) = (BTreeMap::<JobKind, Demand>::new(), JobCounts::default(), [0; 9]);
        for job in self.jobs.values() {
            let counts = job.counts();
            let demand = demands.entry(job.spec.kind).or_default();
            let is_served = self.workers.slots_for(job.class) > 0;
            let open = if is_served { &mut demand.runnable } else { &mut demand.unservable };
            *if job.is_paused { &mut demand.paused } else { open } += counts.pending;
            jobs.paused += u64::from(job.state() == JobState::Paused);
            jobs.running += u64::from(job.state() == JobState::Running);
            jobs.queued += u64::from(job.state() == JobState::Queued);
            demand.running += counts.running;
            demand.wanted_slots += job.figures(self.policy.lease_target).wanted_slots;
            let is_runnable = is_served && !job.is_paused;
            runnable[usize::from(job.spec.priority.get()) - 1] += if is_runnable { counts.pending } else { 0 };
        }
        for kind in demands.keys().chain(&[JobKind::SUM_OF_PRIMES, JobKind::TASKS]) {
            assert_eq!(self.demand(*kind), demands.get(kind).copied().unwrap_or_default(), "{kind}");
        }
        assert_eq!(self.state_counts(), jobs);
        assert_eq!(self.runnable_by_priority(), runnable);
        assert_eq!(runnable.iter().sum::<u64>(), demands.values().map(|demand| demand.runnable).sum::<u64>());
        assert_eq!(self.counts().running, demands.values().map(|demand| demand.running).sum::<u64>());
    }
}
