//! A stored job as clients see it.

use std::num::NonZeroU64;

use api::{Job, JobProgress};
use engine::{Engine, JobView};
use model::{NumberRange, TaskCounts};
use store::JobRecord;

/// A stored job with what the engine knows of it: the engine is ahead of the store.
pub(crate) fn live(record: JobRecord, engine: &Engine) -> Job {
    let notice = if record.state.is_over() { None } else { engine.mismatch(record.kind, &record.options.requires) };
    let (live, notice) = (engine.job(record.id), notice.map(|reason| reason.to_string()));
    job(record, live, notice, engine.chunk_size())
}

/// A stored job as the store alone knows it.
pub(crate) fn stored(record: JobRecord, chunk_size: NonZeroU64) -> Job {
    job(record, None, None, chunk_size)
}

fn job(record: JobRecord, live: Option<JobView>, notice: Option<String>, chunk_size: NonZeroU64) -> Job {
    let numbers_done = live.map_or_else(|| numbers_done(&record, chunk_size), |live| live.numbers_done);
    let JobRecord { id, kind, params, options, state, tasks: total, .. } = record;
    let stored = TaskCounts {
        total,
        pending: total - record.tasks_done - record.tasks_failed,
        running: 0,
        succeeded: record.tasks_done,
        failed: record.tasks_failed,
    };
    let tasks = live.map_or(stored, |live| live.counts);
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let fraction = tasks.succeeded as f64 / total.max(1) as f64;
    let tasks_per_second = live.and_then(|live| live.tasks_per_second);
    let left = total - tasks.succeeded - tasks.failed;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let seconds_left = tasks_per_second.filter(|rate| *rate > 0.0).map(|rate| left as f64 / rate);
    Job {
        id,
        kind,
        params,
        state,
        priority: options.priority,
        notice,
        tags: options.tags,
        affinity: options.affinity,
        requires: options.requires,
        max_attempts: options.max_attempts,
        timeout: options.timeout,
        output: options.output,
        tasks,
        progress: JobProgress { fraction, numbers_done, tasks_per_second, seconds_left },
        attempts: live.map_or(record.attempts, |live| live.attempts),
        submitted_at: record.submitted_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        error: record.error,
    }
}

/// Numbers searched of a job that the engine does not work on.
fn numbers_done(record: &JobRecord, chunk_size: NonZeroU64) -> Option<u128> {
    let chunk_size = record.options.chunk_size.unwrap_or(chunk_size);
    let work = workloads::kind(record.kind).ok()?.restore(&record.params, chunk_size).ok()?;
    match record.tasks_done {
        0 => work.numbers(&(0..1)).map(|_| 0),
        done => work.numbers(&(0..done)).map(NumberRange::len),
    }
}
