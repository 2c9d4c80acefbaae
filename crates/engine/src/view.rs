//! Views of jobs and workers.

use std::ops::Range;

use jiff::Timestamp;
use model::{JobId, JobKind, TaskCounts, WorkerId};
use scheduler::{Demand, JobCounts, WorkerKey};

use crate::engine::Engine;
use crate::time::Now;
use crate::verification::{Verification, VerificationView};
use crate::workers::{Standing, Suspension};

/// A job that is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Time of its first lease; `None` while it is queued.
    pub started_at: Option<Timestamp>,
    /// Its tasks by state.
    pub counts: TaskCounts,
    /// Attempts at its tasks that completed or failed, each of those that are compared included, and those under way.
    pub attempts: u64,
    /// The share of its work that is done, 0 to 1.
    pub fraction: f64,
    /// Seconds until its end at the present rate, once it is known.
    pub seconds_left: Option<f64>,
    /// Tasks done a second, once it is known.
    pub tasks_per_second: Option<f64>,
    /// Numbers searched, for kinds that search a range.
    pub numbers_done: Option<u128>,
    /// Verification of a share of the job's leases.
    pub verification: Option<VerificationView>,
}

/// Tasks of a job that are leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedTasks {
    /// The tasks.
    pub tasks: Range<u64>,
    /// The worker.
    pub worker: Option<WorkerId>,
    /// Time at which the tasks were leased.
    pub allocated_at: Timestamp,
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Whether leases are sent to it; else it pulls.
    pub is_pushed: bool,
    /// Whether the worker gets leases.
    pub standing: Standing,
    /// Its suspension, while it is suspended.
    pub suspension: Option<Suspension>,
    /// Kinds that it named and does not run.
    pub lacks: Vec<JobKind>,
    /// Leases that it has.
    pub leases: usize,
    /// Tasks that it has completed since it joined.
    pub completed_tasks: u64,
    /// Numbers a second that one slot of it searches, once it is known.
    pub numbers_per_second: Option<f64>,
}

