//! Random operations against a model that knows the place of every task.

mod apply;
mod operations;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use model::JobId;
use proptest::prelude::*;

use super::harness::{Harness, TASK_TIME, worker};
use crate::{Event, JobSpec, Lane, Lease, LeaseSize, OnExhausted, Order, WorkerSpec};
use operations::{Operation, WorkerOperation, operation, serves};

/// A live job.
struct Known {
    spec: JobSpec,
    done: Vec<bool>,
    failed: BTreeSet<u64>,
    is_paused: bool,
    /// Whether the last task waits for no others.
    is_last_open: bool,
}

impl Known {
    fn waits_for_others(&self, task: u64) -> bool {
        !self.is_last_open && task + 1 == self.done.len() as u64
    }
}

/// Everything ever granted, and where each task of each live job must be.
struct Model {
    grid: Harness,
    jobs: BTreeMap<JobId, Known>,
    specs: HashMap<u64, WorkerSpec>,
    workers: Vec<u64>,
    /// Slots that wait, of workers that are there.
    idle: BTreeSet<Lane>,
    granted: Vec<Lease>,
    holders: HashMap<(JobId, u64), Lease>,
    /// Runs whose outcome waits for another worker's, with the workers that have computed them.
    contested: Vec<(JobId, Range<u64>, Vec<u64>)>,
    next: u64,
}

impl Model {
    fn new() -> Self {
        let grid = Harness::new();
        let (jobs, specs, holders) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let (workers, idle, granted, contested) = (Vec::new(), BTreeSet::new(), Vec::new(), Vec::new());
        Self { grid, jobs, specs, workers, idle, granted, holders, contested, next: 0 }
    }

    fn pick_worker(&self, pick: usize) -> Option<u64> {
        self.workers.get(pick % self.workers.len().max(1)).copied()
    }

    /// Any lease ever granted, also one that ended long ago.
    fn pick_lease(&self, pick: usize) -> Option<Lease> {
        let recent = self.granted.len().saturating_sub(8);
        self.granted.get(recent + pick % (self.granted.len() - recent).max(1)).cloned()
    }

    fn pick_job(&self, pick: usize) -> Option<JobId> {
        self.jobs.keys().nth(pick % self.jobs.len().max(1)).copied()
    }

    /// Whether the slot holds a lease.
    fn is_busy(&self, lane: Lane) -> bool {
        let scheduler = &self.grid.scheduler;
        let attempts = scheduler.live_attempts();
        attempts.iter().any(|attempt| scheduler.lease(*attempt).is_some_and(|lease| lease.lane == lane))
    }

    fn forget_worker(&mut self, gone: u64) {
        self.workers.retain(|number| *number != gone);
        self.idle.retain(|lane| lane.worker != worker(gone));
    }

    /// Frees the tasks that a lease is shortened by, because they were not delivered or its worker hands them back.
    fn shorten(&mut self, lease: &Lease, beyond: u64, is_handed_back: bool) {
        let (scheduler, now) = (&mut self.grid.scheduler, self.grid.now);
        let shortened = if is_handed_back {
            scheduler.release_rest(lease.attempt, beyond, now)
        } else {
            scheduler.shorten(lease.attempt, beyond)
        };
        if shortened != Ok(true) || beyond >= lease.tasks.end {
            return;
        }
        let granted = self.granted.iter_mut().find(|granted| granted.attempt == lease.attempt).expect("it was granted");
        granted.tasks.end = beyond;
        self.holders.retain(|(_, task), holder| holder.attempt != lease.attempt || *task < beyond);
        self.holders
            .values_mut()
            .filter(|holder| holder.attempt == lease.attempt)
            .for_each(|holder| holder.tasks.end = beyond);
    }

