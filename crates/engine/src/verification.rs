//! Jobs of which a share is computed twice. The outcome of a chosen lease does not count before a worker of another name has
//! reported the same; where two differ, a third decides. A worker whose outcome was wrong is set aside, and its outcomes that
//! were not compared are computed anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, BootId, JobId, Share, WorkerId, counted};
use rangemap::RangeSet;
use scheduler::{ActiveLease, StaleAttempt, WorkerKey};
use store::{ChangeKind, SetAsideWorker, Verified};
use workloads::Accepted;

use crate::engine::Engine;
use crate::time::Now;
use crate::workers::{Delivery, Worker};

/// Workers that are remembered as set aside. More of them would be an attack that registration has to stop.
const MAX_SET_ASIDE: usize = 1024;

/// Time for which a pulling worker is set aside: the engine cannot see whether its process was started again.
const PULLED_SET_ASIDE: Duration = Duration::from_hours(1);

/// The state of a verified job.
#[derive(Debug)]
pub(crate) struct Verification {
    share: Share,
    /// Runs whose outcome waits for another worker's, by their first tasks.
    checks: BTreeMap<u64, Check>,
    /// Counted work that only one worker has computed, by that worker.
    unchecked: HashMap<WorkerId, UncheckedWork>,
    /// Unchecked work of workers under earlier coordinators, without the workers' names.
    inherited: UncheckedWork,
    counts: VerificationCounts,
    set_aside: Vec<WorkerId>,
}

/// Counts of a job's verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerificationCounts {
    /// Leases that two workers have computed with the same outcome.
    pub compared: u64,
    /// Leases of which some outcome was wrong.
    pub mismatches: u64,
    /// Tasks that are computed anew.
    pub recomputed_tasks: u64,
}

/// The verification of a job for its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationView {
    /// Its figures.
    pub counts: VerificationCounts,
    /// Leases whose outcomes wait for another worker's.
    pub waiting: usize,
    /// Workers that were set aside for it.
    pub set_aside: Vec<WorkerId>,
}

#[derive(Debug)]
struct Check {
    tasks: Range<u64>,
    votes: Vec<Vote>,
    /// The busy times of attempts whose outcomes were forgotten with the trust in their worker.
    forgotten: Vec<Duration>,
}

#[derive(Debug)]
struct Vote {
    worker: WorkerId,
    key: WorkerKey,
    delivery: Delivery,
    attempt: AttemptId,
    values: (u128, u128),
    busy: Duration,
}

#[derive(Debug, Default)]
struct UncheckedWork {
    tasks: RangeSet<u64>,
    value: u128,
    check: u128,
}

impl UncheckedWork {
    fn add(&mut self, tasks: Range<u64>, (value, check): (u128, u128)) {
        self.tasks.insert(tasks);
        self.value = self.value.wrapping_add(value);
        self.check = self.check.wrapping_add(check);
    }
}

/// The decision about an outcome of a verified job.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The outcome counts.
    Counts(Accepted),
    /// The outcome waits for another worker's.
    Waits,
}

impl Verification {
    /// Restores the verification of a job: `done`, the two values and `verified` are of earlier coordinators.
    pub(crate) fn new(
        share: Share,
        done: impl Iterator<Item = Range<u64>>,
        (value, check): (u128, u128),
        verified: Verified,
    ) -> Self {
        let Verified { compared, mismatches, recomputed_tasks, set_aside, .. } = verified;
        Self {
            share,
            checks: BTreeMap::new(),
            unchecked: HashMap::new(),
            inherited: UncheckedWork { tasks: done.collect(), value, check },
            counts: VerificationCounts { compared, mismatches, recomputed_tasks },
            set_aside: set_aside.into_iter().map(|worker| worker.id).collect(),
        }
    }

    pub(crate) fn view(&self) -> VerificationView {
        VerificationView { counts: self.counts, waiting: self.waiting(), set_aside: self.set_aside.clone() }
    }

    /// Leases with outcomes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.checks.values().filter(|check| !check.votes.is_empty()).count()
    }

    /// Attempts that have ended at leases whose comparison is not over.
    pub(crate) fn ended_attempts(&self) -> u64 {
        self.checks.values().map(|check| (check.votes.len() + check.forgotten.len()) as u64).sum()
    }

    /// The attempts whose outcomes wait.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        self.checks.values().flat_map(|check| check.votes.iter().map(|vote| vote.attempt))
    }

    /// Takes the work that only this worker vouches for, and the work that no worker vouches for.
    fn take_unchecked(&mut self, worker: &WorkerId) -> Vec<UncheckedWork> {
        let own = self.unchecked.remove(worker);
        let inherited = std::mem::take(&mut self.inherited);
        own.into_iter().chain([inherited]).filter(|work| !work.tasks.is_empty()).collect()
    }

    /// Forgets the outcomes of this worker that wait. Returns their attempts.
    fn forget_votes(&mut self, worker: &WorkerId) -> Vec<AttemptId> {
        let mut attempts = Vec::new();
        for check in self.checks.values_mut() {
            let (own, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut check.votes).into_iter().partition(|vote| vote.worker == *worker);
            check.votes = others;
            for vote in own {
                attempts.push(vote.attempt);
                check.forgotten.push(vote.busy);
            }
        }
        attempts
    }
}

