//! Reads of jobs, attempts, payloads, events and statistics.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use jiff::Timestamp;
use model::{Grain, JobEvent, JobId, JobKind, WorkerId};
use serde_json::value::RawValue;

use super::Store;
use crate::backend::PayloadBlock;
use crate::blocks::take_from;
use crate::error::ReadError;
use crate::record::{Attempt, Cursor, JobFilter, JobRecord, MAX_FILTER_TAGS};
use crate::statistics::{PeriodKey, PeriodRow, Query, TaskKey, TaskRow, filled, open_at, page};
use crate::verified::SetAsideWorker;

/// Jobs that are searched for workers that were set aside: those with a stored verification or with timed-out attempts.
const VERIFIED_JOBS: usize = 10_000;
/// A bound above the number of kinds.
const KINDS: usize = 64;

impl Store {
    /// A job.
    ///
    /// # Errors
    /// The job could not be read; [`ReadError::Unreadable`] where this version never can.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRecord>, ReadError> {
        self.reads.job(id).await.inspect_err(|error| {
            if let ReadError::Unreadable { detail, .. } = error {
                self.unreadable().note_job(id, detail);
            }
        })
    }

    /// Like [`Self::job`]; `None` also if the job cannot be read, for a list that goes on without it.
    ///
    /// # Errors
    /// The job could not be read for another reason.
    pub async fn job_if_readable(&self, id: JobId) -> Result<Option<JobRecord>, ReadError> {
        match self.job(id).await {
            Err(ReadError::Unreadable { .. }) => Ok(None),
            read => read,
        }
    }

    /// Workers that were set aside, each in its last state: from the newest jobs that are kept and have a stored
    /// verification or timed-out attempts.
    ///
    /// # Errors
    /// The jobs could not be read.
    pub async fn set_aside_workers(&self) -> Result<Vec<SetAsideWorker>, ReadError> {
        let verified = self.reads.verified(VERIFIED_JOBS).await?;
        let mut latest = HashMap::<WorkerId, SetAsideWorker>::new();
        for worker in verified.into_iter().flat_map(|verified| verified.set_aside) {
            let known = latest.entry(worker.id.clone()).or_insert_with(|| worker.clone());
            if known.at < worker.at {
                *known = worker;
            }
        }
        let mut workers: Vec<_> = latest.into_values().collect();
        workers.sort_unstable_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        Ok(workers)
    }

    /// At most `limit` jobs, the newest first, from before a place in that order.
    ///
    /// # Errors
    /// The filter has more than [`MAX_FILTER_TAGS`] tags, or the jobs could not be read.
    pub async fn jobs(
        &self,
        filter: JobFilter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, ReadError> {
        if filter.tags.len() > MAX_FILTER_TAGS {
            return Err(ReadError::TooManyTags { limit: MAX_FILTER_TAGS });
        }
        self.reads.jobs(filter, before, limit).await
    }

    /// Number of jobs that a filter finds among those submitted at `since` or later. Takes time proportional to that number.
    ///
    /// # Errors
    /// The filter has more than [`MAX_FILTER_TAGS`] tags, or the jobs could not be counted.
    pub async fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Result<u64, ReadError> {
        if filter.tags.len() > MAX_FILTER_TAGS {
            return Err(ReadError::TooManyTags { limit: MAX_FILTER_TAGS });
        }
        self.reads.count(filter, since).await
    }

    /// Every attempt that is kept and touches one of the `limit` individual tasks from `first` on: by first task, then
    /// in the order in which they ended. An attempt at more than 1024 tasks is in pieces.
    ///
    /// # Errors
    /// The attempts could not be read.
    pub async fn outcomes(&self, job: JobId, first: u64, limit: usize) -> Result<Vec<Attempt>, ReadError> {
        self.reads.attempts(job, first..first.saturating_add(limit as u64)).await
    }

    /// The payloads of individual tasks, in order. Whole blocks of payloads stay in a leader's memory for the next call.
    ///
    /// # Errors
    /// The job has no such tasks, or the payloads could not be read.
    pub async fn payloads(&self, job: JobId, tasks: Range<u64>) -> Result<Vec<Box<RawValue>>, ReadError> {
        self.first_payloads(job, tasks, usize::MAX).await
    }

    /// Like [`Self::payloads`], but only the first of them, up to `max_bytes` together; at least one.
    ///
    /// # Errors
    /// The job has no such tasks, or the payloads could not be read.
    pub async fn first_payloads(
        &self,
        job: JobId,
        tasks: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Box<RawValue>>, ReadError> {
        let mut payloads = Vec::<Box<RawValue>>::new();
        let (mut next, mut room) = (tasks.start, max_bytes);
        while next < tasks.end {
            let before = payloads.len();
            next = match self.blocks.take(job, next, tasks.end, &mut payloads) {
                Some(beyond) => beyond,
                None => {
                    let block = self.payload_block(job, next, &tasks).await?;
                    let beyond = take_from(&block, next, tasks.end, &mut payloads);
                    // A follower is not told when another job takes the id of a forgotten one.
                    if self.leads() {
                        self.blocks.keep(job, block);
                    }
                    beyond
                }
            };
            let fits = |length: &usize| {
                let length = *length;
                let fits = length <= room;
                room = room.saturating_sub(length);
                fits
            };
            let fitting =
                before + payloads[before..].iter().map(|payload| payload.get().len()).take_while(fits).count();
            if fitting < payloads.len() {
                payloads.truncate(fitting.max(1));
                break;
            }
            // Copying the payloads of a claim takes longer than other requests on this thread may wait.
            tokio::task::yield_now().await;
        }
        Ok(payloads)
    }

    async fn payload_block(&self, job: JobId, task: u64, tasks: &Range<u64>) -> Result<PayloadBlock, ReadError> {
        let block = self.reads.payloads(job, task).await?.filter(|block| block.tasks.contains(&task));
        let block = block.ok_or(ReadError::NoSuchTasks { job, first: tasks.start, beyond: tasks.end })?;
        if block.payloads.len() as u64 != block.tasks.end - block.tasks.start {
            let detail = format!("{} for tasks {:?}", block.payloads.len(), block.tasks);
            return Err(ReadError::Corrupt { place: format!("payloads of job {job}"), detail });
        }
        Ok(block)
    }

    /// At most `limit` events with a number above `after`, of one job or of all, ascending.
    ///
    /// # Errors
    /// The events could not be read.
    pub async fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Result<Vec<JobEvent>, ReadError> {
        self.reads.events(after, job, limit).await
    }

    /// The last events of a job, at most `limit`, the newest first.
    ///
    /// # Errors
    /// The events could not be read.
    pub async fn last_events(&self, job: JobId, limit: usize) -> Result<Vec<JobEvent>, ReadError> {
        self.reads.last_events(job, limit).await
    }

    /// At most `limit` figures by period and kind, after a key, by start and kind. Periods in which nothing was counted are
    /// left out.
    ///
    /// # Errors
    /// The periods could not be read.
    pub async fn periods(
        &self,
        query: Query,
        after: Option<PeriodKey>,
        limit: usize,
    ) -> Result<Vec<PeriodRow>, ReadError> {
        page(query, after, limit, |query, after, limit| self.reads.periods(query, after, limit)).await
    }

    /// The periods, with a row for each period and kind in which nothing was counted while jobs of the kind were open, as far
    /// back as this is known.
    ///
    /// # Errors
    /// The periods could not be read.
    pub async fn filled_periods(
        &self,
        query: Query,
        after: Option<PeriodKey>,
        limit: usize,
    ) -> Result<Vec<PeriodRow>, ReadError> {
        let (grain, kind) = (query.grain, query.kind);
        let start = after.map_or_else(|| grain.start_of(query.starts.start), |(start, _)| start);
        let start = start.max(self.known_from(grain).await?);
        let starts = start..query.starts.end;
        let open = self.open_at(grain, start, kind).await?;
        // Rows of the first period that were on the page before are among these again.
        let query = Query { starts: starts.clone(), ..query };
        let rows = self.periods(query, None, limit + KINDS).await?;
        let mut rows = filled(grain, starts, open, rows, limit + KINDS);
        rows.retain(|row| after.is_none_or(|after| (row.start, row.kind) > after));
        rows.truncate(limit);
        Ok(rows)
    }

    /// The time from which on the rows of a grain tell what was open: the end of the last longer period whose rows of the grain
    /// are all forgotten.
    async fn known_from(&self, grain: Grain) -> Result<Timestamp, ReadError> {
        let stored = grain.stored();
        let all = Query { grain: stored, starts: Timestamp::MIN..Timestamp::MAX, kind: None };
        let first = self.reads.periods(all, None, 1).await?.pop().map_or(Timestamp::MAX, |row| row.start);
        for longer in Grain::STORED.into_iter().filter(|longer| *longer > stored) {
            let rows = self.reads.pending(longer, longer.start_of(first)).await?;
            // The rows of still longer periods are older, or tell it less exactly.
            if let Some(end) = rows.iter().map(|row| longer.end_of(row.start)).max() {
                return Ok(end);
            }
        }
        Ok(Timestamp::MIN)
    }

    /// Open jobs and tasks by kind at the start of a period. Rows of shorter periods may be forgotten.
    async fn open_at(
        &self,
        grain: Grain,
        start: Timestamp,
        kind: Option<JobKind>,
    ) -> Result<BTreeMap<JobKind, (i64, i64)>, ReadError> {
        let mut rows = Vec::new();
        for stored in Grain::STORED.into_iter().filter(|stored| *stored >= grain.stored()) {
            // Rows up to a whole period are read, so that nothing later is in the last one.
            let found = self.reads.pending(stored, stored.start_of(start)).await?;
            rows.extend(found.into_iter().map(|row| (stored, row)));
        }
        rows.retain(|(_, row)| kind.is_none_or(|kind| row.kind == kind));
        Ok(open_at(rows))
    }

    /// At most `limit` starts of tasks by period, kind and name, after a key, in that order.
    ///
    /// # Errors
    /// The starts could not be read.
    pub async fn task_starts(
        &self,
        query: Query,
        after: Option<TaskKey>,
        limit: usize,
    ) -> Result<Vec<TaskRow>, ReadError> {
        page(query, after, limit, |query, after, limit| self.reads.task_starts(query, after, limit)).await
    }
}
