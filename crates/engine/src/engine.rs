//! The engine's state and the inputs that concern it as a whole.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, WorkerId};
use scheduler::{AttemptFailure, Event, IdMap, Lane, Policy, Scheduler, WorkerKey};
use store::{Change, ChangeKind};

use crate::attempts::AttemptIds;
use crate::claims::Claims;
use crate::composing::Composing;
use crate::durability::Durability;
use crate::effect::{Effect, JobFailure};
use crate::ending::Ending;
use crate::jobs::LiveJob;
use crate::rates::Throughput;
use crate::recent_attempts::RecentAttempts;
use crate::time::Now;
use crate::verification::SetAside;
use crate::workers::Worker;

/// Registrations of one epoch are numbered in so many bits.
const WORKERS_OF_A_TERM_BITS: u32 = 32;

/// Settings of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Settings of the scheduler.
    pub policy: Policy,
    /// Numbers from a task's first to its last, for new jobs that divide a range.
    pub chunk_size: NonZeroU64,
    /// Longest time that a job whose client waits may be without any worker before the job fails.
    pub worker_wait: Duration,
    /// Recorded changes that may wait for the store before no more work is leased.
    pub max_unstored: u64,
    /// Time for which the tasks of jobs that ran under the last coordinator wait for the workers that hold them.
    pub recovery: Duration,
    /// This coordinator's epoch, which grows from one to the next.
    pub epoch: u64,
    /// A random number of this process.
    pub instance: u64,
    /// Another random number, which no worker learns: it decides which leases are compared.
    pub secret: u64,
}

/// The state of the coordinator; see the crate's description.
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) scheduler: Scheduler,
    pub(crate) jobs: IdMap<JobId, LiveJob>,
    pub(crate) workers: IdMap<WorkerKey, Worker>,
    pub(crate) claims: Claims,
    pub(crate) composing: Composing,
    pub(crate) durability: Durability,
    pub(crate) ending: Ending,
    /// Attempts that have failed: each counts once.
    pub(crate) voided: RecentAttempts,
    /// Attempts that have expired or did not arrive in time: a late report is taken while their tasks are open.
    pub(crate) expired: RecentAttempts,
    pub(crate) attempts: AttemptIds,
    pub(crate) throughput: Throughput,
    /// Jobs with attempts that have ended since the last tick.
    pub(crate) progressed: BTreeSet<JobId>,
    /// Slots whose first lease has its head start, by its end.
    pub(crate) head_starts: BTreeSet<(Instant, Lane)>,
    /// Suspended workers, by the end of their pause.
    pub(crate) pauses: BTreeSet<(Instant, WorkerKey)>,
    /// Suspended workers, those that were set aside included, by their names.
    pub(crate) suspended: BTreeSet<(WorkerId, WorkerKey)>,
    /// Jobs of the last coordinator whose workers have not announced their leases, and the end of the wait for them.
    pub(crate) recovering: Option<(Instant, Vec<JobId>)>,
    /// Attempts whose outcomes wait for another worker's, with their jobs.
    pub(crate) unsettled: IdMap<AttemptId, JobId>,
    /// Attempts whose outcomes count with the change that is recorded next.
    pub(crate) agreed: Vec<(AttemptId, WorkerKey)>,
    pub(crate) set_aside: SetAside,
    /// Workers that have not listed their leases since this coordinator leads.
    pub(crate) awaited: BTreeSet<WorkerId>,
    pub(crate) is_stopping: bool,
    pub(crate) effects: Vec<Effect>,
    last_worker: u64,
}

