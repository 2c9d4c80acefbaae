//! The reading half.

use std::ops::Range;

use jiff::Timestamp;
use model::{Grain, JobEvent, JobId, ProgramHash};
use rusqlite::Connection;
use store::backend::{Answers, PayloadBlock, Reading, Reads, ResultRow};
use store::statistics::{PendingRow, PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use store::{
    Attempt, Cursor, Drain, JobFilter, JobKey, JobRecord, Position, ProgramRecord, Retention, TaskLog, UnfinishedJob,
    Unreadable, Verified,
};

use crate::readers::{Pool, Readers};
use crate::{attempts, drains, jobs, listing, positions, programs, results, retention, statistics};

impl Readers {
    /// Reads a list; rows that cannot be read are noted.
    fn list<'a, T: Send + 'static>(
        &self,
        pool: &'a Pool,
        read: impl FnOnce(&Connection, &Unreadable) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reading<'a, T> {
        let unreadable = self.unreadable.clone();
        Box::pin(pool.read(move |db| read(db, &unreadable)))
    }
}

impl Reads for Readers {
    fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    fn job(&self, id: JobId) -> Reading<'_, Option<JobRecord>> {
        let reading = self.any.read(move |db| jobs::one(db, id));
        Box::pin(async move { reading.await.map_err(|error| error.of_job(id)) })
    }

    fn jobs(&self, filter: JobFilter, before: Option<Cursor>, limit: usize) -> Reading<'_, Vec<JobRecord>> {
        self.list(&self.lists, move |db, unreadable| listing::page(db, unreadable, &filter, before, limit))
    }

    fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Reading<'_, u64> {
        Box::pin(self.lists.read(move |db| listing::count(db, &filter, since)))
    }

    fn open_jobs(&self) -> Reading<'_, Vec<JobId>> {
        Box::pin(self.any.read(jobs::open))
    }

    fn unfinished(&self, jobs: Vec<JobId>) -> Reading<'_, Vec<UnfinishedJob>> {
        self.list(&self.any, move |db, unreadable| jobs::unfinished(db, unreadable, &jobs))
    }

    fn verified(&self, limit: usize) -> Reading<'_, Vec<Verified>> {
        self.list(&self.lists, move |db, unreadable| jobs::verified(db, unreadable, limit))
    }

    fn attempts(&self, job: JobId, tasks: Range<u64>) -> Reading<'_, Vec<Attempt>> {
        Box::pin(self.any.read(move |db| attempts::attempts(db, job, &tasks)))
    }

    fn payloads(&self, job: JobId, task: u64) -> Reading<'_, Option<PayloadBlock>> {
        Box::pin(self.payloads.read(move |db| attempts::payloads(db, job, task)))
    }

    fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.list(&self.any, move |db, unreadable| jobs::events(db, unreadable, after, job, limit))
    }

    fn last_events(&self, job: JobId, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.list(&self.any, move |db, unreadable| jobs::last_events(db, unreadable, job, limit))
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
        self.list(&self.lists, move |db, unreadable| programs::page(db, unreadable, after, limit))
    }

    fn drains(&self) -> Reading<'_, Vec<Drain>> {
        self.list(&self.any, drains::all)
    }

    fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.list(&self.any, move |db, unreadable| programs::logs(db, unreadable, job, &tasks, limit))
    }

    fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.list(&self.any, move |db, unreadable| programs::last_logs(db, unreadable, job, task, limit))
    }

    fn named_objects(&self, names: Vec<String>) -> Reading<'_, Vec<String>> {
        Box::pin(self.lists.read(move |db| results::named(db, names)))
    }

    fn periods(&self, query: Query, after: Option<PeriodKey>, limit: usize) -> Reading<'_, Vec<PeriodRow>> {
        self.list(&self.lists, move |db, unreadable| statistics::periods(db, unreadable, &query, after.as_ref(), limit))
    }

    fn pending(&self, grain: Grain, before: Timestamp) -> Reading<'_, Vec<PendingRow>> {
        self.list(&self.any, move |db, unreadable| statistics::pending(db, unreadable, grain, before))
    }

    fn task_starts(&self, query: Query, after: Option<TaskKey>, limit: usize) -> Reading<'_, Vec<TaskRow>> {
        self.list(&self.lists, move |db, unreadable| {
            statistics::task_starts(db, unreadable, &query, after.as_ref(), limit)
        })
    }
}