/// Workers that were set aside: pushed workers until their process is started again, pulling workers for some time.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    order: VecDeque<WorkerId>,
    /// The process of a pushed worker, and the instant since which the worker is set aside.
    workers: HashMap<WorkerId, (Option<BootId>, Instant)>,
}

impl SetAside {
    fn insert(&mut self, worker: WorkerId, boot: Option<BootId>, since: Instant) {
        if self.workers.insert(worker.clone(), (boot, since)).is_none() {
            self.order.push_back(worker);
        }
        if self.order.len() > MAX_SET_ASIDE
            && let Some(oldest) = self.order.pop_front()
        {
            self.workers.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, worker: &WorkerId, delivery: &Delivery) -> bool {
        self.workers.get(worker).is_some_and(|(known, _)| *known == boot(delivery))
    }

    /// The instant at which a pulling worker is trusted again.
    pub(crate) fn readmitted_at(&self, worker: &WorkerId) -> Option<Instant> {
        let (boot, since) = self.workers.get(worker)?;
        boot.is_none().then(|| *since + PULLED_SET_ASIDE)
    }

    /// Forgets the pulling workers whose time is over.
    fn take_ended(&mut self, now: Instant) -> BTreeSet<WorkerId> {
        let has_ended = |(boot, since): &(Option<BootId>, Instant)| {
            boot.is_none() && now.saturating_duration_since(*since) >= PULLED_SET_ASIDE
        };
        let over = self.workers.iter().filter(|(_, entry)| has_ended(entry));
        let over: BTreeSet<_> = over.map(|(worker, _)| worker.clone()).collect();
        if !over.is_empty() {
            self.workers.retain(|worker, _| !over.contains(worker));
            self.order.retain(|worker| !over.contains(worker));
        }
        over
    }
}

fn boot(delivery: &Delivery) -> Option<BootId> {
    match delivery {
        Delivery::Pushed { boot_id } => Some(*boot_id),
        Delivery::Pulled => None,
    }
}

/// Spreads the bits of an attempt's id, together with a number that no worker knows: none can tell which of its leases
/// are compared. The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn spread(secret: u64, attempt: AttemptId) -> u64 {
    let (high, low) = attempt.0.as_u64_pair();
    let mut mixed = secret ^ high.rotate_left(32) ^ low;
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 32)
}

impl Engine {
    /// Whether an attempt's outcome waits for another worker's.
    #[must_use]
    pub fn is_compared(&self, attempt: AttemptId) -> bool {
        self.unsettled.contains_key(&attempt)
    }

    /// Whether another worker runs the tasks of an attempt, too: one of the two is a second attempt.
    #[must_use]
    pub fn has_rival(&self, attempt: AttemptId) -> bool {
        self.scheduler.has_rival(attempt)
    }

    /// Whether an attempt's outcome is known but not committed: its worker keeps it.
    #[must_use]
    pub fn is_unsettled(&self, attempt: AttemptId) -> bool {
        self.is_compared(attempt) || self.durability.is_pending(attempt)
    }

    /// Keeps workers set aside that were so under earlier coordinators. To be called before workers join.
    pub fn keep_set_aside(&mut self, workers: Vec<SetAsideWorker>, now: Now) {
        for SetAsideWorker { id, boot, at } in workers {
            self.set_aside.insert(id, boot, now.instant_of(at));
        }
    }

    /// Takes the pulling workers that were set aside for long enough. They get tasks once they have joined again.
    pub fn take_readmitted(&mut self, now: Now) -> BTreeSet<WorkerKey> {
        let over = self.set_aside.take_ended(now.instant);
        if over.is_empty() {
            return BTreeSet::new();
        }
        let is_readmitted = |worker: &Worker| worker.is_set_aside() && over.contains(&worker.id);
        self.workers.iter().filter(|(_, worker)| is_readmitted(worker)).map(|(key, _)| *key).collect()
    }

    /// Decides about an accepted outcome. An outcome that waits has ended its lease.
    pub(crate) fn verify(
        &mut self,
        lease: &ActiveLease,
        accepted: Accepted,
        busy: Duration,
        now: Now,
    ) -> Result<Verdict, StaleAttempt> {
        let ActiveLease { attempt, job, tasks, lane, .. } = lease.clone();
        let secret = self.settings.secret;
        let Some(Worker { id, delivery, .. }) = self.workers.get(&lane.worker) else {
            return Ok(Verdict::Counts(accepted));
        };
        let (worker, delivery) = (id.clone(), *delivery);
        let Some(verification) = self.jobs.get_mut(&job).and_then(|live| live.verification.as_mut()) else {
            return Ok(Verdict::Counts(accepted));
        };
        let values = (accepted.value, accepted.check);
        let is_under_way = verification.checks.get(&tasks.start).is_some_and(|check| check.tasks == tasks);
        if !is_under_way && !verification.share.includes(spread(secret, attempt)) {
            verification.unchecked.entry(worker).or_default().add(tasks, values);
            return Ok(Verdict::Counts(accepted));
        }
        let vote = Vote { worker: worker.clone(), key: lane.worker, delivery, attempt, values, busy };
        let new = || Check { tasks: tasks.clone(), votes: Vec::new(), forgotten: Vec::new() };
        let check = verification.checks.entry(tasks.start).or_insert_with(new);
        let is_decided = check.votes.iter().any(|other| other.values == values);
        check.votes.push(vote);
        if is_decided {
            self.decide(job, tasks.start, values, now);
            return Ok(Verdict::Counts(accepted));
        }
        self.unsettled.insert(attempt, job);
        self.scheduler.contest(attempt, worker, busy)?;
        Ok(Verdict::Waits)
    }

