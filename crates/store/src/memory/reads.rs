//! Reads of the committed state; each is ready at once.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use model::{Grain, JobEvent, JobId, JobState, ProgramHash};

use super::state::CommittedState;
use super::{Link, Shared, lock};
use crate::backend::{Answers, PayloadBlock, Reading, Reads, ResultRow, ResultRowBody};
use crate::batch::JobKey;
use crate::change::ResultBody;
use crate::drains::Drain;
use crate::error::ReadError;
use crate::json::array;
use crate::payloads::payload_blocks;
use crate::position::Position;
use crate::programs::{ProgramRecord, TaskLog};
use crate::record::{Attempt, AttemptEnd, Cursor, JobFilter, JobRecord, UnfinishedJob};
use crate::retention::Retention;
use crate::rules::ATTEMPT_TASKS;
use crate::statistics::{PendingRow, PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use crate::unreadable::Unreadable;
use crate::verified::Verified;

/// Attempts whose answers are read at once.
const ANSWERS: usize = 4096;

#[derive(Debug)]
pub(super) struct MemoryReads {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
}

impl MemoryReads {
    fn read<'a, T: Send + 'a>(&self, read: impl FnOnce(&CommittedState) -> T) -> Reading<'a, T> {
        let found = self.link.check().map_err(ReadError::Unavailable).map(|()| read(&lock(&self.shared.state)));
        Box::pin(std::future::ready(found))
    }

    /// Whether a read of open jobs is to fail.
    fn takes_a_failure(&self) -> bool {
        let mut control = lock(&self.shared.control);
        let left = control.failing_reads.checked_sub(1);
        control.failing_reads = left.unwrap_or(0);
        left.is_some()
    }
}

fn suits(job: &JobRecord, filter: &JobFilter) -> bool {
    let has = |(name, value): &(String, Option<String>)| {
        job.options.tags.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
    };
    (filter.states.is_empty() || filter.states.contains(&job.state))
        && filter.kind.is_none_or(|kind| kind == job.kind)
        && filter.tags.iter().all(has)
}

fn result_row(job: JobId, result: &ResultBody) -> ResultRow {
    let body = match result {
        ResultBody::Inline(json) => ResultRowBody::Json(json.get().to_owned()),
        ResultBody::Object(object) => {
            ResultRowBody::Object { name: object.name.clone(), bytes: object.bytes, sha256: object.sha256.to_vec() }
        }
    };
    ResultRow { job, body }
}

impl Reads for MemoryReads {
    fn unreadable(&self) -> &Unreadable {
        &self.shared.unreadable
    }

