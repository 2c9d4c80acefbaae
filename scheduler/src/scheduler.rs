//! The state machine: jobs, the workers that may serve them, and the leases between the two.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::{AttemptId, JobId, JobState, Priority, TaskCounts};

use crate::event::{Event, JobError};
use crate::job::Job;
use crate::lease::{
    Counted, Failure, Lane, Lease, LeaseSize, Outcome, StaleAttempt, UnknownJob, UnknownWorker, WorkerKey,
};
use crate::pace::{lease_size, lease_target};
use crate::pool::{Pool, Standing, Worker};
use crate::queue::{Place, Queue, Rank, Suits};
use crate::spec::{History, JobSpec, OnExhausted, Policy, WorkerSpec};
use crate::stragglers::{Stragglers, late_after};
use crate::tasks::{Offer, Run};

/// A lease may take this many times what was expected, on top of [`Policy::lease_timeout`], before it expires.
const EXPECTED_TIMES: u32 = 10;

/// The most that an expectation can add to a lease's time.
const MAX_EXPECTED_PATIENCE: Duration = Duration::from_hours(24);

/// A task whose attempts ended with their workers this many times has killed them.
const MAX_KILLS: u32 = 3;

/// A round trip is nothing beside a task that takes longer: it is better off where a slot is free.
const LONGEST_AHEAD: Duration = Duration::from_secs(1);

/// Jobs of one line that are compared by how well the worker suits them.
const AFFINITY_WINDOW: usize = 8;

/// Jobs of one line that are looked at: where so many have nothing for a worker now, those behind can wait.
const MAX_LOOKED_AT: usize = 256;

/// A job at the head of a line loses no more turns than this to jobs that suit the worker better.
const MAX_PASSED_OVER: u8 = 8;

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
struct Held {
    job: JobId,
    run: Run,
    lane: Lane,
    claimed_at: Instant,
    expires_at: Instant,
    late_at: Option<Instant>,
    /// What it paid before its first task, about.
    setup: Duration,
    /// The other attempt at the same run, where there are two.
    rival: Option<AttemptId>,
}

/// What a new lease finds at its worker.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// Whether the lane's last lease ended where it starts.
    continues: bool,
    /// Leases that it waits for, as rounds of the worker's slots.
    rounds: u32,
    /// Whether the worker was sent it, and so cannot renew it.
    is_sent: bool,
}

/// Jobs, workers and leases. See the crate's description for the contract of every method.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    jobs: HashMap<JobId, Job>,
    queue: Queue,
    pool: Pool,
    leases: HashMap<AttemptId, Held>,
    expiries: BTreeSet<(Instant, AttemptId)>,
    deadlines: BTreeSet<(Instant, JobId)>,
    stragglers: Stragglers,
    /// The job that each lane walks.
    walks: BTreeMap<Lane, JobId>,
    /// Jobs that do not wait for ever for a first worker.
    impatient: BTreeSet<JobId>,
    last_turn: u64,
    /// Tasks of all jobs.
    counts: TaskCounts,
    /// Of these, those that wait, by the priorities 1 to 9 of their jobs.
    pending: [u64; 9],
    events: VecDeque<Event>,
}