impl Engine {
    /// A job's view; `None` when the job is over. A job whose result is being stored has the counts of a finished job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let total = self.jobs.get(&id)?.work.tasks();
        let all_done = TaskCounts { total, succeeded: total, ..TaskCounts::default() };
        self.figures(id, self.scheduler.progress(id).unwrap_or(all_done))
    }

    /// One job with these counts; `None` when it is over.
    pub(crate) fn figures(&self, id: JobId, counts: TaskCounts) -> Option<JobView> {
        let live = self.jobs.get(&id)?;
        let under_way = self.scheduler.job_leases(id).count() as u64;
        let compared = live.verification.as_ref().map_or(0, Verification::ended_attempts);
        let numbers_done = match counts.succeeded {
            0 => live.work.numbers(&(0..1)).map(|_| 0),
            done => live.work.numbers(&(0..done)).map(model::NumberRange::len),
        };
        Some(JobView {
            started_at: live.started_at,
            counts,
            // The weights of tasks do not add up to that of all in every digit.
            fraction: if counts.succeeded == counts.total {
                1.0
            } else {
                live.progress.fraction().min(1.0 - f64::EPSILON)
            },
            seconds_left: live.progress.seconds_left(),
            attempts: live.ended_attempts + compared + under_way,
            tasks_per_second: live.rate.per_second(),
            numbers_done,
            verification: live.verification.as_ref().map(Verification::view),
        })
    }

    /// The last figures of a job that has ended, while its end is not stored.
    #[must_use]
    pub fn last_figures(&self, id: JobId) -> Option<JobView> {
        self.ending.figures(id).cloned()
    }

    /// The share of its work that a job has done, in billionths, if its tasks differ in their work; `None` too when it is over.
    #[must_use]
    pub fn work_done(&self, id: JobId) -> Option<u32> {
        let live = self.jobs.get(&id).filter(|live| live.is_stored && live.work.is_uneven())?;
        Some(live.progress.billionths())
    }

    /// The time of a job's first lease, also of one that has ended while its end is not stored.
    #[must_use]
    pub fn started_at(&self, id: JobId) -> Option<Timestamp> {
        match self.jobs.get(&id) {
            Some(live) => live.started_at,
            None => self.ending.figures(id)?.started_at,
        }
    }

    /// A job's kind; `None` when the job is over.
    #[must_use]
    pub fn kind(&self, id: JobId) -> Option<JobKind> {
        self.jobs.get(&id).map(|live| live.kind)
    }

    /// The tasks of a job that are leased, by their numbers.
    #[must_use]
    pub fn leased_tasks(&self, id: JobId, now: Now) -> Vec<LeasedTasks> {
        let mut leased: Vec<_> = self
            .scheduler
            .job_leases(id)
            .map(|lease| LeasedTasks {
                tasks: lease.tasks,
                worker: self.workers.get(&lease.lane.worker).map(|worker| worker.id.clone()),
                allocated_at: now.calendar(lease.claimed_at),
            })
            .collect();
        leased.sort_by_key(|leased| leased.tasks.start);
        leased
    }

    /// A worker's view; `None` if the engine does not know the worker.
    #[must_use]
    pub fn worker(&self, key: WorkerKey) -> Option<WorkerView> {
        let worker = self.workers.get(&key)?;
        Some(WorkerView {
            id: worker.id.clone(),
            is_pushed: worker.is_pushed(),
            standing: worker.standing(),
            suspension: self.suspension(worker),
            lacks: worker.lacks.clone(),
            leases: self.scheduler.leases_of(key),
            completed_tasks: worker.completed_tasks,
            numbers_per_second: worker.speed.numbers_per_second(),
        })
    }

    /// The progress of every job that is not over.
    #[must_use]
    pub fn progress(&self) -> Vec<JobView> {
        self.jobs.keys().filter_map(|id| self.job(*id)).collect()
    }

    /// Whether a client waits for the answer of a job that is not stored.
    #[must_use]
    pub fn has_waiting_clients(&self) -> bool {
        self.jobs.values().any(|job| !job.is_stored)
    }

    /// Tasks of all jobs by state.
    #[must_use]
    pub fn task_counts(&self) -> TaskCounts {
        let mut counts = self.scheduler.counts();
        // The scheduler has forgotten the jobs whose results are being stored.
        for id in self.composing.jobs() {
            let tasks = self.jobs.get(&id).map_or(0, |live| live.work.tasks());
            counts.total = counts.total.wrapping_add(tasks);
            counts.succeeded = counts.succeeded.wrapping_add(tasks);
        }
        counts
    }

    /// Jobs by state. A job whose result is being stored is running.
    #[must_use]
    pub fn job_counts(&self) -> JobCounts {
        let JobCounts { queued, running, paused } = self.scheduler.state_counts();
        // The scheduler has forgotten the jobs whose tasks are all done.
        let composed = (self.jobs.len() as u64).saturating_sub(queued + running + paused);
        JobCounts { queued, running: running + composed, paused }
    }

    /// Open tasks of the jobs of a kind by the reason for their wait, and the slots that they could use.
    #[must_use]
    pub fn demand(&self, kind: JobKind) -> Demand {
        self.scheduler.demand(kind)
    }

    /// Waiting jobs that no ready worker can run, one of each class: at most `limit`.
    #[must_use]
    pub fn unserved(&self, limit: usize) -> Vec<JobId> {
        self.scheduler.unserved(limit)
    }

    /// Slots that pending and running work could use now.
    #[must_use]
    pub fn wanted_slots(&self) -> u64 {
        self.scheduler.wanted_slots()
    }

    /// Waiting tasks by the priorities 1 to 9.
    #[must_use]
    pub fn runnable_by_priority(&self) -> [u64; 9] {
        self.scheduler.runnable_by_priority()
    }

    /// Leases in all.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.scheduler.leases()
    }

    /// Tasks and numbers a second, over the last ten seconds.
    #[must_use]
    pub fn throughput(&self) -> (f64, f64) {
        self.throughput.per_second()
    }

    /// Recorded changes that wait for the store.
    #[must_use]
    pub fn unstored(&self) -> u64 {
        self.durability.unstored()
    }

    /// The error of the last failed attempt to store a result, while one waits for its retry.
    #[must_use]
    pub fn composing_error(&self) -> Option<&str> {
        self.composing.failing()
    }
}
