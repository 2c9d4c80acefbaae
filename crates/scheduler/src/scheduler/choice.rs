//! The choice of a job for a slot.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use model::JobId;

use super::Scheduler;
use crate::lease::Lane;
use crate::queue::{ClassId, Line, Rank, Suits, WINDOW};
use crate::tasks::{Claimant, Offer};
use crate::workers::Worker;

/// A task that takes longer does not wait behind another lease: the time of a round trip does not matter, and another slot may
/// be free earlier.
const LONGEST_AHEAD: Duration = Duration::from_secs(1);

/// Jobs of one line that are tried: if so many have nothing for a worker now, the rest can wait.
const MAX_LOOKED_AT: usize = 256;

/// Most turns that the first job of a line loses to jobs that suit the worker better.
const MAX_PASSED_OVER: u8 = 8;

/// The slot that a job is chosen for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeker<'a> {
    pub(super) worker: &'a Worker,
    pub(super) lane: Lane,
    /// Whether the slot is busy: the lease would wait at the worker.
    pub(super) is_ahead: bool,
    /// Most tasks of the lease.
    pub(super) most: u64,
    pub(super) now: Instant,
}

/// A job, and the place to cut the lease.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) job: JobId,
    pub(super) offer: Offer,
    /// Jobs whose turn it was, but that suit the worker less.
    pub(super) passed_over: Vec<JobId>,
}

/// A job that has something for the slot.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    rank: Rank,
    /// The priority, not raised by the time of waiting.
    level: u8,
    job: JobId,
    offer: Offer,
    /// Whether the lease is too long to wait behind another lease.
    is_too_long: bool,
}

impl Scheduler {
    /// The job with the best rank that has something for the slot. A busy slot gets nothing when the best job is too long
    /// to wait behind another lease: the slot has to fall free for it.
    pub(super) fn best_for(&self, seeker: &Seeker<'_>) -> Option<Choice> {
        let mut candidates = Vec::new();
        let mut outside: Option<Candidate> = None;
        for class in self.classes_for(seeker.worker) {
            for (level, line) in self.queue.lines(class) {
                self.look_at(line, class, level, seeker, &mut candidates);
                let waiting_longest = line.outside().and_then(|entry| self.candidate(entry, class, level, seeker));
                outside = outside.into_iter().chain(waiting_longest).max_by_key(|candidate| candidate.rank);
            }
        }
        let mut best = *candidates.iter().max_by_key(|candidate| candidate.rank)?;
        // A job outside of the window of its line goes before higher priorities if it has waited long enough, but waiting
        // does not lift it above others of its own priority: then all would take turns, and none would end.
        if let Some(outside) = outside.filter(|job| job.rank.level > best.rank.level && job.level < best.level) {
            best = outside;
        }
        if best.is_too_long {
            return None;
        }
        let lost_its_turn =
            |other: &&Candidate| other.rank.level == best.rank.level && other.rank.turn > best.rank.turn;
        let passed_over = candidates.iter().filter(lost_its_turn).map(|candidate| candidate.job).collect();
        Some(Choice { job: best.job, offer: best.offer, passed_over })
    }

    /// The classes with waiting jobs that a worker can serve.
    fn classes_for(&self, worker: &Worker) -> impl Iterator<Item = ClassId> {
        let (served, waiting) = (&self.workers.ability(worker).classes, self.queue.waiting_classes());
        let (fewer, more) = if served.len() < waiting.len() { (served, waiting) } else { (waiting, served) };
        fewer.iter().copied().filter(|class| more.contains(class))
    }

    /// Whether tasks that a worker could run wait for another worker's outcome: a worker that finds nothing has computed them.
    pub(super) fn may_be_voter(&self, worker: &Worker) -> bool {
        let lines = self.classes_for(worker).flat_map(|class| self.queue.lines(class));
        let mut jobs = lines.flat_map(|(_, line)| {
            let (first, others) = line.turns();
            first.chain(others.take(MAX_LOOKED_AT))
        });
        jobs.any(|(_, id)| self.jobs[&id].tasks.has_contested())
    }

    fn look_at(&self, line: &Line, class: ClassId, level: u8, seeker: &Seeker<'_>, candidates: &mut Vec<Candidate>) {
        let (first, others) = line.turns();
        let before = candidates.len();
        let takes = |entry| self.candidate(entry, class, level, seeker);
        candidates.extend(first.filter_map(takes));
        if candidates.len() == before {
            candidates.extend(others.take(MAX_LOOKED_AT).filter_map(takes).take(WINDOW));
        }
    }

    fn candidate(&self, (turn, id): (u64, JobId), class: ClassId, level: u8, seeker: &Seeker<'_>) -> Option<Candidate> {
        let job = &self.jobs[&id];
        let (worker, lane) = (seeker.worker, seeker.lane);
        let claimant = Claimant {
            lane,
            name: &worker.id,
            most: seeker.most,
            has_peers: self.workers.slots_for(class) > u64::from(worker.slots),
            // The lane that walks the rest may be the late one.
            least_half: if self.stragglers.has_late(id) { 1 } else { job.least_half(lane.worker) },
            now: seeker.now,
        };
        let offer = job.tasks.offer(job.spec.order, &claimant)?;
        let is_long = || job.speed(lane.worker).is_some_and(|speed| speed.expect(1) > LONGEST_AHEAD);
        // A waiting lease's time limit begins at the latest when that of the lease ahead ends: the lease ahead must have one.
        let is_untimely = || job.spec.task_timeout.is_some() && self.has_open_end(lane);
        let is_due = job.passed_over >= MAX_PASSED_OVER;
        let suits = if is_due { Suits::Here } else { self.workers.suits(worker, &job.spec.affinity) };
        let aged = job.aged_level(level, self.policy.aging_interval, seeker.now);
        let rank = Rank { level: aged, suits, turn: Reverse(turn) };
        Some(Candidate { rank, level, job: id, offer, is_too_long: seeker.is_ahead && (is_long() || is_untimely()) })
    }

    /// Whether at least as many of the tasks that this worker could run are open as there are slots for them.
    pub(super) fn has_enough_for_all(&self, worker: &Worker) -> bool {
        let slots = self.workers.ability(worker).classes.iter().map(|class| self.workers.slots_for(*class)).max();
        let open: u128 = self.classes_for(worker).map(|class| self.queue.open_tasks(class)).sum();
        open > 0 && open >= u128::from(slots.unwrap_or(0))
    }
}