impl Engine {
    /// An engine without jobs and workers.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        Self {
            scheduler: Scheduler::new(settings.policy),
            attempts: AttemptIds::new(settings.epoch, settings.instance),
            settings,
            jobs: IdMap::default(),
            workers: IdMap::default(),
            claims: Claims::default(),
            composing: Composing::default(),
            durability: Durability::default(),
            ending: Ending::default(),
            voided: RecentAttempts::default(),
            expired: RecentAttempts::default(),
            throughput: Throughput::new(now.instant),
            progressed: BTreeSet::new(),
            head_starts: BTreeSet::new(),
            pauses: BTreeSet::new(),
            suspended: BTreeSet::new(),
            recovering: None,
            unsettled: IdMap::default(),
            agreed: Vec::new(),
            set_aside: SetAside::default(),
            awaited: BTreeSet::new(),
            is_stopping: false,
            effects: Vec::new(),
            // A key of one term names no worker of another.
            last_worker: settings.epoch << WORKERS_OF_A_TERM_BITS,
        }
    }

    /// Takes the effects of the calls since the last time.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// This coordinator's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.settings.epoch
    }

    /// The instant at which [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let head_start = self.head_starts.first().map(|(until, _)| *until);
        let pause = self.pauses.first().map(|(until, _)| *until);
        let recovery = self.recovering.as_ref().map(|(until, _)| *until);
        let others = [head_start, pause, recovery, self.composing.next_retry(), self.scheduler.poll_timeout()];
        others.into_iter().flatten().min()
    }

    /// Acts on the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.recovering.as_ref().is_some_and(|(until, _)| *until <= now.instant) {
            self.end_recovery();
        }
        while let Some((until, worker)) = self.pauses.first().copied()
            && until <= now.instant
        {
            self.pauses.remove(&(until, worker));
            self.resume_if_alive(worker, now);
        }
        self.scheduler.handle_timeout(now.instant);
        self.settle(now);
        while let Some((until, lane)) = self.head_starts.first().copied()
            && until <= now.instant
        {
            self.end_head_start(lane);
            self.fill_slot(lane, now);
        }
        self.composing.start_due(now.instant, &mut self.effects);
        self.dispatch(now);
    }

    /// Notes progress; to be called every second.
    pub fn tick(&mut self, now: Now) {
        self.throughput.tick(now.instant);
        for id in std::mem::take(&mut self.progressed) {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let Some(counts) = self.scheduler.progress(id) else { continue };
            job.rate.tick(counts.succeeded, now.instant);
            job.progress.tick(now.instant);
            if job.is_stored {
                self.record(id, ChangeKind::Progress, now);
            }
        }
        self.dispatch(now);
    }

    /// Notes that the store has committed or refused the first `number` recorded changes.
    pub fn stored(&mut self, number: u64, now: Now) {
        for (attempt, worker) in self.durability.stored(number) {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.settle(attempt);
            }
        }
        self.ending.stored(number);
        self.dispatch(now);
    }

    /// Ends the jobs that clients wait for and leases nothing more. Workers go on with stored jobs.
    pub fn stop(&mut self, now: Now) {
        self.is_stopping = true;
        let waiting: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.is_stored).map(|(id, _)| *id).collect();
        for id in waiting {
            self.drop_job(id, now);
            self.effects.push(Effect::Answer { job: id, answer: Err(JobFailure::Stopping) });
        }
    }

    pub(crate) fn next_worker_key(&mut self) -> WorkerKey {
        self.last_worker += 1;
        WorkerKey(self.last_worker)
    }

    pub(crate) fn worker_name(&self, worker: WorkerKey) -> String {
        self.workers.get(&worker).map_or_else(String::new, |worker| WorkerId::to_string(&worker.id))
    }

    /// Records a change of a stored job.
    pub(crate) fn record(&mut self, job: JobId, kind: ChangeKind, now: Now) -> u64 {
        self.effects.push(Effect::Store(Change { job, at: now.at, kind }));
        self.durability.recorded()
    }

    /// Acts on the scheduler's events, then fills the slots that have fallen free: a lease that is claimed for a slot goes out
    /// before the next one is claimed for it.
    pub(crate) fn settle(&mut self, now: Now) {
        let mut vacated = Vec::new();
        while let Some(event) = self.scheduler.poll_event() {
            match event {
                Event::JobStarted { job } => {
                    if let Some(live) = self.jobs.get_mut(&job) {
                        live.started_at = Some(now.at);
                    }
                    if self.is_stored(job) {
                        self.record(job, ChangeKind::Started, now);
                    }
                }
                Event::AttemptFailed { job, tasks, failures, attempt, lane, cause } => {
                    let (worker, error) = (self.worker_name(lane.worker), cause.to_string());
                    let timed_out = timed_out(attempt, &cause);
                    let change = ChangeKind::AttemptFailed { tasks, failures, timed_out, worker, error };
                    self.note_failed_attempt(job, change, now);
                }
                Event::TasksFailed { job, tasks, failures, attempt, lane, cause } => {
                    if let Some(live) = self.jobs.get_mut(&job) {
                        live.progress.fail(live.work.weight(&tasks));
                    }
                    let (worker, error) = (self.worker_name(lane.worker), cause.to_string());
                    let timed_out = timed_out(attempt, &cause);
                    let change = ChangeKind::TasksFailed { tasks, failures, timed_out, worker, error };
                    self.note_failed_attempt(job, change, now);
                }
                Event::JobSucceeded { job, total } => self.job_succeeded(job, total, now),
                Event::JobFailed { job, error } => self.job_failed(job, error, now),
                Event::LeaseRevoked { attempt, job, lane, reason } => {
                    let outlives_connection = self.is_stored(job);
                    self.effects.push(Effect::Revoke { attempt, worker: lane.worker, reason, outlives_connection });
                    self.lease_revoked(attempt, job, lane, reason, now);
                    vacated.push((attempt, lane));
                }
            }
        }
        for (attempt, lane) in &vacated {
            self.free_slot(*attempt, *lane, now);
        }
        for (_, lane) in vacated {
            self.fill_slot(lane, now);
        }
    }

    fn note_failed_attempt(&mut self, id: JobId, kind: ChangeKind, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.ended_attempts += 1;
        if job.is_stored {
            self.progressed.insert(id);
            self.record(id, kind, now);
        }
    }
}

/// The attempt if it reached its time limit.
fn timed_out(attempt: AttemptId, cause: &AttemptFailure) -> Option<AttemptId> {
    matches!(cause, AttemptFailure::TimedOut { .. }).then_some(attempt)
}
