//! The state machine: jobs, the workers that may serve them, and the leases between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::{AttemptId, JobId};

use crate::event::{Event, JobError, Progress};
use crate::job::{Job, Run};
use crate::lease::{Failure, Lease, Outcome, StaleAttempt, UnknownWorker, WorkerKey};
use crate::pace::{lease_size, lease_target};

/// A lease may take this many times what was expected, on top of [`Policy::lease_timeout`], before it expires.
const EXPECTED_TIMES: u32 = 10;

/// The most that an expectation can add to a lease's time.
const MAX_EXPECTED_PATIENCE: Duration = Duration::from_hours(24);

/// Settings of the core.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A task's attempts that may fail before its job does; at least 1.
    pub max_attempts: u32,
    /// Work that a lease should carry.
    pub lease_target: Duration,
    /// How long a lease may take beyond what its worker has shown.
    pub lease_timeout: Duration,
    /// How long a job waits for the first worker of an empty pool.
    pub no_worker_timeout: Duration,
}

/// What there is to know of a job.
#[derive(Clone, Copy, Debug)]
pub struct JobSpec {
    /// It has the tasks `0..tasks`.
    pub tasks: u64,
    /// What a lease pays before its first task, about: leases are made long enough for it.
    pub setup: Duration,
}

/// The job cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// A job of this id is there already.
    #[error("a job of this id is there already")]
    Duplicate,
    /// A job has at least one task.
    #[error("a job has at least one task")]
    NoTasks,
}

#[derive(Debug)]
struct Worker {
    slots: u32,
    held: BTreeSet<AttemptId>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Active,
    /// Takes nothing new until it is resumed.
    Suspended,
    /// Takes nothing new; leaves with its last lease.
    Retired,
}

#[derive(Debug)]
struct Held {
    job: JobId,
    run: Run,
    worker: WorkerKey,
    expires_at: Instant,
}

/// Jobs, workers and leases. See the crate's description for the contract of every method.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    jobs: HashMap<JobId, Job>,
    /// Jobs with unclaimed tasks; the first has the next turn.
    turns: VecDeque<JobId>,
    workers: BTreeMap<WorkerKey, Worker>,
    leases: HashMap<AttemptId, Held>,
    expiries: BTreeSet<(Instant, AttemptId)>,
    /// Slots of the active workers.
    slots: u64,
    /// Since when there is no active worker.
    pool_empty_since: Option<Instant>,
    last_attempt: u64,
    events: VecDeque<Event>,
}

impl Scheduler {
    /// A scheduler without jobs and workers.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            jobs: HashMap::new(),
            turns: VecDeque::new(),
            workers: BTreeMap::new(),
            slots: 0,
            leases: HashMap::new(),
            expiries: BTreeSet::new(),
            pool_empty_since: Some(now),
            last_attempt: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes a job.
    ///
    /// # Errors
    /// The id is in use, or there are no tasks.
    pub fn submit(&mut self, job: JobId, spec: JobSpec, now: Instant) -> Result<(), SubmitError> {
        if spec.tasks == 0 {
            return Err(SubmitError::NoTasks);
        }
        if self.jobs.contains_key(&job) {
            return Err(SubmitError::Duplicate);
        }
        self.jobs.insert(job, Job::new(spec, now));
        self.turns.push_back(job);
        Ok(())
    }

    /// Ends a job without an answer and revokes its leases. A job that is over already stays so.
    pub fn cancel(&mut self, job: JobId) {
        self.remove_job(job);
    }

    /// Adds a worker that computes `slots` leases at the same time.
    pub fn worker_joined(&mut self, worker: WorkerKey, slots: u32) {
        self.workers.insert(worker, Worker { slots, held: BTreeSet::new(), standing: Standing::Active });
        self.slots += u64::from(slots);
        self.pool_empty_since = None;
    }

    /// Stops giving leases to a worker until it is resumed; those it holds stay good.
    pub fn worker_suspended(&mut self, worker: WorkerKey, now: Instant) {
        self.deactivate(worker, Standing::Suspended, now);
    }

