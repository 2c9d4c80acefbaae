//! Jobs: those that a client waits for, and those that are stored.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{AttemptId, InvalidJob, JobId, JobKind, JobOptions, JobState, Requirements, TraceContext, counted};
use rangemap::RangeSet;
use scheduler::{History, JobError, JobSpec, UnknownJob, WaitReason};
use store::{ChangeKind, ResultBody, UnfinishedJob};
use workloads::{Combined, Workload};

use crate::composing::ComposeFailure;
use crate::effect::{Effect, JobFailure};
use crate::engine::Engine;
use crate::progress::Progress;
use crate::rates::Rate;
use crate::time::Now;
use crate::verification::Verification;
use crate::view::JobView;

/// A job that is not over.
#[derive(Debug)]
pub(crate) struct LiveJob {
    pub(crate) kind: JobKind,
    pub(crate) work: Arc<dyn Workload>,
    /// Whether the job is stored; otherwise a client waits for its answer.
    pub(crate) is_stored: bool,
    /// Whether code that it carries may run.
    pub(crate) is_admitted: bool,
    /// Time of its first lease.
    pub(crate) started_at: Option<Timestamp>,
    /// Attempts at its tasks that have ended.
    pub(crate) ended_attempts: u64,
    pub(crate) rate: Rate,
    pub(crate) progress: Progress,
    /// Sum of the values of repeated computations so far, modulo 2^128.
    pub(crate) check: u128,
    /// Verification of a share of the job's leases.
    pub(crate) verification: Option<Verification>,
    /// Attempts that reached their time limit at earlier coordinators, the latest.
    pub(crate) timed_out: Vec<AttemptId>,
    /// The span that its leases are part of, where it is traced.
    pub(crate) trace: Option<TraceContext>,
}

impl Engine {
    /// Takes a job that lives as long as a client waits for it: see [`Effect::Answer`].
    pub fn ask(&mut self, id: JobId, kind: JobKind, work: Arc<dyn Workload>, options: &JobOptions, now: Now) {
        let spec = JobSpec { worker_wait: Some(self.settings.worker_wait), ..spec(kind, &*work, options) };
        let progress = Progress::new(&*work, &History::default());
        let job = LiveJob {
            kind,
            work,
            is_stored: false,
            is_admitted: options.is_admitted,
            started_at: None,
            ended_attempts: 0,
            rate: Rate::default(),
            progress,
            check: 0,
            verification: None,
            timed_out: Vec::new(),
            trace: options.trace.clone(),
        };
        self.jobs.insert(id, job);
        self.scheduler
            .submit(id, spec, &History::default(), now.instant)
            .expect("the caller made a new id, and a job has at least one task");
        self.settle(now);
        self.dispatch(now);
    }

    /// Ends a job that [`Self::ask`] took and whose client has left.
    pub fn abandon(&mut self, id: JobId, now: Now) {
        if self.jobs.get(&id).is_some_and(|job| !job.is_stored) {
            self.drop_job(id, now);
        }
    }

    /// Works on a stored job from its stored state. A job that the engine knows stays unchanged.
    ///
    /// # Errors
    /// Its parameters cannot be read: it was stored by another version.
    pub fn take_up(&mut self, job: UnfinishedJob, now: Now) -> Result<(), InvalidJob> {
        self.insert_stored(job, false, now)?;
        self.settle(now);
        self.dispatch(now);
        Ok(())
    }

    pub(crate) fn insert_stored(&mut self, job: UnfinishedJob, is_held: bool, now: Now) -> Result<(), InvalidJob> {
        let id = job.record.id;
        if self.jobs.contains_key(&id) {
            return Ok(());
        }
        let record = job.record;
        let chunk_size = record.options.chunk_size.unwrap_or(self.settings.chunk_size);
        let work = workloads::kind(record.kind)?.restore(&record.params, chunk_size)?;
        if work.tasks() != record.tasks {
            let message = format!("make {} tasks now, and made {} when the job was stored", work.tasks(), record.tasks);
            return Err(InvalidJob::new("params", message));
        }
        let mut spec = spec(record.kind, &*work, &record.options);
        spec.retry_timeout =
            record.options.timeout.job_seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
        spec.deadline = spec.retry_timeout.map(|limit| now.instant + remaining(limit, record.timed_since(), now));
        let history = History {
            over: job.done,
            failed: job.failed,
            retries: job.retries,
            total: record.value,
            has_started: record.started_at.is_some(),
            is_paused: record.state == JobState::Paused,
            is_held,
        };
        let trace = record.options.trace.map(|submission| submission.at(TraceContext::span_of(id.0)));
        let live = LiveJob {
            kind: record.kind,
            progress: Progress::new(&*work, &history),
            work,
            is_stored: true,
            is_admitted: record.options.is_admitted,
            started_at: record.started_at,
            ended_attempts: record.attempts,
            rate: Rate::default(),
            check: record.check,
            verification: record.options.verify.map(|share| {
                let done = done_of(&history);
                Verification::new(share, done.into_iter(), (record.value, record.check), record.verified.clone())
            }),
            timed_out: record.verified.timed_out,
            trace,
        };
        self.jobs.insert(id, live);
        self.scheduler.submit(id, spec, &history, now.instant).expect("it was not here, and a stored job has tasks");
        Ok(())
    }

