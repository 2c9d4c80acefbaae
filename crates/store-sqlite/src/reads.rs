//! The reading half.

use std::ops::Range;

use jiff::Timestamp;
use model::{Grain, JobEvent, JobId, ProgramHash};
use store::backend::{Answers, PayloadBlock, Reading, Reads, ResultRow};
use store::statistics::{PendingRow, PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use store::{
    Attempt, Cursor, Drain, JobFilter, JobKey, JobRecord, Position, ProgramRecord, Retention, TaskLog, UnfinishedJob,
    Verified,
};

use crate::readers::Readers;
use crate::{attempts, drains, jobs, listing, positions, programs, results, retention, statistics};

impl Reads for Readers {
    fn job(&self, id: JobId) -> Reading<'_, Option<JobRecord>> {
        Box::pin(self.any.read(move |db| jobs::one(db, id)))
    }

    fn jobs(&self, filter: JobFilter, before: Option<Cursor>, limit: usize) -> Reading<'_, Vec<JobRecord>> {
        Box::pin(self.lists.read(move |db| listing::page(db, &filter, before, limit)))
    }

    fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Reading<'_, u64> {
        Box::pin(self.lists.read(move |db| listing::count(db, &filter, since)))
    }

    fn unfinished(&self, only: Option<JobId>) -> Reading<'_, Vec<UnfinishedJob>> {
        Box::pin(self.any.read(move |db| jobs::unfinished(db, only)))
    }

    fn verified(&self, limit: usize) -> Reading<'_, Vec<Verified>> {
        Box::pin(self.lists.read(move |db| jobs::verified(db, limit)))
    }

    fn attempts(&self, job: JobId, tasks: Range<u64>) -> Reading<'_, Vec<Attempt>> {
        Box::pin(self.any.read(move |db| attempts::attempts(db, job, &tasks)))
    }

    fn payloads(&self, job: JobId, task: u64) -> Reading<'_, Option<PayloadBlock>> {
        Box::pin(self.payloads.read(move |db| attempts::payloads(db, job, task)))
    }

    fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        Box::pin(self.any.read(move |db| jobs::events(db, after, job, limit)))
    }

    fn last_events(&self, job: JobId, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        Box::pin(self.any.read(move |db| jobs::last_events(db, job, limit)))
    }

    fn result(&self, job: JobId) -> Reading<'_, Option<ResultRow>> {
        Box::pin(self.any.read(move |db| results::by_job(db, job)))
    }

    fn result_by_name(&self, output: &str) -> Reading<'_, Option<ResultRow>> {
        let output = output.to_owned();
        Box::pin(self.any.read(move |db| results::by_name(db, &output)))
    }

    fn answers(&self, job: JobId, next: u64) -> Reading<'_, Vec<Answers>> {
        Box::pin(self.any.read(move |db| attempts::answers(db, job, next)))
    }

    fn expired(&self, retention: Retention, now: Timestamp) -> Reading<'_, Vec<(JobKey, u64)>> {
        Box::pin(self.lists.read(move |db| retention::expired(db, retention, now)))
    }

    fn positions(&self) -> Reading<'_, Vec<(String, Position)>> {
        Box::pin(self.any.read(positions::all))
    }

    fn with_events_from(&self, seq: u64, jobs: Vec<JobKey>) -> Reading<'_, Vec<JobKey>> {
        Box::pin(self.lists.read(move |db| positions::with_events_from(db, seq, jobs)))
    }

    fn unswept(&self) -> Reading<'_, Vec<(JobKey, JobId)>> {
        Box::pin(self.lists.read(retention::unswept))
    }

    fn dropped_objects(&self, limit: usize) -> Reading<'_, Vec<String>> {
        Box::pin(self.any.read(move |db| results::dropped(db, limit)))
    }

    fn program(&self, hash: ProgramHash) -> Reading<'_, Option<ProgramRecord>> {
        Box::pin(self.any.read(move |db| programs::one(db, hash)))
    }

    fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Reading<'_, Vec<ProgramRecord>> {
        Box::pin(self.lists.read(move |db| programs::page(db, after, limit)))
    }

    fn drains(&self) -> Reading<'_, Vec<Drain>> {
        Box::pin(self.any.read(drains::all))
    }

    fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        Box::pin(self.any.read(move |db| programs::logs(db, job, &tasks, limit)))
    }

    fn named_objects(&self, names: Vec<String>) -> Reading<'_, Vec<String>> {
        Box::pin(self.lists.read(move |db| results::named(db, names)))
    }

    fn periods(&self, query: Query, after: Option<PeriodKey>, limit: usize) -> Reading<'_, Vec<PeriodRow>> {
        Box::pin(self.lists.read(move |db| statistics::periods(db, &query, after.as_ref(), limit)))
    }

    fn pending(&self, grain: Grain, before: Timestamp) -> Reading<'_, Vec<PendingRow>> {
        Box::pin(self.any.read(move |db| statistics::pending(db, grain, before)))
    }

    fn task_starts(&self, query: Query, after: Option<TaskKey>, limit: usize) -> Reading<'_, Vec<TaskRow>> {
        Box::pin(self.lists.read(move |db| statistics::task_starts(db, &query, after.as_ref(), limit)))
    }
}