    /// Gives leases to a suspended worker again.
    pub fn worker_resumed(&mut self, worker: WorkerKey) {
        if let Some(back) = self.workers.get_mut(&worker).filter(|worker| worker.standing == Standing::Suspended) {
            back.standing = Standing::Active;
            self.slots += u64::from(back.slots);
            self.pool_empty_since = None;
        }
    }

    /// Stops giving leases to a worker for good; those it holds stay good.
    pub fn worker_retired(&mut self, worker: WorkerKey, now: Instant) {
        self.deactivate(worker, Standing::Retired, now);
        if let Some(leaving) = self.workers.get_mut(&worker) {
            leaving.standing = Standing::Retired;
        }
        self.drop_if_drained(worker);
    }

    /// Ends a worker and the leases it holds; their tasks are the next to be given out.
    pub fn worker_lost(&mut self, worker: WorkerKey, now: Instant) {
        self.deactivate(worker, Standing::Retired, now);
        let Some(lost) = self.workers.remove(&worker) else { return };
        for attempt in lost.held {
            // The first of them may have failed a job and so revoked the others.
            if let Some(held) = self.take_lease(attempt) {
                self.return_failed(held, Failure::WorkerLost);
            }
        }
        self.forget_paces(worker);
    }

    /// Gives `worker` the tasks that are best for it now, if any: what came back before what is new, jobs in turn.
    ///
    /// A worker with all slots busy gets one ahead only while enough is left for every slot of the pool.
    ///
    /// # Errors
    /// The worker is not in the pool, or takes nothing now.
    pub fn claim(&mut self, worker: WorkerKey, now: Instant) -> Result<Option<Lease>, UnknownWorker> {
        let active = |worker: &&Worker| worker.standing == Standing::Active;
        let claimant = self.workers.get(&worker).filter(active).ok_or(UnknownWorker)?;
        if claimant.held.len() as u64 >= u64::from(claimant.slots) && !self.has_unclaimed_for(self.slots) {
            return Ok(None);
        }
        let has_peers = self.slots > u64::from(claimant.slots);
        let avoid = has_peers.then_some(worker);
        for turn in 0..self.turns.len() {
            let id = self.turns[turn];
            let job = self.jobs.get_mut(&id).expect("only jobs that are there have a turn");
            let target = lease_target(self.policy.lease_target, job.setup);
            let limit = lease_size(job.pace(worker), target, job.unclaimed(), self.slots);
            let Some(run) = job.take(limit, avoid) else { continue };
            self.turns.remove(turn);
            if job.unclaimed() > 0 {
                self.turns.push_back(id);
            }
            return Ok(Some(self.lease(id, run, worker, now)));
        }
        Ok(None)
    }

