//! A job: its tasks, the speed that workers have shown on it, and its place in the queue.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::{AttemptId, JobState, Priority, TaskCounts};

use crate::figures::JobFigures;
use crate::id_map::IdMap;
use crate::lease::WorkerKey;
use crate::queue::{ClassId, QueuePlace};
use crate::spec::{History, JobSpec};
use crate::speed::{Round, Speed, lease_target};
use crate::tasks::TaskSet;
use crate::workers::Workers;

/// Speeds of workers that are gone are dropped when a job has this many more than there are workers.
const SPARE_SPEEDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) class: ClassId,
    pub(crate) tasks: TaskSet,
    pub(crate) leases: BTreeSet<AttemptId>,
    pub(crate) total: u128,
    pub(crate) is_paused: bool,
    /// Whether the job's open tasks can be adopted but not claimed.
    pub(crate) is_held: bool,
    pub(crate) has_started: bool,
    /// Grows with every lease: the job with the oldest turn is next.
    pub(crate) turn: u64,
    /// Start of the wait for the next lease.
    pub(crate) waiting_since: Instant,
    /// Start of the wait for a first worker: the submission, the last retry or the resumption.
    pub(crate) patient_since: Instant,
    /// Turns that the job lost to jobs that suited the worker better.
    pub(crate) passed_over: u8,
    /// The job's place in the queue while it waits.
    pub(crate) place: Option<QueuePlace>,
    /// The job's last contribution to the scheduler's figures.
    pub(crate) counted: Option<JobFigures>,
    /// The leases of one size that are being given out.
    pub(crate) round: Option<Round>,
    speeds: IdMap<WorkerKey, Speed>,
    latest_speed: Option<Speed>,
    best_speed: Option<(WorkerKey, Speed)>,
}

impl Job {
    /// `pace` is the factor between the duration and the estimate of tasks of another job of the class.
    pub(crate) fn new(
        spec: JobSpec,
        class: ClassId,
        turn: u64,
        history: &History,
        pace: Option<f64>,
        now: Instant,
    ) -> Self {
        Self {
            tasks: TaskSet::new(spec.tasks, spec.last_task_waits, history),
            class,
            leases: BTreeSet::new(),
            total: history.total,
            is_paused: history.is_paused,
            is_held: history.is_held,
            has_started: history.has_started,
            turn,
            waiting_since: now,
            patient_since: now,
            passed_over: 0,
            place: None,
            counted: None,
            round: None,
            speeds: IdMap::default(),
            latest_speed: spec.task_estimate.map(|task| Speed::estimate(task, pace)),
            best_speed: None,
            spec,
        }
    }

    pub(crate) fn counts(&self) -> TaskCounts {
        TaskCounts {
            total: self.spec.tasks,
            pending: self.tasks.unclaimed() + self.tasks.waiting(),
            running: self.tasks.held(),
            succeeded: self.tasks.done(),
            failed: self.tasks.failed(),
        }
    }

    pub(crate) fn state(&self) -> JobState {
        match (self.is_paused, self.has_started) {
            (true, _) => JobState::Paused,
            (false, true) => JobState::Running,
            (false, false) => JobState::Queued,
        }
    }

    /// The job's present contribution to the scheduler's figures.
    pub(crate) fn figures(&self, target: Duration) -> JobFigures {
        JobFigures {
            kind: self.spec.kind,
            priority: self.spec.priority,
            state: self.state(),
            counts: self.counts(),
            claimable: if self.is_paused { 0 } else { self.tasks.claimable() },
            wanted_slots: self.wanted_slots(target),
        }
    }

    /// Slots that could work on the job now: one for each lease, and one for each full lease that its open tasks make.
    fn wanted_slots(&self, target: Duration) -> u64 {
        if self.spec.brings_workers {
            return 0;
        }
        let target = lease_target(target, self.spec.setup);
        let tasks = self.latest_speed.map_or(1, |speed| speed.tasks_in(target)).min(self.spec.max_lease_tasks);
        let more = if self.is_paused { 0 } else { self.tasks.unclaimed().div_ceil(tasks.max(1)) };
        self.leases.len() as u64 + more
    }

    /// The place in the queue that the job should have now. Tasks that failed go back at the highest priority.
    pub(crate) fn place_due(&self) -> Option<QueuePlace> {
        let waits = !self.is_paused && !self.is_held && self.tasks.unclaimed() > 0;
        let priority = if self.tasks.has_retries() { Priority::HIGHEST } else { self.spec.priority };
        waits.then_some(QueuePlace { class: self.class, level: priority.get(), turn: self.turn })
    }

    /// The level of the job's place, raised by the time of waiting.
    pub(crate) fn aged_level(&self, level: u8, aging_interval: Duration, now: Instant) -> u8 {
        let waited = now.saturating_duration_since(self.waiting_since).as_nanos();
        let added = u8::try_from(waited / aging_interval.as_nanos().max(1)).unwrap_or(u8::MAX);
        level.saturating_add(added).min(Priority::HIGHEST.get())
    }

    pub(crate) fn speed(&self, worker: WorkerKey) -> Option<Speed> {
        self.speeds.get(&worker).copied().or(self.latest_speed)
    }

    /// The best speed that a worker which is still there has shown; the latest one where the best worker is gone.
    pub(crate) fn best_speed(&self, workers: &Workers) -> Option<Speed> {
        let (worker, best) = self.best_speed?;
        if workers.get(worker).is_some() { Some(best) } else { self.latest_speed }
    }

    /// Learns from a lease of `tasks` tasks that took `busy`, some `setup` of it before the first.
    pub(crate) fn learn_speed(
        &mut self,
        worker: WorkerKey,
        tasks: u64,
        busy: Duration,
        setup: Duration,
        workers: &Workers,
    ) {
        let speed = Speed::learn(self.speeds.get(&worker).copied(), tasks, busy, setup);
        self.speeds.insert(worker, speed);
        self.latest_speed = Some(speed);
        let keeps = |(best_worker, best): (WorkerKey, Speed)| {
            best_worker != worker && !best.is_slower_than(speed) && workers.get(best_worker).is_some()
        };
        if !self.best_speed.is_some_and(keeps) {
            self.best_speed = Some((worker, speed));
        }
        if self.speeds.len() > 2 * workers.len() + SPARE_SPEEDS {
            self.speeds.retain(|worker, _| workers.get(*worker).is_some());
        }
    }

    /// Recent duration of the job's tasks, in multiples of their estimate.
    pub(crate) fn pace(&self) -> Option<f64> {
        self.latest_speed?.pace(self.spec.task_estimate?)
    }

    /// Tasks of the shortest run that is worth a set-up of its own.
    pub(crate) fn least_half(&self, worker: WorkerKey) -> u64 {
        self.speed(worker).map_or(1, |speed| speed.tasks_in(self.spec.setup))
    }

    #[cfg(test)]
    pub(crate) fn known_speeds(&self) -> usize {
        self.speeds.len()
    }
}
