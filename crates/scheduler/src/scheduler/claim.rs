//! Cuts and records the lease of a choice.

use std::time::{Duration, Instant};

use model::{AttemptId, JobId};

use super::choice::{Choice, Seeker};
use super::{LeaseRecord, MAX_LEASE_TIME, Scheduler, times};
use crate::event::Event;
use crate::lease::{Lane, Lease, LeaseSize, UnknownWorker};
use crate::queue::ClassId;
use crate::speed::{lease_size, lease_target};
use crate::stragglers::late_after;
use crate::tasks::{Offer, Run, Slope};
use crate::workers::Worker;

/// Factor between the time after which a lease expires and its expected time, beside [`crate::Policy::lease_timeout`].
const EXPECTED_TIMES: u32 = 10;

/// Largest contribution of the expected time to a lease's time.
const MAX_EXPECTED_TIME: Duration = Duration::from_hours(24);

/// Late leases of one class that are tried for a second attempt.
const MAX_LATE_LOOKED_AT: usize = 64;

/// The circumstances in which a lease starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) claimed_at: Instant,
    /// Whether the lane's last lease ended where it starts.
    pub(super) continues: bool,
    /// Number of leases that the slot runs before this one.
    pub(super) rounds: u32,
    /// Whether the lease is pushed to the worker, which need not renew it.
    pub(super) is_pushed: bool,
}

impl Scheduler {
    /// Gives `lane` the tasks that are best for its worker now, if any, as `attempt`, an id that was never used: the
    /// highest priority first, then the job that suits the worker, then jobs in turn; within a job returned tasks before
    /// new ones. When nothing waits, the tasks of a lease that is far past the usual time are given out a second time.
    ///
    /// A busy slot gets one lease ahead only while enough is left for every slot.
    ///
    /// # Errors
    /// The worker is unknown, suspended or retired.
    pub fn claim(
        &mut self,
        lane: Lane,
        size: LeaseSize,
        attempt: AttemptId,
        now: Instant,
    ) -> Result<Option<Lease>, UnknownWorker> {
        let worker = self.workers.active(lane.worker)?;
        let is_ahead = size == LeaseSize::Fitting && worker.leases_of_slot(lane.slot).next().is_some();
        let most = match size {
            LeaseSize::Fitting => u64::MAX,
            LeaseSize::AtMost(tasks) => tasks,
        };
        let was_offered = self.offered.take_if(|offered| *offered == lane).is_some();
        let lease = if is_ahead && !self.has_enough_for_all(worker) {
            None
        } else if let Some(choice) = self.best_for(&Seeker { worker, lane, is_ahead, most, now }) {
            Some(self.take(choice, lane, size, attempt, now))
        } else if is_ahead {
            None
        } else {
            self.second_attempt(lane, size, attempt, now)
        };
        if lease.is_some() {
            self.workers.slot_gone(lane);
        } else if was_offered || (size == LeaseSize::Fitting && !is_ahead) {
            let is_voter = |worker: &Worker| self.may_be_voter(worker) || self.has_computed_late_run(worker);
            let is_voter = self.workers.get(lane.worker).is_some_and(is_voter);
            self.workers.note_miss(lane.worker, !is_voter);
        }
        Ok(lease)
    }

    fn take(&mut self, choice: Choice, lane: Lane, size: LeaseSize, attempt: AttemptId, now: Instant) -> Lease {
        let Choice { job: id, offer, passed_over } = choice;
        for other in passed_over {
            self.job_mut(other).passed_over += 1;
        }
        let is_pushed = size == LeaseSize::Fitting;
        let limit = self.lease_tasks(id, lane, size);
        let place = self.jobs[&id].place.expect("a chosen job stands in the queue");
        self.queue.count_turn(place);
        // A worker that pulls may never come back for the tasks that follow.
        let job = self.job_mut(id);
        let slope = Slope::of(&job.spec).filter(|_| is_pushed);
        let (offer, limit) =
            slope.map_or_else(|| (offer.in_whole_leases(limit), limit), |slope| slope.cut(offer, limit));
        let limit = limit.min(job.spec.max_lease_tasks);
        let limit = job.tasks.within_section(offer, &job.spec.sections, limit);
        let run = job.tasks.take(offer, is_pushed.then_some(lane), limit);
        if is_pushed {
            self.walk(lane, id);
        } else {
            self.end_walk(lane);
        }
        self.note_turn(id, lane, now);
        let (horizon, continues) = match offer {
            Offer::Open { end, continues, .. } => (end, continues),
            Offer::Returned(_) => (run.tasks.end, false),
        };
        let rounds = if is_pushed { self.leases_ahead(lane) } else { 0 };
        let lease = self.start(id, run, lane, attempt, Start { claimed_at: now, continues, rounds, is_pushed });
        self.refresh(id);
        Lease { horizon, ..lease }
    }

