//! Random operations against a model that knows the place of every task.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use protocol::JobId;

use super::harness::{Harness, broken, job, worker};
use crate::{Event, Lease};

#[derive(Clone, Debug)]
enum Operation {
    Submit { tasks: u64 },
    Cancel { pick: usize },
    Join { slots: u32 },
    Lose { pick: usize },
    Retire { pick: usize },
    Suspend { pick: usize },
    Resume { pick: usize },
    Claim { pick: usize },
    Complete { pick: usize },
    Fail { pick: usize },
    HandBack { pick: usize },
    Wait { ms: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let pick = 0usize..64;
    prop_oneof![
        2 => (1u64..200).prop_map(|tasks| Operation::Submit { tasks }),
        1 => pick.clone().prop_map(|pick| Operation::Cancel { pick }),
        2 => (1u32..4).prop_map(|slots| Operation::Join { slots }),
        1 => pick.clone().prop_map(|pick| Operation::Lose { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Retire { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Suspend { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Resume { pick }),
        8 => pick.clone().prop_map(|pick| Operation::Claim { pick }),
        6 => pick.clone().prop_map(|pick| Operation::Complete { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Fail { pick }),
        1 => pick.prop_map(|pick| Operation::HandBack { pick }),
        1 => (0u64..30_000).prop_map(|ms| Operation::Wait { ms }),
    ]
}

/// Everything ever granted, and where each task of each live job must be.
struct Model {
    grid: Harness,
    jobs: BTreeMap<JobId, Vec<bool>>,
    workers: Vec<u64>,
    granted: Vec<Lease>,
    holders: HashMap<(JobId, u64), Lease>,
    next: u64,
}

impl Model {
    fn new() -> Self {
        let grid = Harness::new();
        Self { grid, jobs: BTreeMap::new(), workers: Vec::new(), granted: Vec::new(), holders: HashMap::new(), next: 0 }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Submit { tasks } => {
                self.next += 1;
                self.grid.submit(self.next.into(), tasks);
                self.jobs.insert(job(self.next.into()), vec![false; usize::try_from(tasks).expect("few")]);
            }
            Operation::Cancel { pick } => {
                if let Some(id) = self.jobs.keys().nth(pick % self.jobs.len().max(1)).copied() {
                    self.grid.scheduler.cancel(id);
                    self.forget(id);
                }
            }
            Operation::Join { slots } => {
                self.next += 1;
                self.grid.scheduler.worker_joined(worker(self.next), slots);
                self.workers.push(self.next);
            }
            Operation::Lose { pick } => {
                if let Some(lost) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_lost(worker(lost), self.grid.now);
                    self.workers.retain(|number| *number != lost);
                }
            }
            Operation::Retire { pick } => {
                if let Some(leaving) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_retired(worker(leaving), self.grid.now);
                    self.workers.retain(|number| *number != leaving);
                }
            }
            Operation::Suspend { pick } => {
                if let Some(idle) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_suspended(worker(idle), self.grid.now);
                }
            }
            Operation::Resume { pick } => {
                if let Some(back) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_resumed(worker(back));
                }
            }
            Operation::Claim { pick } => {
                if let Some(claimant) = self.pick_worker(pick) {
                    self.claim(claimant);
                }
            }
            Operation::Complete { pick } => {
                if let Some(lease) = self.pick_lease(pick)
                    && self.grid.complete(&lease).is_ok()
                {
                    self.count(&lease);
                }
            }
            Operation::Fail { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.fail(lease.attempt, broken());
                }
            }
            Operation::HandBack { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.hand_back(lease.attempt);
                }
            }
            Operation::Wait { ms } => self.grid.wait(Duration::from_millis(ms)),
        }
        self.settle();
    }

    fn pick_worker(&self, pick: usize) -> Option<u64> {
        self.workers.get(pick % self.workers.len().max(1)).copied()
    }

    /// Any lease ever granted, also one that ended long ago.
    fn pick_lease(&self, pick: usize) -> Option<Lease> {
        let recent = self.granted.len().saturating_sub(8);
        self.granted.get(recent + pick % (self.granted.len() - recent).max(1)).cloned()
    }

    fn claim(&mut self, claimant: u64) {
        // A suspended worker gets an error.
        let Ok(Some(lease)) = self.grid.scheduler.claim(worker(claimant), self.grid.now) else { return };
        let live = self.grid.scheduler.live_attempts();
        for task in lease.tasks.clone() {
            assert!(!self.jobs[&lease.job][usize::try_from(task).expect("few")], "task {task} was done already");
            if let Some(holder) = self.holders.insert((lease.job, task), lease.clone()) {
                assert!(!live.contains(&holder.attempt), "task {task} is held twice");
            }
        }
        self.granted.push(lease);
    }

    fn count(&mut self, lease: &Lease) {
        let done = self.jobs.get_mut(&lease.job).expect("only a live job's outcome counts");
        for task in lease.tasks.clone() {
            let task = &mut done[usize::try_from(task).expect("few")];
            assert!(!*task, "counted twice");
            *task = true;
        }
    }

    fn settle(&mut self) {
        for event in self.grid.events() {
            match event {
                Event::JobSucceeded { job, total } => {
                    let done = self.forget(job);
                    assert_eq!(total, done.len() as u128, "the total is exact");
                    assert!(done.iter().all(|task| *task), "a task is missing");
                }
                Event::JobFailed { job, .. } => drop(self.forget(job)),
                Event::LeaseRevoked { attempt } => {
                    assert!(!self.grid.scheduler.live_attempts().contains(&attempt), "revoked, but still held");
                }
            }
        }
        self.grid.scheduler.check();
        for (id, done) in &self.jobs {
            let done = done.iter().filter(|task| **task).count() as u64;
            assert_eq!(self.grid.scheduler.progress(*id).map(|progress| progress.done), Some(done));
        }
    }

    fn forget(&mut self, id: JobId) -> Vec<bool> {
        self.jobs.remove(&id).expect("a job ends once")
    }

    /// With workers that do their work, every job comes to its exact end.
    fn finish(&mut self) {
        self.apply(Operation::Join { slots: 2 });
        let claimant = self.next;
        for _ in 0..100_000 {
            if self.jobs.is_empty() {
                return;
            }
            match self.grid.claim(claimant) {
                Some(lease) => {
                    self.grid.complete(&lease).expect("just leased");
                    self.count(&lease);
                    self.settle();
                }
                // What is left is held by others, or was given back by this worker: both end in time.
                None => self.apply(Operation::Wait { ms: 700_000 }),
            }
            if self.workers.len() > 1 {
                self.apply(Operation::Lose { pick: 0 });
            }
        }
        panic!("jobs without an end: {:?}", self.jobs.keys());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_task_is_lost_leased_twice_or_counted_twice(operations in prop::collection::vec(operation(), 1..200)) {
        let mut model = Model::new();
        for operation in operations {
            model.apply(operation);
        }
        model.finish();
    }
}
