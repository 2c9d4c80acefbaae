//! Numbers for rows, taken from a sequence block by block, so that a batch need not ask for them.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::DbError;
use crate::link::Link;
use crate::rows;

/// Numbers that no other process has, ascending.
#[derive(Debug)]
pub(crate) struct Ids {
    sql: &'static str,
    block: i64,
    left: VecDeque<Range<i64>>,
}

impl Ids {
    /// Keys of jobs.
    pub(crate) fn of_jobs() -> Self {
        Self { sql: "SELECT nextval('job_blocks')", block: 1 << 10, left: VecDeque::new() }
    }

    /// Numbers of attempts.
    pub(crate) fn of_attempts() -> Self {
        Self { sql: "SELECT nextval('attempt_blocks')", block: 1 << 20, left: VecDeque::new() }
    }

    /// Reserves this many numbers.
    pub(crate) async fn reserve(&mut self, link: &Link, count: u64) -> Result<(), DbError> {
        let mut left: u64 = self.left.iter().map(|range| range.end.abs_diff(range.start)).sum();
        while left < count {
            let row = link.query_opt(self.sql, &[]).await?;
            let row = row.ok_or_else(|| DbError::Damaged("a sequence is gone".to_owned()))?;
            let first = rows::get::<i64>(&row, 0)? * self.block;
            self.left.push_back(first..first + self.block);
            left += self.block.unsigned_abs();
        }
        Ok(())
    }

    /// The next number, which must have been reserved.
    pub(crate) fn take(&mut self) -> Result<i64, DbError> {
        while let Some(range) = self.left.front_mut() {
            match range.next() {
                Some(id) => return Ok(id),
                None => _ = self.left.pop_front(),
            }
        }
        Err(DbError::Damaged("more numbers were taken than reserved".to_owned()))
    }
}
