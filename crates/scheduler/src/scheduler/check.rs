//! The invariants of the whole state, for tests.

use std::collections::BTreeSet;

use model::{AttemptId, TaskCounts};

use super::{Held, Scheduler};

impl Scheduler {
    pub(crate) fn live_attempts(&self) -> BTreeSet<AttemptId> {
        self.leases.keys().copied().collect()
    }

    /// Every invariant that one look at the state can show.
    pub(crate) fn check(&self) {
        let mut waiting = 0;
        for (id, job) in &self.jobs {
            // Of two attempts at the same run only the first is looked at.
            let is_first = |attempt: &AttemptId, held: &Held| held.rival.is_none_or(|rival| *attempt < rival);
            let leases = self.leases.iter().filter(|(attempt, held)| held.job == *id && is_first(attempt, held));
            job.tasks.check(leases.map(|(_, held)| held.run.tasks.clone()));
            assert_eq!(job.place, job.place_due(), "one place for a job with unclaimed tasks, else none");
            assert_eq!(job.counted, job.counts());
            assert!(job.counted.pending + job.counted.running > 0, "a finished job is still here");
            waiting += usize::from(job.place.is_some());
        }
        assert_eq!(self.queue.jobs().count(), waiting);
        for (attempt, held) in &self.leases {
            assert!(self.jobs.contains_key(&held.job), "a lease without a job");
            let worker = self.pool.get(held.lane.worker).expect("a lease without a worker");
            assert!(worker.held.contains(attempt), "a lease that its worker does not list");
            assert!(self.expiries.contains(&(held.expires_at, *attempt)), "a lease that never expires");
            if let Some(rival) = held.rival {
                let rival = &self.leases[&rival];
                assert_eq!((rival.rival, &rival.run.tasks), (Some(*attempt), &held.run.tasks));
                assert_ne!(rival.lane.worker, held.lane.worker);
            }
        }
        assert_eq!(self.expiries.len(), self.leases.len());
        self.pool.check(self.leases.len());
        let sum = |pick: fn(&TaskCounts) -> u64| self.jobs.values().map(|job| pick(&job.counted)).sum::<u64>();
        assert_eq!(self.counts.pending, sum(|counts| counts.pending));
        assert_eq!(self.counts.running, sum(|counts| counts.running));
        assert_eq!(self.pending.iter().sum::<u64>(), self.counts.pending);
        let is_waited_for = self.impatient.iter().any(|id| self.jobs[id].place.is_some());
        assert!(!is_waited_for || self.pool.slots() > 0 || self.poll_timeout().is_some(), "nobody's task");
    }
}