    /// Counts a vote for a run; at most two workers compute a run whose outcome waits.
    fn contest(&mut self, lease: &Lease) {
        let Some(active) = self.grid.scheduler.lease(lease.attempt) else { return };
        let voter = active.lane.worker.0;
        let known = self.contested.iter_mut().find(|(id, tasks, _)| *id == lease.job && *tasks == lease.tasks);
        let fails_whole = self.jobs[&lease.job].spec.on_exhausted == OnExhausted::FailJob;
        if !fails_whole || known.as_ref().is_some_and(|(.., voters)| voters.len() > 1) {
            return;
        }
        let name = format!("worker-{voter}").parse().expect("a name");
        self.grid.scheduler.contest(lease.attempt, name, TASK_TIME).expect("it holds the lease");
        match known {
            Some((.., voters)) => voters.push(voter),
            None => self.contested.push((lease.job, lease.tasks.clone(), vec![voter])),
        }
    }

    /// Opens the first run that is done again.
    fn reopen(&mut self, id: JobId) {
        let done = &mut self.jobs.get_mut(&id).expect("just picked").done;
        let Some(first) = done.iter().position(|task| *task) else { return };
        let count = done[first..].iter().take_while(|task| **task).count();
        done[first..first + count].fill(false);
        let run = first as u64..(first + count) as u64;
        self.grid.scheduler.reopen(id, &[run], count as u128).expect("a live job");
    }

    /// Checks that exactly the attempts whose tasks are all open can be adopted.
    fn adopt(&mut self, lane: Lane, id: JobId, tasks: Range<u64>, age: Duration) {
        let known = &self.jobs[&id];
        let live = self.grid.scheduler.live_attempts();
        let is_held = |task| self.holders.get(&(id, task)).is_some_and(|holder| live.contains(&holder.attempt));
        let is_done = |task| known.done.get(usize::try_from(task).expect("few")).is_none_or(|done| *done);
        let is_open =
            |task| !is_done(task) && !known.failed.contains(&task) && !is_held(task) && !known.waits_for_others(task);
        let overlaps = |run: &Range<u64>| run.start < tasks.end && tasks.start < run.end;
        let is_compared = self.contested.iter().any(|(job, run, _)| *job == id && overlaps(run));
        let may_be = !known.is_paused && !is_compared && tasks.clone().all(is_open);
        let (attempt, now) = (self.grid.next_attempt(), self.grid.now);
        let begun_at = (!age.is_zero()).then(|| now.checked_sub(age).expect("the clock has run for longer"));
        let adopted = self.grid.scheduler.adopt(lane, attempt, id, tasks.clone(), begun_at, now);
        assert_eq!(adopted.is_ok(), may_be, "{adopted:?}");
        if let Ok(lease) = adopted {
            assert_eq!(lease.tasks, tasks);
            self.idle.remove(&lane);
            self.holders.extend(tasks.map(|task| ((id, task), lease.clone())));
            self.granted.push(lease);
        }
    }

    /// Checks that offers end, and that no slot that still waits could have had a task.
    fn give_out(&mut self) {
        let mut offers = 0;
        while let Some(offered) = self.grid.scheduler.next_idle(self.grid.now) {
            offers += 1;
            assert!(offers < 1_000, "slots are offered without end");
            assert!(self.idle.contains(&offered), "a slot that does not wait");
            self.grid.scheduler.check();
            self.claim(offered, LeaseSize::Fitting);
            if self.idle.contains(&offered) {
                self.grid.scheduler.slot_idle(offered);
            }
        }
        for lane in self.idle.clone() {
            let before = self.granted.len();
            self.claim(lane, LeaseSize::Fitting);
            // The rest of a stripe may be worth a set-up to one worker and not to another.
            let is_stripe = |lease: &Lease| self.jobs[&lease.job].spec.order == Order::Stripes;
            assert!(self.granted[before..].iter().all(is_stripe), "{lane:?} waits in vain: {:?}", self.granted.last());
        }
    }