    /// Counts an outcome.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn complete(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), StaleAttempt> {
        let held = self.end_lease(attempt)?;
        let still_here = self.workers.contains_key(&held.worker);
        let job = self.jobs.get_mut(&held.job).expect("a lease's job is there");
        if still_here {
            job.learn_pace(held.worker, held.run.len(), outcome.busy);
        }
        job.done += held.run.len();
        job.total += outcome.value;
        if job.done == job.tasks {
            let total = job.total;
            self.jobs.remove(&held.job);
            self.events.push_back(Event::JobSucceeded { job: held.job, total });
        }
        Ok(())
    }

    /// Takes the tasks of a failed attempt back, or fails the job when it was the last attempt allowed. What a retired
    /// worker loses does not count as an attempt: a lease may have been on its way when it left.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn fail(&mut self, attempt: AttemptId, cause: Failure) -> Result<(), StaleAttempt> {
        let is_leaving = self.is_leaving(attempt)?;
        let held = self.end_lease(attempt)?;
        if is_leaving && cause == Failure::WorkerLost {
            self.return_run(held);
        } else {
            self.return_failed(held, cause);
        }
        Ok(())
    }

    /// Takes the tasks of an attempt back that its worker gives up. From a retired worker it does not count as an
    /// attempt; any other has no reason to.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn hand_back(&mut self, attempt: AttemptId) -> Result<(), StaleAttempt> {
        let is_leaving = self.is_leaving(attempt)?;
        let held = self.end_lease(attempt)?;
        if is_leaving {
            self.return_run(held);
        } else {
            self.return_failed(held, Failure::Refused("its worker handed it back".to_owned()));
        }
        Ok(())
    }

    /// When [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(expires_at, _)| *expires_at);
        // Jobs are looked at only while the pool is empty.
        let waiting = self.pool_empty_since.and(Some(&self.turns)).into_iter().flatten();
        let give_up = waiting.filter_map(|id| self.give_up_at(&self.jobs[id])).min();
        expiry.into_iter().chain(give_up).min()
    }

    /// Ends the leases that have expired and the jobs that have waited too long for a worker.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((expires_at, attempt)) = self.expiries.first().copied()
            && expires_at <= now
        {
            let held = self.end_lease(attempt).expect("an expiry belongs to a lease");
            self.events.push_back(Event::LeaseRevoked { attempt });
            self.return_failed(held, Failure::Expired);
        }
        let waited_out = |id: &&JobId| self.give_up_at(&self.jobs[*id]).is_some_and(|give_up_at| give_up_at <= now);
        let waited_out: Vec<_> = self.turns.iter().filter(waited_out).copied().collect();
        for id in waited_out {
            self.fail_job(id, JobError::NoWorker { waited: self.policy.no_worker_timeout });
        }
    }

    /// What happened since the last poll, the oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether any task waits for a worker.
    #[must_use]
    pub fn has_unclaimed(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Tasks that wait for a worker, over all jobs.
    #[must_use]
    pub fn unclaimed_tasks(&self) -> u64 {
        self.turns.iter().map(|id| self.jobs[id].unclaimed()).fold(0, u64::saturating_add)
    }

    /// Leases that `worker` holds.
    #[must_use]
    pub fn leases_of(&self, worker: WorkerKey) -> usize {
        self.workers.get(&worker).map_or(0, |worker| worker.held.len())
    }

    /// How far a job is; `None` when it is over.
    #[must_use]
    pub fn progress(&self, job: JobId) -> Option<Progress> {
        self.jobs.get(&job).map(|job| Progress { tasks: job.tasks, done: job.done })
    }

    /// Whether at least as many tasks are unclaimed as there are slots.
    fn has_unclaimed_for(&self, slots: u64) -> bool {
        let mut missing = slots;
        self.turns.iter().any(|id| {
            missing = missing.saturating_sub(self.jobs[id].unclaimed());
            missing == 0
        })
    }

    fn deactivate(&mut self, worker: WorkerKey, standing: Standing, now: Instant) {
        let Some(idle) = self.workers.get_mut(&worker).filter(|worker| worker.standing == Standing::Active) else {
            return;
        };
        idle.standing = standing;
        self.slots -= u64::from(idle.slots);
        if self.slots == 0 {
            self.pool_empty_since = Some(now);
        }
    }

    fn forget_paces(&mut self, worker: WorkerKey) {
        for job in self.jobs.values_mut() {
            job.forget_pace(worker);
        }
    }

    fn lease(&mut self, job: JobId, run: Run, worker: WorkerKey, now: Instant) -> Lease {
        self.last_attempt += 1;
        let attempt = AttemptId(self.last_attempt);
        let expected = self.jobs[&job].pace(worker).map_or(Duration::ZERO, |pace| pace.expect(run.len()));
        let patience = expected.saturating_mul(EXPECTED_TIMES).min(MAX_EXPECTED_PATIENCE) + self.policy.lease_timeout;
        let expires_at = now + patience;
        let lease = Lease { attempt, job, tasks: run.tasks.clone(), expires_at };
        self.workers.get_mut(&worker).expect("the claimant is in the pool").held.insert(attempt);
        self.expiries.insert((expires_at, attempt));
        self.leases.insert(attempt, Held { job, run, worker, expires_at });
        lease
    }

    /// Whether the attempt's worker is retired.
    fn is_leaving(&self, attempt: AttemptId) -> Result<bool, StaleAttempt> {
        let worker = self.leases.get(&attempt).ok_or(StaleAttempt)?.worker;
        Ok(self.workers.get(&worker).is_some_and(|worker| worker.standing == Standing::Retired))
    }

    /// Ends a lease whose worker may be alive.
    fn end_lease(&mut self, attempt: AttemptId) -> Result<Held, StaleAttempt> {
        let held = self.take_lease(attempt).ok_or(StaleAttempt)?;
        self.workers.get_mut(&held.worker).expect("a lease's worker is in the pool").held.remove(&attempt);
        self.drop_if_drained(held.worker);
        Ok(held)
    }

    fn take_lease(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.leases.remove(&attempt)?;
        self.expiries.remove(&(held.expires_at, attempt));
        Some(held)
    }

    fn return_failed(&mut self, mut held: Held, cause: Failure) {
        held.run.failures += 1;
        if held.run.failures >= self.policy.max_attempts {
            let Run { tasks, failures: attempts, .. } = held.run;
            self.fail_job(held.job, JobError::AttemptsExhausted { tasks, attempts, cause });
        } else {
            self.return_run(held);
        }
    }

    fn return_run(&mut self, held: Held) {
        let job = self.jobs.get_mut(&held.job).expect("a lease's job is there");
        if job.unclaimed() == 0 {
            self.turns.push_front(held.job);
        }
        job.give_back(Run { last_worker: Some(held.worker), ..held.run });
    }

    fn fail_job(&mut self, id: JobId, error: JobError) {
        if self.remove_job(id) {
            self.events.push_back(Event::JobFailed { job: id, error });
        }
    }

    fn remove_job(&mut self, id: JobId) -> bool {
        if self.jobs.remove(&id).is_none() {
            return false;
        }
        self.turns.retain(|turn| *turn != id);
        let revoked: BTreeSet<_> =
            self.leases.iter().filter(|(_, held)| held.job == id).map(|(attempt, _)| *attempt).collect();
        for attempt in revoked {
            let held = self.take_lease(attempt).expect("it was just listed");
            if let Some(worker) = self.workers.get_mut(&held.worker) {
                worker.held.remove(&attempt);
            }
            self.drop_if_drained(held.worker);
            self.events.push_back(Event::LeaseRevoked { attempt });
        }
        true
    }

    fn drop_if_drained(&mut self, worker: WorkerKey) {
        let is_drained = |worker: &Worker| worker.standing == Standing::Retired && worker.held.is_empty();
        if self.workers.get(&worker).is_some_and(is_drained) {
            self.workers.remove(&worker);
            self.forget_paces(worker);
        }
    }

    /// When a job with unclaimed tasks stops waiting for a first worker.
    fn give_up_at(&self, job: &Job) -> Option<Instant> {
        self.pool_empty_since.map(|since| since.max(job.submitted_at) + self.policy.no_worker_timeout)
    }
}