    /// Ends a stored job in the engine; the store has canceled it already.
    pub fn cancel(&mut self, id: JobId, now: Now) {
        self.composing.cancel(id);
        self.drop_job(id, now);
    }

    /// Pauses a stored job. Returns whether the job was not paused before.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn pause(&mut self, id: JobId, now: Now) -> Result<bool, UnknownJob> {
        let changed = self.scheduler.pause(id)?;
        self.settle(now);
        self.dispatch(now);
        Ok(changed)
    }

    /// Resumes a paused job. Returns whether the job was paused.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn resume(&mut self, id: JobId, now: Now) -> Result<bool, UnknownJob> {
        let changed = self.scheduler.resume(id, now.instant)?;
        if let Some(live) = self.jobs.get_mut(&id).filter(|_| changed) {
            live.rate.interrupt();
            live.progress.interrupt();
        }
        self.dispatch(now);
        Ok(changed)
    }

    /// Opens the failed tasks of a stored job again, in the engine and in the store, which must learn of the retry in the order
    /// of the tasks' failures.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn retry(&mut self, id: JobId, now: Now) -> Result<(), UnknownJob> {
        self.scheduler.retry(id, now.instant)?;
        if let Some(live) = self.jobs.get_mut(&id) {
            live.progress.reopen_failed();
        }
        self.record(id, ChangeKind::Retried, now);
        self.settle(now);
        self.dispatch(now);
        Ok(())
    }

    /// Whether the engine works on the job or composes its result.
    #[must_use]
    pub fn knows(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// Takes the outcome of a composition that [`Effect::Compose`] asked for.
    pub fn composed(&mut self, id: JobId, outcome: Result<ResultBody, ComposeFailure>, now: Now) {
        let (state, result, error) = match outcome {
            Err(ComposeFailure::Unavailable(error)) => {
                return self.composing.failed(id, error, now.instant, &mut self.effects);
            }
            Err(ComposeFailure::Permanent(error)) => {
                (JobState::Failed, None, Some(format!("its result could not be put together: {error}")))
            }
            Ok(result) => (JobState::Succeeded, Some(result), None),
        };
        if self.composing.ended(id, &mut self.effects) {
            let figures = self.job(id);
            self.remove(id);
            self.record_end(id, ChangeKind::Ended { state, result, error }, figures, now);
        }
    }

    /// The reason why a job's tasks wait; `None` if the engine does not know the job.
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<String> {
        if let Some(error) = self.composing.state(id) {
            return Some(match error {
                None => "its tasks are done, and its result is being stored".to_owned(),
                Some(error) => format!("its tasks are done, but its result cannot be stored yet: {error}"),
            });
        }
        let reason = self.scheduler.explain(id)?;
        let has_free_slot = has_free_slot(&reason);
        let suspended = if reason == WaitReason::NoWorker { self.suspended() } else { None };
        let reason = match suspended {
            Some(suspended) => format!("{reason}; {suspended}"),
            None => reason.to_string(),
        };
        let Some(why) = self.awaited_outcomes(id) else { return Some(reason) };
        // The workers of free slots have computed these tasks.
        Some(if has_free_slot { why } else { format!("{reason}; {why}") })
    }

    /// The reason why a verified job stands still although slots are free: their workers have computed its tasks.
    #[must_use]
    pub fn lacks_another_worker(&self, id: JobId) -> Option<String> {
        let why = self.awaited_outcomes(id)?;
        self.scheduler.explain(id).filter(has_free_slot).map(|_| why)
    }

    /// The reason why a verified job has no lease: its outcomes wait for other workers to compute the same. `None` for any other job.
    fn awaited_outcomes(&self, id: JobId) -> Option<String> {
        let waiting = self.jobs.get(&id)?.verification.as_ref().map_or(0, Verification::waiting);
        if waiting == 0 || self.scheduler.job_leases(id).next().is_some() {
            return None;
        }
        let leases = counted(waiting as u64, "lease", "leases");
        Some(format!("the outcomes of {leases} wait for another worker to compute the same"))
    }

    /// The reason why no ready worker can run such a job; `None` if some worker can.
    #[must_use]
    pub fn mismatch(&self, kind: JobKind, work: &dyn Workload, requires: &Requirements) -> Option<WaitReason> {
        self.scheduler.mismatch(kind, &requirements(work, requires))
    }

    /// The reason why no ready worker can run a job that is not over; `None` if some worker can.
    #[must_use]
    pub fn mismatch_of(&self, id: JobId, requires: &Requirements) -> Option<WaitReason> {
        let job = self.jobs.get(&id)?;
        self.mismatch(job.kind, &*job.work, requires)
    }

    /// Whether no ready worker meets the needs of this work, but some worker could do the job of the same kind by `other`, which
    /// needs less.
    #[must_use]
    pub fn prefers(&self, other: &dyn Workload, kind: JobKind, work: &dyn Workload, requires: &Requirements) -> bool {
        self.mismatch(kind, work, requires).is_some() && self.mismatch(kind, other, requires).is_none()
    }

    pub(crate) fn job_succeeded(&mut self, id: JobId, total: u128, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let Err(contradiction) = job.work.judge(total, job.check) {
            return self.end_failed(id, contradiction.into(), now);
        }
        if !job.is_stored {
            self.remove(id);
            return self.effects.push(Effect::Answer { job: id, answer: Ok(total) });
        }
        match job.work.combine(total) {
            Combined::Result(json) => {
                let figures = self.job(id);
                self.remove(id);
                let result = Some(ResultBody::Inline(json));
                let end = ChangeKind::Ended { state: JobState::Succeeded, result, error: None };
                self.record_end(id, end, figures, now);
            }
            Combined::TaskResults => self.composing.start(id, &mut self.effects),
        }
    }

    /// Records the end of a job, and keeps its last figures until the end is stored.
    fn record_end(&mut self, id: JobId, end: ChangeKind, figures: Option<JobView>, now: Now) {
        let number = self.record(id, end, now);
        if let Some(figures) = figures {
            self.ending.ended(id, number, figures);
        }
    }

    pub(crate) fn job_failed(&mut self, id: JobId, error: JobError, now: Now) {
        self.end_failed(id, error.into(), now);
    }

    fn end_failed(&mut self, id: JobId, failure: JobFailure, now: Now) {
        let figures = match self.scheduler.take_failed_counts(id) {
            Some(counts) => self.figures(id, counts),
            None => self.job(id),
        };
        let work_done = self.work_done(id);
        let Some(job) = self.remove(id) else { return };
        if job.is_stored {
            if let Some(billionths) = work_done {
                self.record(id, ChangeKind::WorkDone { billionths }, now);
            }
            let error = Some(failure.to_string());
            self.record_end(id, ChangeKind::Ended { state: JobState::Failed, result: None, error }, figures, now);
        } else {
            self.effects.push(Effect::Answer { job: id, answer: Err(failure) });
        }
    }

    pub(crate) fn is_stored(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.is_stored)
    }

    /// The setting for new jobs that divide a range.
    #[must_use]
    pub fn chunk_size(&self) -> NonZeroU64 {
        self.settings.chunk_size
    }

    pub(crate) fn drop_job(&mut self, id: JobId, now: Now) {
        // The scheduler has forgotten a job whose result is being composed.
        if self.scheduler.cancel(id).is_ok() {
            self.settle(now);
        }
        if self.remove(id).is_some() {
            self.dispatch(now);
        }
    }

    fn remove(&mut self, id: JobId) -> Option<LiveJob> {
        let job = self.jobs.remove(&id)?;
        for attempt in job.verification.iter().flat_map(Verification::attempts) {
            self.unsettled.remove(&attempt);
        }
        Some(job)
    }
}