    /// Most tasks that a lease may have.
    fn lease_tasks(&mut self, id: JobId, lane: Lane, size: LeaseSize) -> u64 {
        let job = self.jobs.get_mut(&id).expect("the job is there");
        let (slots, open) = (self.workers.slots_for(job.class), job.tasks.unclaimed());
        let tasks = match size {
            // Workers that wait for tasks share the open tasks.
            LeaseSize::AtMost(tasks) => tasks.min(open.div_ceil(1 + self.workers.idle_for(job.class))).max(1),
            LeaseSize::Fitting => {
                let target = lease_target(self.policy.lease_target, job.spec.setup);
                let idle = slots.saturating_sub(job.leases.len() as u64);
                let work = job.tasks.unclaimed_work(Slope::of(&job.spec));
                lease_size(job.speed(lane.worker), target, &mut job.round, work, slots, idle)
            }
        };
        tasks.min(job.spec.max_lease_tasks)
    }

    /// Notes that the lane walks this job now, and no other.
    pub(super) fn walk(&mut self, lane: Lane, id: JobId) {
        if self.walks.get(&lane).is_some_and(|before| *before != id) {
            self.end_walk(lane);
        }
        self.walks.insert(lane, id);
    }

    /// Notes that the job got a lease: others have their turns before its next lease.
    pub(super) fn note_turn(&mut self, id: JobId, lane: Lane, now: Instant) {
        self.last_turn += 1;
        let job = self.jobs.get_mut(&id).expect("the job is there");
        job.turn = self.last_turn;
        job.waiting_since = now;
        job.passed_over = 0;
        if !std::mem::replace(&mut job.has_started, true) {
            self.events.push_back(Event::JobStarted { job: id });
        }
        if let Some(key) = &job.spec.affinity.key {
            self.workers.remember(lane.worker, key);
        }
    }

    /// A second attempt at a late lease whose job has nothing else left, which this worker may run and has not failed at,
    /// and which is not longer than the claim asks for. Both attempts may fail within the job's `max_attempts`:
    /// otherwise second attempts could follow each other for ever, each of them begun before the last one fails.
    fn second_attempt(&mut self, lane: Lane, size: LeaseSize, attempt: AttemptId, now: Instant) -> Option<Lease> {
        let worker = self.workers.get(lane.worker)?;
        let most = match size {
            LeaseSize::Fitting => u64::MAX,
            LeaseSize::AtMost(tasks) => tasks,
        };
        let suits = |late: &AttemptId| {
            let record = &self.leases[late];
            let is_others = record.lane.worker != lane.worker && record.run.last_worker != Some(lane.worker);
            let may_both_fail = record.run.may_fail_twice(self.jobs[&record.job].spec.max_attempts);
            is_others && may_both_fail && record.run.len() <= most && !record.run.voters.contains(&worker.id)
        };
        let late = self.late_for(worker).find(suits)?;
        let record = &self.leases[&late];
        let (id, run, late_at) = (record.job, record.run.clone(), record.late_at);
        self.stragglers.forget(id, late, late_at);
        let is_pushed = size == LeaseSize::Fitting;
        let start = Start { claimed_at: now, continues: false, rounds: 0, is_pushed };
        let lease = self.start(id, run, lane, attempt, start);
        self.leases.get_mut(&late).expect("it was just there").rival = Some(attempt);
        let second = self.leases.get_mut(&attempt).expect("it was just made");
        second.rival = Some(late);
        let late_at = second.late_at;
        self.stragglers.forget(id, attempt, late_at);
        self.refresh(id);
        Some(lease)
    }

    /// The late leases that are tried for a worker.
    fn late_for(&self, worker: &Worker) -> impl Iterator<Item = AttemptId> {
        let late_of = move |class: ClassId| {
            let jobs = self.stragglers.ready_jobs(class);
            jobs.flat_map(move |job| self.stragglers.late(job)).take(MAX_LATE_LOOKED_AT)
        };
        self.workers.ability(worker).classes.iter().copied().flat_map(late_of)
    }

