//! Random operations against a model that knows the place of every task.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use model::{Affinity, JobId, JobKind, Priority, Requirements};
use proptest::prelude::*;

use super::harness::{Harness, TASK_TIME, broken, job, labels, lane, slots, spec, worker};
use crate::{Event, JobSpec, Lane, Lease, LeaseSize, OnExhausted, Order, WorkerSpec};

#[derive(Clone, Debug)]
enum Operation {
    Submit { tasks: u64, shape: usize, priority: u8 },
    Cancel { pick: usize },
    Pause { pick: usize },
    Continue { pick: usize },
    Retry { pick: usize },
    Join { slots: u32, shape: usize },
    Lose { pick: usize },
    Retire { pick: usize },
    Suspend { pick: usize },
    Resume { pick: usize },
    Claim { pick: usize, slot: u32, size: Option<u64> },
    Renew { pick: usize },
    Complete { pick: usize },
    Fail { pick: usize },
    Release { pick: usize },
    Shorten { pick: usize, tasks: u64 },
    Contest { pick: usize },
    SetAside { pick: usize },
    Reopen { pick: usize },
    Adopt { pick: usize, worker: usize, from: u64, tasks: u64, age_ms: u64 },
    Idle { pick: usize, slot: u32 },
    Gone { pick: usize, slot: u32 },
    GiveOut,
    Wait { ms: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let pick = 0usize..64;
    prop_oneof![
        2 => (1u64..200, 0usize..16, 1u8..=9)
            .prop_map(|(tasks, shape, priority)| Operation::Submit { tasks, shape, priority }),
        1 => pick.clone().prop_map(|pick| Operation::Cancel { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Pause { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Continue { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Retry { pick }),
        2 => (1u32..4, 0usize..8).prop_map(|(slots, shape)| Operation::Join { slots, shape }),
        1 => pick.clone().prop_map(|pick| Operation::Lose { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Retire { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Suspend { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Resume { pick }),
        8 => (pick.clone(), 0u32..3, prop::option::of(1u64..50))
            .prop_map(|(pick, slot, size)| Operation::Claim { pick, slot, size }),
        1 => pick.clone().prop_map(|pick| Operation::Renew { pick }),
        6 => pick.clone().prop_map(|pick| Operation::Complete { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Fail { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Release { pick }),
        2 => (pick.clone(), 0u64..20).prop_map(|(pick, tasks)| Operation::Shorten { pick, tasks }),
        2 => pick.clone().prop_map(|pick| Operation::Contest { pick }),
        1 => pick.clone().prop_map(|pick| Operation::SetAside { pick }),
        1 => pick.clone().prop_map(|pick| Operation::Reopen { pick }),
        2 => (pick.clone(), pick.clone(), 0u64..200, 1u64..8, 0u64..90_000)
            .prop_map(|(pick, worker, from, tasks, age_ms)| Operation::Adopt { pick, worker, from, tasks, age_ms }),
        4 => (pick.clone(), 0u32..3).prop_map(|(pick, slot)| Operation::Idle { pick, slot }),
        1 => (pick, 0u32..3).prop_map(|(pick, slot)| Operation::Gone { pick, slot }),
        2 => Just(Operation::GiveOut),
        1 => (0u64..30_000).prop_map(|ms| Operation::Wait { ms }),
    ]
}

/// Jobs of every order, with and without requirements, wishes and a limit to their leases.
fn shaped(tasks: u64, shape: usize, priority: u8) -> JobSpec {
    let affinity = |key: &str| Affinity { key: Some(key.to_owned()), ..Affinity::default() };
    JobSpec {
        priority: Priority::try_from(priority).expect("1 to 9"),
        kind: [JobKind::SUM_OF_PRIMES, JobKind::TASKS][shape % 2],
        order: [Order::Stripes, Order::FirstInFirstOut][shape / 2 % 2],
        on_exhausted: [OnExhausted::FailJob, OnExhausted::SkipTask][shape / 4 % 2],
        requires: match shape {
            1 | 2 => Requirements { labels: labels(&[("zone", "a")]), ..Requirements::default() },
            3 => Requirements { labels: labels(&[("zone", "b")]), ..Requirements::default() },
            _ => Requirements::default(),
        },
        affinity: match shape {
            4..8 => affinity("one"),
            8..12 => affinity("two"),
            _ => Affinity::default(),
        },
        max_lease_tasks: if shape == 5 { 1 } else { u64::MAX },
        task_timeout: (shape == 6).then_some(Duration::from_secs(20)),
        setup: Duration::from_millis(if shape > 11 { 30 } else { 0 }),
        ..spec(tasks)
    }
}

fn shaped_worker(count: u32, shape: usize) -> WorkerSpec {
    let zone = ["a", "b", "c"][shape % 3];
    let kinds = if shape < 6 {
        vec![JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES, JobKind::SLEEP, JobKind::TASKS]
    } else {
        vec![JobKind::SUM_OF_PRIMES]
    };
    WorkerSpec { labels: labels(&[("zone", zone)]), kinds, ..slots(count) }
}

/// Whether a worker of these shapes can run a job of these shapes.
fn serves(worker: &WorkerSpec, spec: &JobSpec) -> bool {
    worker.kinds.contains(&spec.kind)
        && spec.requires.labels.iter().all(|label| worker.labels.iter().any(|own| own == label))
}

/// A live job.
struct Known {
    spec: JobSpec,
    done: Vec<bool>,
    failed: BTreeSet<u64>,
    is_paused: bool,
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

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Submit { tasks, shape, priority } => {
                self.next += 1;
                let spec = shaped(tasks, shape, priority);
                self.grid.submit_spec(self.next.into(), spec.clone());
                let done = vec![false; usize::try_from(tasks).expect("few")];
                self.jobs
                    .insert(job(self.next.into()), Known { spec, done, failed: BTreeSet::new(), is_paused: false });
            }
            Operation::Cancel { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.grid.scheduler.cancel(id).expect("a live job");
                    self.forget(id);
                }
            }
            Operation::Pause { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    let known = self.jobs.get_mut(&id).expect("just picked");
                    let was_paused = std::mem::replace(&mut known.is_paused, true);
                    assert_eq!(self.grid.scheduler.pause(id), Ok(!was_paused));
                    assert_eq!(self.grid.scheduler.progress(id).map(|counts| counts.running), Some(0));
                }
            }
            Operation::Continue { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    let known = self.jobs.get_mut(&id).expect("just picked");
                    let was_paused = std::mem::replace(&mut known.is_paused, false);
                    assert_eq!(self.grid.scheduler.resume(id, self.grid.now), Ok(was_paused));
                }
            }
            Operation::Retry { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.grid.scheduler.retry(id, self.grid.now).expect("a live job");
                    self.jobs.get_mut(&id).expect("just picked").failed.clear();
                    assert_eq!(self.grid.scheduler.progress(id).map(|counts| counts.failed), Some(0));
                }
            }
            Operation::Join { slots, shape } => {
                self.next += 1;
                self.grid.join(self.next, shaped_worker(slots, shape));
                self.specs.insert(self.next, shaped_worker(slots, shape));
                self.workers.push(self.next);
            }
            Operation::Lose { pick } => {
                if let Some(lost) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_lost(worker(lost), self.grid.now);
                    self.forget_worker(lost);
                }
            }
            Operation::Retire { pick } => {
                if let Some(leaving) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_retired(worker(leaving), self.grid.now);
                    self.forget_worker(leaving);
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
            Operation::Claim { pick, slot, size } => {
                if let Some(claimant) = self.pick_worker(pick) {
                    let size = size.map_or(LeaseSize::Fitting, LeaseSize::AtMost);
                    self.claim(Lane { slot, ..lane(claimant) }, size);
                }
            }
            Operation::Renew { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.renew(lease.attempt, self.grid.now);
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
                    let _ = self.grid.scheduler.fail(lease.attempt, broken(), self.grid.now);
                }
            }
            Operation::Release { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.release(lease.attempt, self.grid.now);
                }
            }
            Operation::Shorten { pick, tasks } => {
                if let Some(lease) = self.pick_lease(pick) {
                    self.shorten(&lease, lease.tasks.start + tasks);
                }
            }
            Operation::Contest { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    self.contest(&lease);
                }
            }
            Operation::SetAside { pick } => {
                if let Some(liar) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_set_aside(worker(liar), self.grid.now);
                    self.forget_worker(liar);
                }
            }
            Operation::Reopen { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.reopen(id);
                }
            }
            Operation::Adopt { pick, worker, from, tasks, age_ms } => {
                if let (Some(id), Some(worker)) = (self.pick_job(pick), self.pick_worker(worker)) {
                    self.adopt(lane(worker), id, from..from + tasks, Duration::from_millis(age_ms));
                }
            }
            Operation::Idle { pick, slot } => {
                if let Some(waiting) = self.pick_worker(pick) {
                    let lane = Lane { slot, ..lane(waiting) };
                    self.grid.scheduler.slot_idle(lane);
                    self.idle.insert(lane);
                }
            }
            Operation::Gone { pick, slot } => {
                if let Some(waiting) = self.pick_worker(pick) {
                    let lane = Lane { slot, ..lane(waiting) };
                    self.grid.scheduler.slot_gone(lane);
                    self.idle.remove(&lane);
                }
            }
            Operation::GiveOut => self.give_out(),
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

