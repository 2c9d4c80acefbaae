//! Who gets what: the choice of a job for a slot, and the lease that comes of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId};

use super::{Held, MAX_PATIENCE, Scheduler, times};
use crate::event::Event;
use crate::lease::{Lane, Lease, LeaseSize, UnknownWorker, WorkerKey};
use crate::pace::{lease_size, lease_target};
use crate::pool::Worker;
use crate::queue::{Rank, Suits};
use crate::stragglers::late_after;
use crate::tasks::{Offer, Run};

/// A lease may take this many times what was expected, on top of [`Policy::lease_timeout`], before it expires.
const EXPECTED_TIMES: u32 = 10;

/// The most that an expectation can add to a lease's time.
const MAX_EXPECTED_PATIENCE: Duration = Duration::from_hours(24);

/// A round trip is nothing beside a task that takes longer: it is better off where a slot is free.
const LONGEST_AHEAD: Duration = Duration::from_secs(1);

/// Jobs of one line that are compared by how well the worker suits them.
const AFFINITY_WINDOW: usize = 8;

/// Jobs of one line that are looked at: where so many have nothing for a worker now, those behind can wait.
const MAX_LOOKED_AT: usize = 256;

/// A job at the head of a line loses no more turns than this to jobs that suit the worker better.
const MAX_PASSED_OVER: u8 = 8;

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

impl Scheduler {
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
}
