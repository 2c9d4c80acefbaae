//! A stored job as clients see it.

use std::num::NonZeroU64;
use std::sync::Arc;

use api::{Job, JobProgress, JobVerification};
use engine::{Engine, JobView, VerificationCounts, VerificationView};
use model::{JobState, NumberRange, Share, TaskCounts};
use store::{JobRecord, Verified};
use workloads::{Kind, Workload};

/// Notes a job's start that is on its way to the store: a queued job of which a task was leased is running, wherever its state
/// is shown.
pub(crate) fn note_start(record: &mut JobRecord, engine: &Engine) {
    if record.started_at.is_some() || record.state.is_over() {
        return;
    }
    let Some(started_at) = engine.started_at(record.id) else { return };
    record.started_at = Some(started_at);
    if record.state == JobState::Queued {
        record.state = JobState::Running;
    }
}

/// The engine's figures of a job that is not over. The end of the job may be on its way to the store. A job whose end is stored
/// has the figures of the store: the engine may not have heard of the end.
fn figures(record: &JobRecord, engine: &Engine) -> Option<JobView> {
    if record.state.is_over() {
        return None;
    }
    engine.job(record.id).or_else(|| engine.last_figures(record.id))
}

/// A stored job with the figures of the engine, which is ahead of the store.
pub(crate) fn live(mut record: JobRecord, engine: &Engine) -> Job {
    note_start(&mut record, engine);
    let (is_over, requires) = (record.state.is_over(), &record.options.requires);
    let notice = if is_over {
        None
    } else if engine.knows(record.id) {
        let mismatch = engine.mismatch_of(record.id, requires).map(|reason| reason.to_string());
        mismatch.or_else(|| engine.lacks_another_worker(record.id))
    } else {
        // Another coordinator has accepted the job a moment ago.
        let kind = workloads::kind(record.kind).ok();
        let work = kind.and_then(|kind| restored(kind, &record, engine.chunk_size()));
        let mismatch = work.and_then(|work| engine.mismatch(record.kind, &*work, requires));
        mismatch.map(|reason| reason.to_string())
    };
    let live = figures(&record, engine);
    job(record, live, notice, engine.chunk_size())
}

/// A stored job as the store alone knows it.
pub(crate) fn stored(record: JobRecord, chunk_size: NonZeroU64) -> Job {
    job(record, None, None, chunk_size)
}

fn job(record: JobRecord, live: Option<JobView>, notice: Option<String>, chunk_size: NonZeroU64) -> Job {
    let known = workloads::kind(record.kind).ok();
    let work = known.and_then(|kind| restored(kind, &record, chunk_size));
    let numbers_done = work.as_ref().and_then(|work| numbers_done(&record, &**work));
    let algorithm = work.as_ref().and_then(|work| work.algorithm());
    let params = known.map_or_else(|| record.params.clone(), |kind| kind.asked(&record.params));
    let JobRecord { id, kind, options, state, tasks: total, .. } = record;
    let stored = TaskCounts {
        total,
        pending: total - record.tasks_done - record.tasks_failed,
        running: 0,
        succeeded: record.tasks_done,
        failed: record.tasks_failed,
    };
    let mut tasks = live.as_ref().map_or(stored, |live| live.counts);
    if state == JobState::Paused {
        // The engine may not have heard of the pause.
        tasks.pending += std::mem::take(&mut tasks.running);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share_of_tasks = tasks.succeeded as f64 / total.max(1) as f64;
    let is_part = state.is_over() && tasks.succeeded < total;
    let share_of_work = record.verified.work_done.filter(|_| is_part).map(|done| f64::from(done) / 1e9);
    let fraction = share_of_work.unwrap_or(share_of_tasks);
    let stored = || JobProgress { fraction, numbers_done, ..JobProgress::default() };
    let mut progress = live.as_ref().map_or_else(stored, progress);
    if state != JobState::Running || notice.is_some() {
        // Nothing is done now, whatever was done a second before.
        (progress.tasks_per_second, progress.seconds_left) = (None, None);
    }
    let (error, went_wrong) = if state == JobState::Failed { (record.error, None) } else { (None, record.error) };
    let notice = notice.or(went_wrong);
    let verification = options.verify.map(|share| verification(share, live.as_ref(), &record.verified));
    Job {
        id,
        kind,
        params,
        algorithm,
        state,
        priority: options.priority,
        notice,
        verification,
        tags: options.tags,
        affinity: options.affinity,
        requires: options.requires,
        max_attempts: options.max_attempts,
        timeout: options.timeout,
        output: options.output,
        submitted_by: options.submitted_by,
        tasks,
        progress,
        attempts: live.as_ref().map_or(record.attempts, |live| live.attempts),
        submitted_at: record.submitted_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        error,
    }
}

/// The progress of a job that the engine works on.
pub(crate) fn progress(live: &JobView) -> JobProgress {
    let &JobView { fraction, numbers_done, tasks_per_second, seconds_left, .. } = live;
    JobProgress { fraction, numbers_done, tasks_per_second, seconds_left }
}

/// The verification of a job: the engine's figures, which are ahead of the store, else the stored ones.
fn verification(share: Share, live: Option<&JobView>, stored: &Verified) -> JobVerification {
    let found = live.and_then(|live| live.verification.clone()).unwrap_or_else(|| {
        let Verified { compared, mismatches, recomputed_tasks, set_aside, .. } = stored.clone();
        VerificationView {
            counts: VerificationCounts { compared, mismatches, recomputed_tasks },
            waiting: 0,
            set_aside: set_aside.into_iter().map(|worker| worker.id).collect(),
        }
    });
    JobVerification {
        share,
        compared_leases: found.counts.compared,
        waiting_leases: found.waiting as u64,
        mismatches: found.counts.mismatches,
        recomputed_tasks: found.counts.recomputed_tasks,
        workers_set_aside: found.set_aside,
    }
}

/// The work of a stored job, for its figures.
fn restored(kind: &dyn Kind, record: &JobRecord, chunk_size: NonZeroU64) -> Option<Arc<dyn Workload>> {
    let chunk_size = record.options.chunk_size.unwrap_or(chunk_size);
    kind.restore(&record.params, chunk_size).ok()
}

/// Numbers searched of a job that the engine does not work on.
fn numbers_done(record: &JobRecord, work: &dyn Workload) -> Option<u128> {
    match record.tasks_done {
        0 => work.numbers(&(0..1)).map(|_| 0),
        done => work.numbers(&(0..done)).map(NumberRange::len),
    }
}