impl Scheduler {
    /// A scheduler without jobs and workers.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            jobs: HashMap::new(),
            queue: Queue::default(),
            pool: Pool::default(),
            leases: HashMap::new(),
            expiries: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            stragglers: Stragglers::default(),
            walks: BTreeMap::new(),
            impatient: BTreeSet::new(),
            last_turn: 0,
            counts: TaskCounts::default(),
            pending: [0; 9],
            events: VecDeque::new(),
        }
    }

    /// Takes a job, with what it has behind it. One that has nothing before it any more ends at once.
    ///
    /// # Errors
    /// The id is in use, or there are no tasks.
    pub fn submit(&mut self, id: JobId, spec: JobSpec, history: &History, now: Instant) -> Result<(), SubmitError> {
        if spec.tasks == 0 {
            return Err(SubmitError::NoTasks);
        }
        if self.jobs.contains_key(&id) {
            return Err(SubmitError::Duplicate);
        }
        let (class, is_new) = self.queue.enter(spec.kind, &spec.requires);
        if is_new {
            self.pool.add_class(class, spec.kind, &spec.requires, now);
        }
        self.deadlines.extend(spec.deadline.map(|deadline| (deadline, id)));
        if spec.worker_wait.is_some() {
            self.impatient.insert(id);
        }
        self.last_turn += 1;
        self.jobs.insert(id, Job::new(spec, class, self.last_turn, history, now));
        self.refresh(id);
        self.end_if_over(id);
        Ok(())
    }

    /// Ends a job without an answer and revokes its leases.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn cancel(&mut self, job: JobId) -> Result<(), UnknownJob> {
        if self.remove_job(job) { Ok(()) } else { Err(UnknownJob) }
    }

    /// Gives out nothing of a job until it is resumed, and revokes its leases. Tells whether that is a change.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn pause(&mut self, id: JobId) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if std::mem::replace(&mut job.is_paused, true) {
            return Ok(false);
        }
        for attempt in self.attempts_of(id) {
            if let Some(held) = self.revoke(attempt)
                && held.rival.is_none()
            {
                self.job_mut(id).tasks.give_back(held.run);
            }
        }
        self.refresh(id);
        Ok(true)
    }

    /// Lets a paused job go on. Tells whether that is a change.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn resume(&mut self, id: JobId, now: Instant) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if !std::mem::replace(&mut job.is_paused, false) {
            return Ok(false);
        }
        job.waiting_since = now;
        self.refresh(id);
        Ok(true)
    }

    /// Opens the failed tasks of a job again. Tells whether there were any.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn retry(&mut self, id: JobId) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        let has_failed = job.tasks.failed() > 0;
        job.tasks.reopen_failed();
        self.refresh(id);
        Ok(has_failed)
    }

    /// Adds a worker.
    pub fn worker_joined(&mut self, worker: WorkerKey, spec: WorkerSpec) {
        self.pool.join(worker, spec, self.queue.classes());
    }

    /// Stops giving leases to a worker until it is resumed; those it holds stay good.
    pub fn worker_suspended(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Suspended, now);
        self.end_walks(worker);
    }

    /// Gives leases to a suspended worker again.
    pub fn worker_resumed(&mut self, worker: WorkerKey) {
        self.pool.resume(worker);
    }

    /// Stops giving leases to a worker for good; those it holds stay good.
    pub fn worker_retired(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Retired, now);
        self.end_walks(worker);
        self.drop_if_drained(worker);
    }

    /// Ends a worker and the leases it holds; their tasks are the next to be given out.
    pub fn worker_lost(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Retired, now);
        let Some(lost) = self.pool.remove(worker) else { return };
        self.end_walks(worker);
        for attempt in lost.held {
            // The first of them may have failed a job and so revoked the others.
            if let Some(held) = self.take_lease(attempt) {
                self.return_failed(held, Failure::WorkerLost);
            }
        }
        self.forget_worker(worker);
    }

    /// Gives `lane` the tasks that are best for its worker now, if any, as `attempt`, an id that was never used: the
    /// highest priority first, then what suits the worker, then jobs in turn; within a job what failed before what is
    /// new. When nothing waits, the tasks of a lease that is far past what its like took are given out a second time.
    ///
    /// A worker with all slots busy gets one ahead only while enough is left for every slot of the pool.
    ///
    /// # Errors
    /// The worker is not in the pool, or takes nothing now.
    pub fn claim(
        &mut self,
        lane: Lane,
        size: LeaseSize,
        attempt: AttemptId,
        now: Instant,
    ) -> Result<Option<Lease>, UnknownWorker> {
        let worker = self.pool.active(lane.worker)?;
        let is_ahead = size == LeaseSize::Fitting && !worker.has_free_slot();
        if is_ahead && !self.has_enough_for_all(worker) {
            return Ok(None);
        }
        let Some((id, offer, passed_over)) = self.best_for(worker, lane, is_ahead, now) else {
            return Ok(if is_ahead { None } else { self.second_attempt(lane, size, attempt, now) });
        };
        for other in passed_over {
            self.job_mut(other).passed_over += 1;
        }
        let slots = self.pool.slots_for(self.jobs[&id].class);
        self.last_turn += 1;
        let job = self.jobs.get_mut(&id).expect("the best job is there");
        let limit = match size {
            LeaseSize::AtMost(tasks) => tasks.max(1),
            LeaseSize::Fitting => {
                let target = lease_target(self.policy.lease_target, job.spec.setup);
                lease_size(job.pace(lane.worker), target, job.tasks.unclaimed(), slots)
            }
        };
        // A worker that fetches may never come back for what follows.
        let walker = (size == LeaseSize::Fitting).then_some(lane);
        let run = job.tasks.take(offer, walker, limit.min(job.spec.max_lease_tasks));
        if let Some(before) = self.walks.insert(lane, id).filter(|before| *before != id)
            && let Some(before) = self.jobs.get_mut(&before)
        {
            before.tasks.leave(lane);
        }
        let job = self.jobs.get_mut(&id).expect("the best job is there");
        job.turn = self.last_turn;
        job.waiting_since = now;
        job.passed_over = 0;
        if !std::mem::replace(&mut job.has_started, true) {
            self.events.push_back(Event::JobStarted { job: id });
        }
        if let Some(key) = &job.spec.affinity.key {
            self.pool.remember(lane.worker, key);
        }
        let (horizon, continues) = match offer {
            Offer::Open { end, continues, .. } => (end, continues),
            Offer::Retry(_) => (run.tasks.end, false),
        };
        let is_sent = size == LeaseSize::Fitting;
        let rounds = if is_sent { self.rounds_ahead(lane.worker) } else { 0 };
        let lease = self.lease(id, run, lane, attempt, Ahead { continues, rounds, is_sent }, now);
        self.refresh(id);
        Ok(Some(Lease { horizon, ..lease }))
    }

    /// Counts an outcome. If the run had a second attempt, that one loses its lease.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn complete(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<Counted, StaleAttempt> {
        let held = self.end_lease(attempt)?;
        if let Some(rival) = held.rival {
            self.revoke(rival);
        }
        let still_here = self.pool.get(held.lane.worker).is_some();
        let job = self.job_mut(held.job);
        if still_here {
            job.learn_pace(held.lane.worker, held.run.len(), outcome.busy, held.setup);
        }
        job.tasks.finish(&held.run);
        job.total += outcome.value;
        self.refresh(held.job);
        self.end_if_over(held.job);
        Ok(Counted { job: held.job, tasks: held.run.tasks })
    }

    /// Takes the tasks of a failed attempt back, or ends them when it was the last attempt allowed. What a retired
    /// worker loses does not count as an attempt: a lease may have been on its way when it left.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn fail(&mut self, attempt: AttemptId, cause: Failure) -> Result<(), StaleAttempt> {
        let is_leaving = self.is_leaving(attempt)?;
        let held = self.end_lease(attempt)?;
        if is_leaving && cause == Failure::WorkerLost {
            self.return_unharmed(held);
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
            self.return_unharmed(held);
        } else {
            self.return_failed(held, Failure::Refused("its worker handed it back".to_owned()));
        }
        Ok(())
    }

    /// Takes the tasks of an attempt back that never came to its worker: they were not tried.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn undeliverable(&mut self, attempt: AttemptId) -> Result<(), StaleAttempt> {
        let held = self.end_lease(attempt)?;
        self.return_unharmed(held);
        Ok(())
    }

    /// Lets a lease last for another [`Policy::lease_timeout`] from now, but no longer than its job's timeout for an
    /// attempt allows. Returns when it ends.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn renew(&mut self, attempt: AttemptId, now: Instant) -> Result<Instant, StaleAttempt> {
        let held = self.leases.get_mut(&attempt).ok_or(StaleAttempt)?;
        let limit =
            self.jobs[&held.job].spec.task_timeout.map(|timeout| held.claimed_at + times(timeout, held.run.len()));
        let until = (now + self.policy.lease_timeout).max(held.expires_at);
        let until = limit.map_or(until, |limit| until.min(limit));
        self.expiries.remove(&(held.expires_at, attempt));
        held.expires_at = until;
        self.expiries.insert((until, attempt));
        Ok(until)
    }

    /// When [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(expires_at, _)| *expires_at);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let give_up = self.impatient.iter().filter_map(|id| self.give_up_at(*id)).min();
        [expiry, deadline, give_up, self.stragglers.next_due()].into_iter().flatten().min()
    }

    /// Ends the leases that have expired, the jobs whose time is over and those that have waited too long for a worker.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((expires_at, attempt)) = self.expiries.first().copied()
            && expires_at <= now
        {
            let held = self.revoke(attempt).expect("an expiry belongs to a lease");
            self.return_failed(held, Failure::Expired);
        }
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.fail_job(id, JobError::TimedOut);
        }
        let waited_out: Vec<_> =
            self.impatient.iter().copied().filter(|id| self.give_up_at(*id).is_some_and(|at| at <= now)).collect();
        for id in waited_out {
            let waited = self.jobs[&id].spec.worker_wait.unwrap_or_default();
            self.fail_job(id, JobError::NoWorker { waited });
        }
        self.stragglers.note_late(now);
    }

    /// What happened since the last poll, the oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether there may be something for a free slot: a task that waits, or one worth a second attempt.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_servable = |class| self.pool.slots_for(class) > 0;
        self.queue.waiting_classes().any(is_servable) || !self.stragglers.is_empty()
    }

    /// Tasks of all jobs by where they are.
    #[must_use]
    pub fn counts(&self) -> TaskCounts {
        self.counts
    }

    /// Tasks that wait, by the priority of their jobs; the first element is priority 1.
    #[must_use]
    pub fn pending_by_priority(&self) -> [u64; 9] {
        self.pending
    }

    /// Leases that `worker` holds.
    #[must_use]
    pub fn leases_of(&self, worker: WorkerKey) -> usize {
        self.pool.get(worker).map_or(0, |worker| worker.held.len())
    }

    /// The tasks of a job by where they are; `None` when it is over.
    #[must_use]
    pub fn progress(&self, job: JobId) -> Option<TaskCounts> {
        self.jobs.get(&job).map(Job::counts)
    }

    /// Whether a job waits, runs or is paused; `None` when it is over.
    #[must_use]
    pub fn state(&self, job: JobId) -> Option<JobState> {
        let job = self.jobs.get(&job)?;
        Some(match (job.is_paused, job.has_started) {
            (true, _) => JobState::Paused,
            (false, true) => JobState::Running,
            (false, false) => JobState::Queued,
        })
    }

    /// Leases in all.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Whether an attempt holds a lease.
    #[must_use]
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.leases.contains_key(&attempt)
    }

    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a lease's job is there")
    }

    /// The job with the best rank that has something for the lane, where to cut it, and who loses a turn to it.
    fn best_for(
        &self,
        worker: &Worker,
        lane: Lane,
        is_ahead: bool,
        now: Instant,
    ) -> Option<(JobId, Offer, Vec<JobId>)> {
        let late: BTreeSet<_> = self.stragglers.late().map(|attempt| self.leases[&attempt].job).collect();
        let mut best: Option<(Rank, JobId, Offer)> = None;
        let mut compared = Vec::new();
        for class in &worker.classes {
            let has_peers = self.pool.slots_for(*class) > u64::from(worker.spec.slots);
            let avoid = has_peers.then_some(lane.worker);
            for line in self.queue.lines(*class) {
                let takeable = line.take(MAX_LOOKED_AT).filter_map(|(turn, id)| {
                    let job = &self.jobs[&id];
                    let is_long = || job.pace(lane.worker).is_some_and(|pace| pace.expect(1) > LONGEST_AHEAD);
                    if is_ahead && is_long() {
                        return None;
                    }
                    // Who walks the rest may be the one that is late.
                    let least_half = if late.contains(&id) { 1 } else { job.least_half(lane.worker) };
                    let offer = job.tasks.offer(job.spec.order, lane, avoid, least_half)?;
                    Some((turn, id, job, offer))
                });
                for (turn, id, job, offer) in takeable.take(AFFINITY_WINDOW) {
                    let level = job.place.map_or(0, |place| place.level);
                    let is_due = job.passed_over >= MAX_PASSED_OVER;
                    let suits = if is_due { Suits::Here } else { self.pool.suits(worker, &job.spec.affinity) };
                    let level = job.aged_level(level, self.policy.aging_interval, now);
                    let rank = Rank { level, suits, turn: Reverse(turn) };
                    compared.push((rank, id));
                    if best.is_none_or(|(best, ..)| best < rank) {
                        best = Some((rank, id, offer));
                    }
                }
            }
        }
        let (rank, id, offer) = best?;
        let lost_its_turn = |other: &Rank| other.level == rank.level && other.turn > rank.turn;
        let passed_over = compared.into_iter().filter(|(other, _)| lost_its_turn(other)).map(|(_, id)| id).collect();
        Some((id, offer, passed_over))
    }

    /// Whether at least as many of the tasks that this worker could run are unclaimed as there are slots for them.
    fn has_enough_for_all(&self, worker: &Worker) -> bool {
        let slots = worker.classes.iter().map(|class| self.pool.slots_for(*class));
        let mut missing = slots.max().unwrap_or(0);
        let lines = worker.classes.iter().flat_map(|class| self.queue.lines(*class));
        lines.flatten().any(|(_, id)| {
            missing = missing.saturating_sub(self.jobs[&id].tasks.unclaimed());
            missing == 0
        })
    }

    /// A second attempt at the first late lease whose job has nothing else left, which this worker may run and has not
    /// failed at, and which is not longer than what it asks for.
    fn second_attempt(&mut self, lane: Lane, size: LeaseSize, attempt: AttemptId, now: Instant) -> Option<Lease> {
        let classes = &self.pool.active(lane.worker).ok()?.classes;
        let most = match size {
            LeaseSize::Fitting => u64::MAX,
            LeaseSize::AtMost(tasks) => tasks,
        };
        let late = self.stragglers.late().find(|late| {
            let held = &self.leases[late];
            let job = &self.jobs[&held.job];
            let is_others = held.lane.worker != lane.worker && held.run.last_worker != Some(lane.worker);
            is_others && held.run.len() <= most && job.tasks.unclaimed() == 0 && classes.contains(&job.class)
        })?;
        let held = &self.leases[&late];
        let (id, run, late_at) = (held.job, held.run.clone(), held.late_at);
        self.stragglers.forget(late, late_at);
        let lease = self.lease(
            id,
            run,
            lane,
            attempt,
            Ahead { continues: false, rounds: 0, is_sent: size == LeaseSize::Fitting },
            now,
        );
        self.leases.get_mut(&late).expect("it was just there").rival = Some(attempt);
        let second = self.leases.get_mut(&attempt).expect("it was just made");
        second.rival = Some(late);
        let late_at = second.late_at;
        self.stragglers.forget(attempt, late_at);
        Some(lease)
    }

    fn lease(&mut self, id: JobId, run: Run, lane: Lane, attempt: AttemptId, ahead: Ahead, now: Instant) -> Lease {
        let job = &self.jobs[&id];
        let (spec, tasks) = (&job.spec, run.len());
        let expected = job.pace(lane.worker).map_or(Duration::ZERO, |pace| pace.expect(tasks));
        let patience = match spec.task_timeout {
            Some(timeout) => times(timeout, tasks).saturating_mul(ahead.rounds.saturating_add(1)),
            None if !ahead.is_sent => self.policy.lease_timeout,
            None => expected.saturating_mul(EXPECTED_TIMES).min(MAX_EXPECTED_PATIENCE) + self.policy.lease_timeout,
        };
        let setup = if ahead.continues { Duration::ZERO } else { spec.setup };
        let late_at =
            late_after(job.best_pace(), tasks, spec.setup, ahead.rounds).and_then(|late| now.checked_add(late));
        let expires_at = now + patience.min(MAX_PATIENCE);
        let lease = Lease { attempt, job: id, tasks: run.tasks.clone(), horizon: run.tasks.end, expires_at };
        self.pool.hold(lane.worker, attempt);
        self.expiries.insert((expires_at, attempt));
        if let Some(late_at) = late_at {
            self.stragglers.watch(attempt, late_at);
        }
        let held = Held { job: id, run, lane, claimed_at: now, expires_at, late_at, setup, rival: None };
        let before = self.leases.insert(attempt, held);
        assert!(before.is_none(), "an attempt's id was used before");
        lease
    }

    /// Leases that a new one of the worker waits for, as rounds of its slots.
    fn rounds_ahead(&self, worker: WorkerKey) -> u32 {
        self.pool.get(worker).map_or(0, Worker::rounds_ahead)
    }

    /// Whether the attempt's worker is retired.
    fn is_leaving(&self, attempt: AttemptId) -> Result<bool, StaleAttempt> {
        let worker = self.leases.get(&attempt).ok_or(StaleAttempt)?.lane.worker;
        Ok(self.pool.get(worker).is_some_and(|worker| worker.standing == Standing::Retired))
    }

    /// Ends a lease whose worker may be alive.
    fn end_lease(&mut self, attempt: AttemptId) -> Result<Held, StaleAttempt> {
        let held = self.take_lease(attempt).ok_or(StaleAttempt)?;
        self.drop_if_drained(held.lane.worker);
        Ok(held)
    }

    /// Ends a lease, and tells its worker.
    fn revoke(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.end_lease(attempt).ok()?;
        self.events.push_back(Event::LeaseRevoked { attempt });
        Some(held)
    }

    /// Removes every trace of a lease but the tasks, which the caller puts in their place. A rival goes on alone.
    fn take_lease(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.leases.remove(&attempt)?;
        self.expiries.remove(&(held.expires_at, attempt));
        self.stragglers.forget(attempt, held.late_at);
        self.pool.let_go(held.lane.worker, attempt);
        if let Some((id, rival)) = held.rival.and_then(|id| Some((id, self.leases.get_mut(&id)?))) {
            rival.rival = None;
            // It is as late as it was, and may get another second attempt.
            rival.late_at.into_iter().for_each(|late_at| self.stragglers.watch(id, late_at));
        }
        Some(held)
    }

    fn return_unharmed(&mut self, held: Held) {
        if held.rival.is_none() {
            self.job_mut(held.job).tasks.give_back(held.run);
            self.refresh(held.job);
        }
    }

    fn return_failed(&mut self, held: Held, cause: Failure) {
        let Held { job: id, mut run, lane, rival, .. } = held;
        if let Some(rival) = rival.and_then(|rival| self.leases.get_mut(&rival)) {
            // Another attempt at the same run goes on: nothing is lost yet, but this worker has had its chance.
            rival.run.failures += 1;
            rival.run.last_worker = Some(lane.worker);
            let (tasks, failures, worker) = (run.tasks, rival.run.failures, lane.worker);
            return self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, worker, cause });
        }
        run.failures += 1;
        run.kills += u32::from(cause == Failure::WorkerLost);
        run.last_worker = Some(lane.worker);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let is_exhausted = run.failures >= job.spec.max_attempts || run.kills >= MAX_KILLS;
        let (tasks, failures, worker) = (run.tasks.clone(), run.failures, lane.worker);
        match job.spec.on_exhausted {
            OnExhausted::FailJob if is_exhausted => {
                return self.fail_job(id, JobError::AttemptsExhausted { tasks, attempts: failures, cause });
            }
            // Which of several tasks is to blame shows when each is tried alone.
            OnExhausted::SkipTask if is_exhausted && run.len() == 1 => {
                job.tasks.give_up(run);
                self.events.push_back(Event::TasksFailed { job: id, tasks, failures, worker, cause });
            }
            OnExhausted::FailJob | OnExhausted::SkipTask => {
                job.tasks.give_back(run);
                self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, worker, cause });
            }
        }
        self.refresh(id);
        self.end_if_over(id);
    }

    /// Brings the queue and the counts up to what the job says.
    fn refresh(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let due = job.place_due();
        if job.place != due {
            job.place.into_iter().for_each(|place: Place| self.queue.remove(place));
            due.into_iter().for_each(|place| self.queue.insert(place, id));
            job.place = due;
        }
        let counts = job.counts();
        let (before, priority) = (std::mem::replace(&mut job.counted, counts), job.spec.priority);
        self.recount(priority, before, counts);
    }

    fn recount(&mut self, priority: Priority, before: TaskCounts, after: TaskCounts) {
        let all = &mut self.counts;
        for (all, before, after) in [
            (&mut all.total, before.total, after.total),
            (&mut all.pending, before.pending, after.pending),
            (&mut all.running, before.running, after.running),
            (&mut all.succeeded, before.succeeded, after.succeeded),
            (&mut all.failed, before.failed, after.failed),
            (&mut self.pending[usize::from(priority.get()) - 1], before.pending, after.pending),
        ] {
            *all = all.wrapping_sub(before).wrapping_add(after);
        }
    }

    /// Ends a job that has nothing before it any more.
    fn end_if_over(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let counts = job.counts();
        if counts.pending > 0 || counts.running > 0 {
            return;
        }
        let total = job.total;
        self.remove_job(id);
        self.events.push_back(if counts.failed == 0 {
            Event::JobSucceeded { job: id, total }
        } else {
            let error = JobError::TasksFailed { failed: counts.failed, total: counts.total };
            Event::JobFailed { job: id, error }
        });
    }

    fn fail_job(&mut self, id: JobId, error: JobError) {
        if self.remove_job(id) {
            self.events.push_back(Event::JobFailed { job: id, error });
        }
    }

    fn remove_job(&mut self, id: JobId) -> bool {
        if !self.jobs.contains_key(&id) {
            return false;
        }
        for attempt in self.attempts_of(id) {
            self.revoke(attempt);
        }
        let job = self.jobs.remove(&id).expect("it was just there");
        job.place.into_iter().for_each(|place| self.queue.remove(place));
        if self.queue.leave(job.class) {
            self.pool.remove_class(job.class);
        }
        if let Some(deadline) = job.spec.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.impatient.remove(&id);
        self.recount(job.spec.priority, job.counted, TaskCounts::default());
        true
    }

    fn attempts_of(&self, id: JobId) -> BTreeSet<AttemptId> {
        self.leases.iter().filter(|(_, held)| held.job == id).map(|(attempt, _)| *attempt).collect()
    }

    fn drop_if_drained(&mut self, worker: WorkerKey) {
        if self.pool.is_drained(worker) {
            self.pool.remove(worker);
            self.forget_worker(worker);
        }
    }

    /// Others may go on where the worker's lanes were.
    fn end_walks(&mut self, worker: WorkerKey) {
        let lanes = Lane { worker, slot: 0 }..=Lane { worker, slot: u32::MAX };
        let ended: Vec<_> = self.walks.range(lanes).map(|(lane, id)| (*lane, *id)).collect();
        for (lane, id) in ended {
            self.walks.remove(&lane);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.tasks.leave(lane);
            }
        }
    }

    fn forget_worker(&mut self, worker: WorkerKey) {
        for job in self.jobs.values_mut() {
            job.forget_worker(worker);
        }
    }

    /// When a job that waits for a first worker stops waiting.
    fn give_up_at(&self, id: JobId) -> Option<Instant> {
        let job = &self.jobs[&id];
        job.place?;
        let since = self.pool.unserved_since(job.class)?;
        Some(since.max(job.submitted_at) + job.spec.worker_wait?)
    }
}

/// The longest that a lease may take, so that no sum of instants overflows.
const MAX_PATIENCE: Duration = Duration::from_hours(24 * 366);

/// `timeout` for each of `tasks` tasks.
fn times(timeout: Duration, tasks: u64) -> Duration {
    timeout.saturating_mul(u32::try_from(tasks).unwrap_or(u32::MAX)).min(MAX_PATIENCE)
}

#[cfg(test)]
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