    fn pick_job(&self, pick: usize) -> Option<JobId> {
        self.jobs.keys().nth(pick % self.jobs.len().max(1)).copied()
    }

    fn forget_worker(&mut self, gone: u64) {
        self.workers.retain(|number| *number != gone);
        self.idle.retain(|lane| lane.worker != worker(gone));
    }

    /// Tasks that a lease is shortened by are no attempt's.
    fn shorten(&mut self, lease: &Lease, beyond: u64) {
        if self.grid.scheduler.shorten(lease.attempt, beyond) != Ok(true) {
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

    /// At most two workers compute a run whose outcome waits.
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

    /// Exactly the attempts whose tasks are all open can be adopted.
    fn adopt(&mut self, lane: Lane, id: JobId, tasks: Range<u64>, age: Duration) {
        let known = &self.jobs[&id];
        let live = self.grid.scheduler.live_attempts();
        let is_held = |task| self.holders.get(&(id, task)).is_some_and(|holder| live.contains(&holder.attempt));
        let is_done = |task| known.done.get(usize::try_from(task).expect("few")).is_none_or(|done| *done);
        let is_open = |task| !is_done(task) && !known.failed.contains(&task) && !is_held(task);
        let overlaps = |run: &Range<u64>| run.start < tasks.end && tasks.start < run.end;
        let is_compared = self.contested.iter().any(|(job, run, _)| *job == id && overlaps(run));
        let may_be = !known.is_paused && !is_compared && tasks.clone().all(is_open);
        let (attempt, now) = (self.grid.next_attempt(), self.grid.now);
        let claimed_at = now.checked_sub(age).expect("the clock has run for longer");
        let adopted = self.grid.scheduler.adopt(lane, attempt, id, tasks.clone(), claimed_at, now);
        assert_eq!(adopted.is_ok(), may_be, "{adopted:?}");
        if let Ok(lease) = adopted {
            assert_eq!(lease.tasks, tasks);
            self.idle.remove(&lane);
            self.holders.extend(tasks.map(|task| ((id, task), lease.clone())));
            self.granted.push(lease);
        }
    }

    /// Offers end, and none of the slots that still wait could have had a task.
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
            // What is left of a stripe may be worth a set-up to one worker and not to another.
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
            let holder = self.holders.insert((lease.job, task), lease.clone());
            held_before.extend(holder.filter(|holder| live.contains(&holder.attempt)));
        }
        // Only a whole lease has a second attempt, and only while nothing of its job waits.
        assert!(held_before.iter().all(|holder| holder.tasks == lease.tasks), "{lease:?} beside {held_before:?}");
        if !held_before.is_empty() {
            assert_eq!(self.grid.scheduler.progress(lease.job).map(|counts| counts.pending), Some(0));
        }
        self.granted.push(lease);
    }

    fn count(&mut self, lease: &Lease) {
        self.contested.retain(|(job, run, _)| *job != lease.job || *run != lease.tasks);
        let done = &mut self.jobs.get_mut(&lease.job).expect("only a live job's outcome counts").done;
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
                Event::TasksFailed { job, tasks, .. } => {
                    assert_eq!(tasks.end - tasks.start, 1);
                    self.jobs.get_mut(&job).expect("a live job").failed.extend(tasks);
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

    /// With workers that do their work and nothing paused, every job comes to its exact end.
    fn finish(&mut self) {
        while let Some(id) = self.jobs.iter().find(|(_, known)| known.is_paused).map(|(id, _)| *id) {
            self.grid.scheduler.resume(id, self.grid.now).expect("a live job");
            self.jobs.get_mut(&id).expect("just found").is_paused = false;
        }
        let last_of_old = self.workers.len();
        self.apply(Operation::Join { slots: 2, shape: 0 });
        self.apply(Operation::Join { slots: 2, shape: 1 });
        for _ in 0..last_of_old {
            self.apply(Operation::Lose { pick: 0 });
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
                // What is left is held by others, or was given back by these: both end in time.
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