    /// Decides after two workers have reported the same: workers with other reports were wrong.
    fn decide(&mut self, job: JobId, first: u64, values: (u128, u128), now: Now) {
        let Some(live) = self.jobs.get_mut(&job) else { return };
        let Some(verification) = live.verification.as_mut() else { return };
        let Some(Check { tasks, votes, mut forgotten }) = verification.checks.remove(&first) else { return };
        // The last vote is the attempt that counts with the outcome.
        let before = votes.len().saturating_sub(1);
        forgotten.extend(votes.iter().take(before).map(|vote| vote.busy));
        let others = forgotten;
        live.ended_attempts += others.len() as u64;
        let (right, wrong): (Vec<_>, Vec<_>) = votes.into_iter().partition(|vote| vote.values == values);
        let is_mismatch = !wrong.is_empty();
        verification.counts.compared += 1;
        verification.counts.mismatches += u64::from(is_mismatch);
        for vote in &wrong {
            self.unsettled.remove(&vote.attempt);
        }
        for vote in right {
            // The attempt is settled with the change that is recorded next; the last vote is the attempt that the change is
            // recorded for.
            if self.unsettled.remove(&vote.attempt).is_some() {
                self.agreed.push((vote.attempt, vote.key));
            }
        }
        self.record(job, ChangeKind::Compared { tasks, others, is_mismatch }, now);
        for vote in &wrong {
            self.set_worker_aside(vote, job, now);
        }
    }

    /// Sets aside a worker that has reported a wrong outcome: it gets nothing more, and work that only it vouches for is computed
    /// anew.
    fn set_worker_aside(&mut self, vote: &Vote, shown_by: JobId, now: Now) {
        let name = &vote.worker;
        let registered = self.workers.iter().filter(|(_, worker)| worker.id == *name);
        let registered: Vec<_> = registered.map(|(key, worker)| (*key, worker.delivery)).collect();
        // A worker that has left may come back as the same process.
        let delivery = registered.last().map_or(vote.delivery, |(_, delivery)| *delivery);
        let worker = SetAsideWorker { id: name.clone(), boot: boot(&delivery), at: now.at };
        self.set_aside.insert(worker.id.clone(), worker.boot, now.instant);
        for (key, _) in registered {
            self.distrust(key, now);
        }
        let verified = self.jobs.iter().filter(|(_, live)| live.verification.is_some());
        let verified: Vec<_> = verified.map(|(id, _)| *id).collect();
        for job in verified {
            self.compute_anew(job, &worker, job == shown_by, now);
        }
    }

    fn compute_anew(&mut self, job: JobId, worker: &SetAsideWorker, has_shown_it: bool, now: Now) {
        let name = &worker.id;
        let Some(live) = self.jobs.get_mut(&job) else { return };
        let Some(verification) = live.verification.as_mut() else { return };
        for attempt in verification.forget_votes(name) {
            self.unsettled.remove(&attempt);
        }
        let doubtful = verification.take_unchecked(name);
        if doubtful.is_empty() && !has_shown_it {
            return;
        }
        if !verification.set_aside.contains(name) {
            verification.set_aside.push(name.clone());
        }
        let runs: Vec<Range<u64>> = doubtful.iter().flat_map(|work| work.tasks.iter().cloned()).collect();
        let tasks: u64 = runs.iter().map(|run| run.end - run.start).sum();
        verification.counts.recomputed_tasks += tasks;
        let sum = |of: fn(&UncheckedWork) -> u128| doubtful.iter().map(of).fold(0_u128, u128::wrapping_add);
        let (value, check) = (sum(|work| work.value), sum(|work| work.check));
        live.check = live.check.wrapping_sub(check);
        live.progress.add(-runs.iter().map(|run| live.work.weight(run)).sum::<f64>());
        // The job exists, or its verification would have ended.
        let _ = self.scheduler.reopen(job, &runs, value);
        let tasks = counted(tasks, "task was", "tasks were");
        let notice = format!("the worker {name} was set aside: its results were wrong; {tasks} computed anew");
        self.record(job, ChangeKind::Reopened { tasks: runs, value, check, notice, worker: worker.clone() }, now);
    }
}