    fn job(&self, id: JobId) -> Reading<'_, Option<JobRecord>> {
        self.read(|state| Some(state.job(id)?.record()))
    }

    fn jobs(&self, filter: JobFilter, before: Option<Cursor>, limit: usize) -> Reading<'_, Vec<JobRecord>> {
        self.read(|state| {
            let place = |job: &JobRecord| (job.submitted_at, job.id);
            let before = before.map(|Cursor { submitted_at, id }| (submitted_at, id));
            let mut jobs: Vec<_> = state.jobs.values().map(|job| job.record()).collect();
            jobs.retain(|job| suits(job, &filter) && before.is_none_or(|before| place(job) < before));
            jobs.sort_unstable_by_key(|job| Reverse(place(job)));
            jobs.truncate(limit);
            jobs
        })
    }

    fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Reading<'_, u64> {
        self.read(|state| {
            let records = state.jobs.values().map(|job| job.record());
            let counted =
                records.filter(|job| since.is_none_or(|since| job.submitted_at >= since) && suits(job, &filter));
            counted.count() as u64
        })
    }

    fn open_jobs(&self) -> Reading<'_, Vec<JobId>> {
        self.read(|state| {
            let mut jobs: Vec<_> = state.jobs.values().filter(|job| !job.ledger.state.is_over()).collect();
            jobs.sort_unstable_by_key(|job| (job.new.submitted_at, job.new.id));
            jobs.into_iter().map(|job| job.new.id).collect()
        })
    }

    fn unfinished(&self, jobs: Vec<JobId>) -> Reading<'_, Vec<UnfinishedJob>> {
        if self.takes_a_failure() {
            let lost: Result<Vec<UnfinishedJob>, ReadError> =
                Err(ReadError::Unavailable("the connection was lost".to_owned()));
            return Box::pin(std::future::ready(lost));
        }
        self.read(|state| {
            let mut jobs: Vec<_> = jobs.into_iter().filter_map(|id| state.job(id)).collect();
            jobs.retain(|job| !job.ledger.state.is_over());
            jobs.sort_unstable_by_key(|job| (job.new.submitted_at, job.new.id));
            jobs.into_iter().map(|job| job.unfinished()).collect()
        })
    }

    fn verified(&self, limit: usize) -> Reading<'_, Vec<Verified>> {
        self.read(move |state| {
            let verified = state.jobs.values().rev().map(|job| &job.ledger.verified);
            verified.filter(|verified| **verified != Verified::default()).take(limit).cloned().collect()
        })
    }

    fn attempts(&self, job: JobId, tasks: Range<u64>) -> Reading<'_, Vec<Attempt>> {
        self.read(|state| {
            let Some(job) = state.job(job) else { return Vec::new() };
            let from = (tasks.start.saturating_sub(ATTEMPT_TASKS), 0);
            let found = job.attempts.range(from..(tasks.end, 0)).filter(|(_, attempt)| attempt.beyond > tasks.start);
            found
                .map(|(&(first, _), attempt)| Attempt {
                    tasks: first..attempt.beyond,
                    worker: attempt.worker.clone(),
                    end: attempt.end.clone(),
                })
                .collect()
        })
    }

    fn payloads(&self, job: JobId, task: u64) -> Reading<'_, Option<PayloadBlock>> {
        self.read(|state| {
            let payloads = &state.job(job)?.new.payloads;
            let place = usize::try_from(task).ok()?;
            let block = payload_blocks(payloads).find(|block| block.contains(&place))?;
            let tasks = block.start as u64..block.end as u64;
            let payloads = serde_json::from_str(&payloads.array(block)).ok()?;
            Some(PayloadBlock { tasks, payloads })
        })
    }

    fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.read(|state| {
            let later = after.saturating_add(1)..;
            match job {
                None => state.events.range(later).take(limit).map(|(_, event)| event.clone()).collect(),
                Some(job) => {
                    let seqs = state.job(job).map_or(&[][..], |job| &job.events);
                    let seqs = &seqs[seqs.partition_point(|&seq| seq <= after)..];
                    seqs.iter().take(limit).filter_map(|seq| state.events.get(seq).cloned()).collect()
                }
            }
        })
    }

    fn last_events(&self, job: JobId, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.read(|state| {
            let seqs = state.job(job).map_or(&[][..], |job| &job.events);
            seqs.iter().rev().take(limit).filter_map(|seq| state.events.get(seq).cloned()).collect()
        })
    }

    fn result(&self, job: JobId) -> Reading<'_, Option<ResultRow>> {
        self.read(|state| Some(result_row(job, state.job(job)?.result.as_ref()?)))
    }

    fn result_by_name(&self, output: &str) -> Reading<'_, Option<ResultRow>> {
        self.read(|state| {
            let named = state.jobs.values().filter(|job| {
                job.new.options.output.as_deref() == Some(output) && job.ledger.state == JobState::Succeeded
            });
            let newest = named.filter(|job| job.result.is_some()).max_by_key(|job| job.ledger.finished_at)?;
            Some(result_row(newest.new.id, newest.result.as_ref()?))
        })
    }

    fn answers(&self, job: JobId, next: u64) -> Reading<'_, Vec<Answers>> {
        self.read(|state| {
            let Some(job) = state.job(job) else { return Vec::new() };
            let completed = job.attempts.range((next, 0)..).filter_map(|(&(first, _), attempt)| match &attempt.end {
                AttemptEnd::Completed { results, .. } => {
                    Some(Answers { tasks: first..attempt.beyond, json: (!results.is_empty()).then(|| array(results)) })
                }
                AttemptEnd::Failed { .. } => None,
            });
            completed.take(ANSWERS).collect()
        })
    }

    fn expired(&self, retention: Retention, now: Timestamp) -> Reading<'_, Vec<(JobKey, u64)>> {
        self.read(|state| {
            let over = state
                .jobs
                .iter()
                .filter_map(|(&key, job)| Some((job.ledger.finished_at?, JobKey(key), job.ledger.bytes())));
            let mut over: Vec<_> = over.collect();
            over.sort_unstable();
            let total: u64 = over.iter().map(|&(_, _, bytes)| bytes).sum();
            let mut excess = total.saturating_sub(retention.max_bytes);
            let oldest = now.checked_sub(retention.max_age).unwrap_or(Timestamp::MIN);
            let mut expired = Vec::new();
            for (finished_at, key, bytes) in over {
                if excess == 0 && finished_at > oldest {
                    break;
                }
                excess = excess.saturating_sub(bytes);
                expired.push((key, bytes));
            }
            expired
        })
    }

    fn positions(&self) -> Reading<'_, Vec<(String, Position)>> {
        self.read(|state| state.positions.iter().map(|(stream, &position)| (stream.clone(), position)).collect())
    }

    fn with_events_from(&self, seq: u64, mut jobs: Vec<JobKey>) -> Reading<'_, Vec<JobKey>> {
        self.read(move |state| {
            let newest = |key: &JobKey| state.jobs.get(&key.0).and_then(|job| job.events.last().copied());
            jobs.retain(|key| newest(key).is_some_and(|newest| newest >= seq));
            jobs
        })
    }

    fn unswept(&self) -> Reading<'_, Vec<(JobKey, JobId)>> {
        self.read(|state| state.swept.iter().map(|(&key, &job)| (JobKey(key), job)).collect())
    }

    fn dropped_objects(&self, limit: usize) -> Reading<'_, Vec<String>> {
        self.read(|state| state.dropped_objects.iter().take(limit).cloned().collect())
    }

    fn program(&self, hash: ProgramHash) -> Reading<'_, Option<ProgramRecord>> {
        self.read(|state| state.programs.get(&hash).cloned())
    }

    fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Reading<'_, Vec<ProgramRecord>> {
        self.read(|state| {
            let is_later = |program: &&ProgramRecord| after.is_none_or(|after| program.hash > after);
            state.programs.values().filter(is_later).take(limit).cloned().collect()
        })
    }

    fn drains(&self) -> Reading<'_, Vec<Drain>> {
        self.read(|state| state.drains.iter().map(|(drained, &at)| Drain { drained: drained.clone(), at }).collect())
    }

    fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.read(|state| {
            let Some(job) = state.job(job) else { return Vec::new() };
            let mut logs: Vec<_> = job.logs.iter().filter(|log| tasks.contains(&log.task)).cloned().collect();
            logs.sort_by_key(|log| log.task);
            logs.truncate(limit);
            logs
        })
    }

    fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.read(|state| {
            let Some(job) = state.job(job) else { return Vec::new() };
            let logs: Vec<_> = job.logs.iter().filter(|log| log.task == task).collect();
            logs[logs.len().saturating_sub(limit)..].iter().copied().cloned().collect()
        })
    }

    fn periods(&self, query: Query, after: Option<PeriodKey>, limit: usize) -> Reading<'_, Vec<PeriodRow>> {
        self.read(|state| state.statistics.periods(&query, after.as_ref(), limit))
    }

    fn pending(&self, grain: Grain, before: Timestamp) -> Reading<'_, Vec<PendingRow>> {
        self.read(|state| state.statistics.pending(grain, before))
    }

    fn task_starts(&self, query: Query, after: Option<TaskKey>, limit: usize) -> Reading<'_, Vec<TaskRow>> {
        self.read(|state| state.statistics.tasks(&query, after.as_ref(), limit))
    }

    fn named_objects(&self, names: Vec<String>) -> Reading<'_, Vec<String>> {
        self.read(|state| {
            let objects = state.jobs.values().filter_map(|job| match &job.result {
                Some(ResultBody::Object(object)) => Some(&object.name),
                Some(ResultBody::Inline(_)) | None => None,
            });
            let named: std::collections::HashSet<_> = objects.collect();
            names.into_iter().filter(|name| named.contains(name)).collect()
        })
    }
}