    fn claim(&mut self, lane: Lane, size: LeaseSize) {
        // A suspended worker gets an error.
        let Ok(Some(lease)) = self.grid.claim_for(lane, size) else { return };
        self.idle.remove(&lane);
        let (known, worker) = (&self.jobs[&lease.job], &self.specs[&lane.worker.0]);
        assert!(serves(worker, &known.spec), "a worker that cannot run it");
        assert!(!known.is_paused, "a paused job");
        let tasks = lease.tasks.end - lease.tasks.start;
        assert!((1..=known.spec.max_lease_tasks).contains(&tasks), "{tasks} tasks");
        assert!(lease.horizon >= lease.tasks.end);
        for (job, run, voters) in &self.contested {
            let overlaps = *job == lease.job && run.start < lease.tasks.end && lease.tasks.start < run.end;
            assert!(!overlaps || (*run == lease.tasks && !voters.contains(&lane.worker.0)), "{run:?}: {voters:?}");
        }
        let live = self.grid.scheduler.live_attempts();
        let mut held_before = Vec::new();
        for task in lease.tasks.clone() {
            assert!(!known.done[usize::try_from(task).expect("few")], "task {task} was done already");
            assert!(!known.waits_for_others(task), "task {task} waits for others");
            let holder = self.holders.insert((lease.job, task), lease.clone());
            held_before.extend(holder.filter(|holder| live.contains(&holder.attempt)));
        }
        // Only a whole lease has a second attempt, and only while nothing of its job waits.
        assert!(held_before.iter().all(|holder| holder.tasks == lease.tasks), "{lease:?} beside {held_before:?}");
        if !held_before.is_empty() {
            let pending = self.grid.scheduler.progress(lease.job).map(|counts| counts.pending);
            assert_eq!(pending, Some(u64::from(!known.is_last_open)));
        }
        self.granted.push(lease);
    }

    fn count(&mut self, lease: &Lease) {
        self.contested.retain(|(job, run, _)| *job != lease.job || *run != lease.tasks);
        let known = self.jobs.get_mut(&lease.job).expect("only a live job's outcome counts");
        for task in lease.tasks.clone() {
            let task = &mut known.done[usize::try_from(task).expect("few")];
            assert!(!*task, "counted twice");
            *task = true;
        }
        known.is_last_open |= known.done.iter().rev().skip(1).all(|task| *task);
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
                Event::TasksFailed { job, tasks, .. } => {
                    let known = self.jobs.get_mut(&job).expect("a live job");
                    assert!(tasks.end - tasks.start == 1 || known.spec.on_exhausted == OnExhausted::FailJob);
                    known.failed.extend(tasks);
                }
                Event::JobStarted { .. } | Event::AttemptFailed { .. } => (),
                Event::LeaseRevoked { attempt, .. } => {
                    assert!(!self.grid.scheduler.live_attempts().contains(&attempt), "revoked, but still held");
                }
            }
        }
        self.grid.scheduler.check();
        for (id, known) in &self.jobs {
            let done = known.done.iter().filter(|task| **task).count() as u64;
            assert_eq!(self.grid.scheduler.progress(*id).map(|counts| counts.succeeded), Some(done));
        }
    }

    fn forget(&mut self, id: JobId) -> Vec<bool> {
        self.contested.retain(|(job, ..)| *job != id);
        self.jobs.remove(&id).expect("a job ends once").done
    }

    /// Checks that every job reaches its exact end while workers do their work and nothing is paused.
    fn finish(&mut self) {
        while let Some(id) = self.jobs.iter().find(|(_, known)| known.is_paused).map(|(id, _)| *id) {
            self.grid.scheduler.resume(id, self.grid.now).expect("a live job");
            self.jobs.get_mut(&id).expect("just found").is_paused = false;
        }
        let last_of_old = self.workers.len();
        self.apply(Operation::Worker(WorkerOperation::Join { slots: 2, shape: 0 }));
        self.apply(Operation::Worker(WorkerOperation::Join { slots: 2, shape: 1 }));
        for _ in 0..last_of_old {
            self.apply(Operation::Worker(WorkerOperation::Lose { pick: 0 }));
        }
        let claimants = [self.next - 1, self.next];
        for _ in 0..100_000 {
            if self.jobs.is_empty() {
                return;
            }
            let leases = claimants.map(|claimant| self.grid.claim(claimant));
            for lease in leases.iter().flatten() {
                if self.grid.complete(lease).is_ok() {
                    self.count(lease);
                    self.settle();
                }
            }
            if leases == [None, None] {
                // The remaining tasks are held by other workers, or were given back by these: both end in time.
                self.apply(Operation::Wait { ms: 700_000 });
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