    /// Whether a worker gets no second attempt at a late run because it has computed the run, whose outcomes are compared.
    fn has_computed_late_run(&self, worker: &Worker) -> bool {
        self.late_for(worker).any(|late| self.leases[&late].run.voters.contains(&worker.id))
    }

    /// Records a lease.
    pub(super) fn start(&mut self, id: JobId, run: Run, lane: Lane, attempt: AttemptId, start: Start) -> Lease {
        let Start { claimed_at, continues, rounds, is_pushed } = start;
        let waits_with_limit = rounds > 0 && self.jobs[&id].spec.task_timeout.is_some();
        let waits_until = if waits_with_limit { self.limit_of_slot(lane) } else { None };
        // The limit begins when the leases ahead that have none have ended.
        let is_limited_later = waits_with_limit && self.has_open_end(lane);
        let job = self.jobs.get_mut(&id).expect("the job is there");
        let (spec, tasks) = (&job.spec, run.len());
        let expected = job.speed(lane.worker).map_or(Duration::ZERO, |speed| speed.expect(tasks));
        let task_timeout = spec.task_timeout.filter(|_| !is_limited_later);
        let each = task_timeout.map(|limit| times(limit, tasks).saturating_add(spec.lease_slack));
        let limit = each.map(|each| each.saturating_mul(rounds.saturating_add(1)));
        let time = match limit {
            Some(limit) => limit,
            None if !is_pushed => self.policy.lease_timeout,
            None => expected.saturating_mul(EXPECTED_TIMES).min(MAX_EXPECTED_TIME) + self.policy.lease_timeout,
        };
        let expires_at = claimed_at + time.min(MAX_LEASE_TIME);
        // The lease ahead may be of a job with a longer time limit.
        let after_others = waits_until.zip(each).map(|(until, each)| until + each.min(MAX_LEASE_TIME));
        let expires_at = after_others.map_or(expires_at, |after| after.max(expires_at));
        let limit_at = limit.map(|_| expires_at);
        // A worker that pulls and does not renew its lease may be gone, long before the time limit of the tasks.
        let expires_at = if is_pushed { expires_at } else { expires_at.min(claimed_at + self.policy.lease_timeout) };
        let setup = if continues { Duration::ZERO } else { spec.setup };
        let late_after = late_after(job.best_speed(&self.workers), tasks, spec.setup, rounds);
        let late_at = late_after.and_then(|late| claimed_at.checked_add(late));
        job.leases.insert(attempt);
        self.workers.hold(lane, attempt);
        self.expiries.insert((expires_at, attempt));
        if let Some(late_at) = late_at {
            self.stragglers.watch(attempt, late_at);
        }
        let lease = Lease { attempt, job: id, tasks: run.tasks.clone(), horizon: run.tasks.end, expires_at };
        let has_waited = rounds > 0;
        let record = LeaseRecord {
            job: id,
            run,
            lane,
            claimed_at,
            queued_at: claimed_at,
            has_waited,
            was_overtaken: false,
            is_silent: false,
            expires_at,
            limit_at,
            late_at,
            setup,
            rival: None,
        };
        let before = self.leases.insert(attempt, record);
        assert!(before.is_none(), "an attempt's id was used before");
        lease
    }

    /// The latest time limit of the leases of a slot.
    fn limit_of_slot(&self, lane: Lane) -> Option<Instant> {
        self.slot_records(lane).filter_map(|(_, record)| record.limit_at).max()
    }

    /// Whether a lease of the slot has no time limit.
    pub(super) fn has_open_end(&self, lane: Lane) -> bool {
        self.slot_records(lane).any(|(_, record)| record.limit_at.is_none())
    }

    /// The leases of a slot.
    pub(super) fn slot_records(&self, lane: Lane) -> impl Iterator<Item = (AttemptId, &LeaseRecord)> {
        let of_slot =
            self.workers.get(lane.worker).into_iter().flat_map(move |worker| worker.leases_of_slot(lane.slot));
        of_slot.filter_map(|attempt| Some((*attempt, self.leases.get(attempt)?)))
    }

    /// Number of leases that a new lease of the slot waits for.
    pub(super) fn leases_ahead(&self, lane: Lane) -> u32 {
        u32::try_from(self.slot_records(lane).count()).unwrap_or(u32::MAX)
    }
}