/// Whether a job waits although a slot of a worker that runs its kind is free.
fn has_free_slot(reason: &WaitReason) -> bool {
    matches!(reason, WaitReason::Busy { slots, busy, .. } if busy < slots)
}

/// The scheduler's description of a job, without the times that depend on the clock.
fn spec(kind: JobKind, work: &dyn Workload, options: &JobOptions) -> JobSpec {
    let profile = work.profile();
    let requires = requirements(work, &options.requires);
    let task_timeout = options.timeout.task_seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
    JobSpec {
        priority: options.priority,
        requires,
        affinity: options.affinity.clone(),
        max_attempts: options.max_attempts.get(),
        order: profile.order,
        on_exhausted: profile.on_exhausted,
        max_lease_tasks: profile.max_lease_tasks,
        sections: work.sections(),
        setup: profile.setup,
        task_estimate: profile.task_estimate,
        rise: profile.rise,
        task_timeout,
        lease_slack: profile.lease_slack,
        last_task_waits: profile.last_task_waits,
        brings_workers: options.requires.are_of_simulation(),
        ..JobSpec::new(kind, work.tasks())
    }
}

/// The requirements of a job: those of its client and those of its work.
#[must_use]
pub fn requirements(work: &dyn Workload, of_client: &Requirements) -> Requirements {
    let mut all = work.requires();
    all.labels.extend(of_client.labels.clone());
    all.cpus = all.cpus.max(of_client.cpus);
    all.memory_bytes = all.memory_bytes.max(of_client.memory_bytes);
    all
}

/// The tasks that have succeeded.
fn done_of(history: &History) -> RangeSet<u64> {
    let mut done: RangeSet<u64> = history.over.iter().cloned().collect();
    history.failed.iter().for_each(|tasks| done.remove(tasks.clone()));
    done
}

/// The rest of a time limit that runs since `since`.
fn remaining(limit: Duration, since: Timestamp, now: Now) -> Duration {
    limit.saturating_sub(now.instant.saturating_duration_since(now.instant_of(since)))
}
