//! Makes a job's ledger from stored rows, and finds the rows that have changed.

use std::ops::Range;

use model::{Counts, JobState};

use super::{JobLedger, SpanKind};
use crate::retention::SPAN_BYTES;
use crate::spans::Spans;
use crate::statistics::Subject;
use crate::stored::{InvalidStored, invalid};
use crate::verified::Verified;

impl JobLedger {
    /// A new job of this size in bytes.
    #[must_use]
    pub fn new(subject: Subject, is_individual: bool, tasks: u64, bytes: u64) -> Self {
        Self {
            subject,
            is_individual,
            state: JobState::Queued,
            tasks,
            value: 0,
            check: 0,
            attempts: 0,
            started_at: None,
            finished_at: None,
            retried_at: None,
            error: None,
            uncounted: Counts::default(),
            verified: Verified::default(),
            bytes,
            done: Spans::default(),
            failed: Spans::default(),
            retries: Spans::default(),
        }
    }

    /// Adds a stored run of tasks. Not a change.
    ///
    /// # Errors
    /// The run is not possible.
    pub fn load_span(&mut self, kind: SpanKind, tasks: &Range<u64>, failures: u32) -> Result<(), InvalidStored> {
        let cannot_be = tasks.is_empty() || tasks.end > self.tasks;
        if cannot_be || [&self.done, &self.failed, &self.retries].iter().any(|spans| spans.overlaps(tasks)) {
            return Err(invalid("a job's runs of tasks", format!("{tasks:?} cannot be")));
        }
        self.spans_mut(kind).load(tasks.start, tasks.end, failures);
        self.bytes = self.bytes.saturating_sub(SPAN_BYTES);
        Ok(())
    }

    /// Runs that changed since the last call: the first task, and the task after the last with the number of failures, or `None`
    /// if no run begins there any more.
    pub fn take_changed_spans(&mut self) -> impl Iterator<Item = (SpanKind, u64, Option<(u64, u32)>)> {
        let changed = [SpanKind::Done, SpanKind::Failed, SpanKind::Retry].into_iter();
        let spans = [&mut self.done, &mut self.failed, &mut self.retries];
        changed.zip(spans).flat_map(|(kind, spans)| spans.take_changed().map(move |(first, now)| (kind, first, now)))
    }

    /// The runs of a kind with their failures, ascending: disjoint, and adjacent only where the failures differ.
    pub fn spans(&self, kind: SpanKind) -> impl Iterator<Item = (Range<u64>, u32)> {
        match kind {
            SpanKind::Done => &self.done,
            SpanKind::Failed => &self.failed,
            SpanKind::Retry => &self.retries,
        }
        .iter()
    }

    fn spans_mut(&mut self, kind: SpanKind) -> &mut Spans {
        match kind {
            SpanKind::Done => &mut self.done,
            SpanKind::Failed => &mut self.failed,
            SpanKind::Retry => &mut self.retries,
        }
    }

    /// Tasks that succeeded.
    #[must_use]
    pub fn tasks_done(&self) -> u64 {
        self.done.tasks()
    }

    /// Tasks that are out of attempts.
    #[must_use]
    pub fn tasks_failed(&self) -> u64 {
        self.failed.tasks()
    }

    /// Approximate size of the job in the store and of its result's object, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let spans = self.done.runs() + self.failed.runs() + self.retries.runs();
        self.bytes + SPAN_BYTES * spans as u64
    }

    /// Adds bytes of rows that the ledger does not write.
    pub fn grew(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Subtracts bytes of deleted rows or results.
    pub fn freed(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
