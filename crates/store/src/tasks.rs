//! Individual tasks: their payloads and the attempts at them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use model::{AttemptId, JobId};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::value::RawValue;

use crate::apply::ATTEMPT_TASKS;
use crate::column::{self, Column};
use crate::error::ReadError;
use crate::record::{Attempt, AttemptEnd};

/// Blocks that stay in memory: tasks are given out in order, from a few jobs at a time.
const BLOCKS: usize = 64;
/// Most bytes of payloads that they hold, but for one block that is larger by itself.
const BLOCK_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
struct Block {
    job: JobId,
    tasks: Range<u64>,
    payloads: Vec<Box<RawValue>>,
    bytes: usize,
}

/// The blocks of payloads that were read last.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    newest_first: Mutex<VecDeque<Arc<Block>>>,
}

impl Blocks {
    /// The payloads of these tasks; blocks that are not at hand are read with `read`.
    pub(crate) fn payloads(
        &self,
        job: JobId,
        tasks: Range<u64>,
        read: impl Fn(u64) -> Result<Option<ReadBlock>, ReadError>,
    ) -> Result<Vec<Box<RawValue>>, ReadError> {
        let mut payloads = Vec::new();
        let mut next = tasks.start;
        while next < tasks.end {
            let block = match self.find(job, next) {
                Some(block) => block,
                None => match read(next)? {
                    Some((tasks, payloads)) => self.keep(job, tasks, payloads),
                    None => return Err(ReadError::NoSuchTasks { job, first: tasks.start, beyond: tasks.end }),
                },
            };
            let beyond = tasks.end.min(block.tasks.end);
            let of_block = (next - block.tasks.start) as usize..(beyond - block.tasks.start) as usize;
            payloads.extend_from_slice(&block.payloads[of_block]);
            next = beyond;
        }
        Ok(payloads)
    }

    /// The job is gone, and another may come under its id.
    pub(crate) fn forget(&self, job: JobId) {
        self.newest_first.lock().unwrap_or_else(PoisonError::into_inner).retain(|block| block.job != job);
    }

    fn find(&self, job: JobId, task: u64) -> Option<Arc<Block>> {
        let mut blocks = self.newest_first.lock().unwrap_or_else(PoisonError::into_inner);
        let place = blocks.iter().position(|block| block.job == job && block.tasks.contains(&task))?;
        if place > 0 {
            let block = blocks.remove(place)?;
            blocks.push_front(block);
        }
        blocks.front().cloned()
    }

    fn keep(&self, job: JobId, tasks: Range<u64>, payloads: Vec<Box<RawValue>>) -> Arc<Block> {
        let bytes = payloads.iter().map(|payload| payload.get().len()).sum();
        let block = Arc::new(Block { job, tasks, payloads, bytes });
        let mut blocks = self.newest_first.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push_front(block.clone());
        let mut held: usize = blocks.iter().map(|block| block.bytes).sum();
        while blocks.len() > BLOCKS || (held > BLOCK_BYTES && blocks.len() > 1) {
            held -= blocks.pop_back().map_or(0, |block| block.bytes);
        }
        block
    }
}

type ReadBlock = (Range<u64>, Vec<Box<RawValue>>);

/// The block that the task is in.
pub(crate) fn read_block(db: &Connection, job: JobId, task: u64) -> Result<Option<ReadBlock>, ReadError> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, list FROM payloads WHERE job = (SELECT key FROM jobs WHERE id = ?1) AND first <= ?2
         ORDER BY first DESC LIMIT 1",
    )?;
    let read = |row: &Row<'_>| {
        let payloads: Vec<Box<RawValue>> = column::json(row, 2)?;
        Ok((column::count(row, 0)?..column::count(row, 1)?, payloads))
    };
    let Some((tasks, payloads)) = select.query_row((job.0.as_bytes(), task.column()), read).optional()? else {
        return Ok(None);
    };
    if payloads.len() as u64 != tasks.end.saturating_sub(tasks.start) {
        let detail = format!("{} payloads for tasks {} to {}", payloads.len(), tasks.start, tasks.end);
        return Err(ReadError::Corrupt { place: format!("payloads of job {job}"), detail });
    }
    Ok(tasks.contains(&task).then_some((tasks, payloads)))
}

/// Every attempt that touches one of the tasks, by first task, then in the order in which they ended.
pub(crate) fn attempts(db: &Connection, job: JobId, tasks: Range<u64>) -> Result<Vec<Attempt>, ReadError> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, worker, attempt, allocated_at, running_at, completed_at, results, error_at, error,
         failures, given_up FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = ?1)
         AND first > ?2 AND first < ?3 AND beyond > ?4 ORDER BY first, rowid",
    )?;
    // No row begins further back.
    let from = tasks.start.column() - ATTEMPT_TASKS as i64;
    let rows = select.query_map((job.0.as_bytes(), from, tasks.end.column(), tasks.start.column()), attempt)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let end = match column::optional_time(row, 6)? {
        Some(completed_at) => AttemptEnd::Completed {
            attempt: AttemptId(column::uuid(row, 3)?),
            allocated_at: column::time(row, 4)?,
            running_at: column::time(row, 5)?,
            completed_at,
            results: if row.get_ref(7)?.as_str_or_null()?.is_some() { column::json(row, 7)? } else { Vec::new() },
        },
        None => AttemptEnd::Failed {
            at: column::time(row, 8)?,
            error: row.get(9)?,
            failures: row.get(10)?,
            given_up: row.get(11)?,
        },
    };
    Ok(Attempt { tasks: column::count(row, 0)?..column::count(row, 1)?, worker: row.get(2)?, end })
}