#[cfg(test)]
impl Scheduler {
    pub(crate) fn live_attempts(&self) -> BTreeSet<AttemptId> {
        self.leases.keys().copied().collect()
    }

    /// Every invariant that one look at the state can show.
    pub(crate) fn check(&self) {
        for (id, job) in &self.jobs {
            let leased = self.leases.values().filter(|held| held.job == *id).map(|held| held.run.tasks.clone());
            job.check(leased);
            let turns = self.turns.iter().filter(|turn| *turn == id).count();
            assert_eq!(turns, usize::from(job.unclaimed() > 0), "one turn for a job with unclaimed tasks, else none");
        }
        assert!(self.turns.iter().all(|id| self.jobs.contains_key(id)), "a turn without a job");
        for (attempt, held) in &self.leases {
            assert!(self.jobs.contains_key(&held.job), "a lease without a job");
            assert!(self.workers[&held.worker].held.contains(attempt), "a lease that its worker does not list");
            assert!(self.expiries.contains(&(held.expires_at, *attempt)), "a lease that never expires");
        }
        assert_eq!(self.expiries.len(), self.leases.len());
        assert_eq!(self.workers.values().map(|worker| worker.held.len()).sum::<usize>(), self.leases.len());
        assert!(
            self.workers.values().all(|worker| worker.standing != Standing::Retired || !worker.held.is_empty()),
            "a ghost worker"
        );
        let active = self.workers.values().filter(|worker| worker.standing == Standing::Active);
        assert_eq!(active.map(|worker| u64::from(worker.slots)).sum::<u64>(), self.slots);
        assert_eq!(self.pool_empty_since.is_some(), self.slots == 0);
        assert!(self.turns.is_empty() || self.slots > 0 || self.poll_timeout().is_some(), "nobody's task");
    }
}
