//! One job: its tasks, what has been learned of their cost, and where it stands.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::{Priority, TaskCounts};

use crate::lease::WorkerKey;
use crate::pace::Pace;
use crate::queue::{ClassId, Place};
use crate::spec::{History, JobSpec};
use crate::tasks::TaskSet;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) class: ClassId,
    pub(crate) submitted_at: Instant,
    pub(crate) tasks: TaskSet,
    pub(crate) total: u128,
    pub(crate) is_paused: bool,
    pub(crate) has_started: bool,
    /// Grows with every lease: who had one longest ago is the next.
    pub(crate) turn: u64,
    /// Since when it waits for its next lease.
    pub(crate) waiting_since: Instant,
    /// Turns it lost to jobs that suited the worker better.
    pub(crate) passed_over: u8,
    /// Where it stands in the queue, while it waits.
    pub(crate) place: Option<Place>,
    /// As it was last added to the scheduler's counts.
    pub(crate) counted: TaskCounts,
    paces: HashMap<WorkerKey, Pace>,
    latest_pace: Option<Pace>,
}

impl Job {
    pub(crate) fn new(spec: JobSpec, class: ClassId, turn: u64, history: &History, now: Instant) -> Self {
        Self {
            tasks: TaskSet::new(spec.tasks, history),
            class,
            submitted_at: now,
            total: history.total,
            is_paused: history.is_paused,
            has_started: history.has_started,
            turn,
            waiting_since: now,
            passed_over: 0,
            place: None,
            counted: TaskCounts::default(),
            paces: HashMap::new(),
            latest_pace: spec.task_estimate.map(Pace::estimate),
            spec,
        }
    }

    pub(crate) fn counts(&self) -> TaskCounts {
        TaskCounts {
            total: self.spec.tasks,
            pending: self.tasks.unclaimed(),
            running: self.tasks.held(),
            succeeded: self.tasks.done(),
            failed: self.tasks.failed(),
        }
    }

    /// Where it should stand in the queue now. What failed goes back at the highest priority.
    pub(crate) fn place_due(&self) -> Option<Place> {
        let waits = !self.is_paused && self.tasks.unclaimed() > 0;
        let priority = if self.tasks.has_retries() { Priority::HIGHEST } else { self.spec.priority };
        waits.then_some(Place { class: self.class, level: priority.get(), turn: self.turn })
    }

    /// The level of its place with what waiting has added.
    pub(crate) fn aged_level(&self, level: u8, aging_interval: Duration, now: Instant) -> u8 {
        let waited = now.saturating_duration_since(self.waiting_since).as_nanos();
        let added = u8::try_from(waited / aging_interval.as_nanos().max(1)).unwrap_or(u8::MAX);
        level.saturating_add(added).min(Priority::HIGHEST.get())
    }

    pub(crate) fn pace(&self, worker: WorkerKey) -> Option<Pace> {
        self.paces.get(&worker).copied().or(self.latest_pace)
    }

    /// The best that any worker has shown.
    pub(crate) fn best_pace(&self) -> Option<Pace> {
        self.paces.values().copied().reduce(Pace::faster)
    }

    /// Learns from a lease of `tasks` tasks that took `busy`, some `setup` of it before the first.
    pub(crate) fn learn_pace(&mut self, worker: WorkerKey, tasks: u64, busy: Duration, setup: Duration) {
        let pace = Pace::learn(self.paces.get(&worker).copied(), tasks, busy, setup);
        self.paces.insert(worker, pace);
        self.latest_pace = Some(pace);
    }

    pub(crate) fn forget_worker(&mut self, worker: WorkerKey) {
        self.paces.remove(&worker);
    }

    /// Tasks of the least run that is worth a set-up of its own.
    pub(crate) fn least_half(&self, worker: WorkerKey) -> u64 {
        self.pace(worker).map_or(1, |pace| pace.tasks_in(self.spec.setup))
    }
}
