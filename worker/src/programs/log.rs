//! What a program writes to stderr: shown about each second while it runs, and kept with the attempt when it has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{LogReport, MAX_LOG_BYTES};
use model::{AttemptId, JobId, WorkerId};
use tracing::debug;

use crate::courier::Courier;

/// From one report of a program that runs to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// Attempts to deliver the last report.
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
pub(crate) struct TaskLog<'a> {
    courier: &'a Arc<Courier>,
    path: Vec<String>,
    worker: &'a WorkerId,
    tail: Vec<u8>,
    bytes: u64,
    reported_at: Option<Instant>,
}

impl<'a> TaskLog<'a> {
    pub(crate) fn new(
        courier: &'a Arc<Courier>,
        worker: &'a WorkerId,
        job: JobId,
        task: u64,
        attempt: AttemptId,
    ) -> Self {
        let path = ["worker", "logs"].map(str::to_owned).into_iter();
        let path = path.chain([job.to_string(), task.to_string(), attempt.to_string()]).collect();
        Self { courier, path, worker, tail: Vec::new(), bytes: 0, reported_at: None }
    }

    /// Takes what has been written, and reports it if the last report is long enough ago.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(MAX_LOG_BYTES)..]);
        if self.tail.len() > 2 * MAX_LOG_BYTES {
            self.cut();
        }
        if self.reported_at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.reported_at = Some(Instant::now());
            let report = self.report(false);
            self.courier.report_aside(self.path.clone(), report);
        }
    }

    /// Reports that the program has ended. Nothing is said of one that wrote nothing.
    pub(crate) fn end(mut self) {
        if self.bytes == 0 {
            return;
        }
        let report = self.report(true);
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        for _ in 0..ATTEMPTS {
            match self.courier.report(&path, &report) {
                Ok(()) => return,
                Err(error) => debug!(error, "what a program wrote to stderr was not taken"),
            }
        }
    }

    fn cut(&mut self) {
        self.tail.drain(..self.tail.len().saturating_sub(MAX_LOG_BYTES));
    }

    fn report(&mut self, is_final: bool) -> LogReport {
        self.cut();
        let offset = self.bytes - self.tail.len() as u64;
        let text = String::from_utf8_lossy(&self.tail).into_owned();
        LogReport { worker: self.worker.clone(), offset, text, is_final }
    }
}
