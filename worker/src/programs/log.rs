//! The stderr of a program: reported while the program runs, and kept with the attempt when the program has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{LogReport, MAX_LOG_BYTES};
use model::{AttemptId, JobId, WorkerId};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::debug;

use crate::courier::Courier;

/// Interval between reports of a running program.
const INTERVAL: Duration = Duration::from_millis(500);

/// Bytes that a character in UTF-8 has at most after its first one.
const MAX_REST_BYTES: usize = 3;

#[derive(Debug)]
pub(crate) struct TaskLog<'a> {
    courier: &'a Arc<Courier>,
    path: Vec<String>,
    written: Arc<Written>,
}

/// The state that the slot's thread and the reporting task share.
#[derive(Debug)]
struct Written {
    worker: WorkerId,
    state: Mutex<StderrTail>,
    /// Wakes the reporting task: there is new output, or the program has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct StderrTail {
    tail: Vec<u8>,
    bytes: u64,
    is_new: bool,
    /// Whether a task of the runtime reports until the end.
    is_reported: bool,
    has_ended: bool,
}

impl<'a> TaskLog<'a> {
    pub(crate) fn new(courier: &'a Arc<Courier>, worker: &WorkerId, job: JobId, task: u64, attempt: AttemptId) -> Self {
        let path = ["worker", "logs"].map(str::to_owned).into_iter();
        let path = path.chain([job.to_string(), task.to_string(), attempt.to_string()]).collect();
        Self { courier, path, written: Arc::new(Written::new(worker.clone())) }
    }

    /// Takes a piece of stderr and has it reported, immediately if the last report is long enough ago.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let mut state = self.written.state();
        state.bytes += chunk.len() as u64;
        state.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(MAX_LOG_BYTES)..]);
        if state.tail.len() > 2 * MAX_LOG_BYTES {
            state.cut();
        }
        state.is_new = true;
        let is_first = !std::mem::replace(&mut state.is_reported, true);
        drop(state);
        self.written.changed.notify_one();
        if is_first {
            let (written, courier) = (Arc::clone(&self.written), Arc::clone(self.courier));
            self.courier.spawn(report_until_the_end(courier, self.path.clone(), written));
        }
    }

    /// Reports the end of the program, before its outcome if a coordinator is reachable. A program without stderr has no
    /// report.
    pub(crate) fn end(self) {
        let report = {
            let mut state = self.written.state();
            state.has_ended = true;
            self.written.changed.notify_one();
            if state.bytes == 0 {
                return;
            }
            state.report(&self.written.worker, true)
        };
        self.courier.report(self.path.clone(), report);
    }
}

impl Drop for TaskLog<'_> {
    /// Ends the reporting task also where the end of the program is never reported, such as after a panic.
    fn drop(&mut self) {
        self.written.state().has_ended = true;
        self.written.changed.notify_one();
    }
}

/// Reports new output while the program runs, at most once per [`INTERVAL`]. A new leader gets all output again: it does not
/// have the reports to its predecessor, and the worker may be lost next.
async fn report_until_the_end(courier: Arc<Courier>, path: Vec<String>, written: Arc<Written>) {
    let (path, mut epoch): (Vec<_>, _) = (path.iter().map(String::as_str).collect(), courier.epoch());
    while !written.has_ended() {
        if let Some(report) = written.news() {
            if let Err(error) = courier.send_report(&path, &report).await {
                debug!(%error, "the stderr of a program was not accepted");
                written.renew();
            }
            sleep(INTERVAL).await;
        }
        tokio::select! {
            () = written.changed.notified() => (),
            // There is no error: the courier, which this task holds, has the sender.
            Ok(()) = epoch.changed() => written.renew(),
        }
    }
}

impl Written {
    fn new(worker: WorkerId) -> Self {
        Self { worker, state: Mutex::default(), changed: Notify::new() }
    }

    /// The next report of the running program; `None` without new output.
    fn news(&self) -> Option<LogReport> {
        let mut state = self.state();
        (state.is_new && !state.has_ended).then(|| state.report(&self.worker, false))
    }

    /// Has all output reported again.
    fn renew(&self) {
        self.state().is_new = true;
        self.changed.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    fn state(&self) -> MutexGuard<'_, StderrTail> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StderrTail {
    fn cut(&mut self) {
        self.tail.drain(..self.tail.len().saturating_sub(MAX_LOG_BYTES));
    }

    fn report(&mut self, worker: &WorkerId, is_final: bool) -> LogReport {
        self.cut();
        if self.bytes > self.tail.len() as u64 {
            // The rest of a character whose start is cut away would be replaced by longer characters, and a reader that
            // follows by the length of the text would lose its place.
            let rest = self.tail.iter().take(MAX_REST_BYTES).take_while(|byte| **byte & 0xc0 == 0x80).count();
            self.tail.drain(..rest);
        }
        self.is_new = false;
        let offset = self.bytes - self.tail.len() as u64;
        let text = String::from_utf8_lossy(&self.tail).into_owned();
        LogReport { worker: worker.clone(), offset, text, is_final }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_reported_once_and_nothing_after_the_end() {
        let worker = WorkerId::try_from("worker".to_owned()).expect("a name");
        let written = Written::new(worker);
        let write = |text: &str| {
            let mut state = written.state();
            state.bytes += text.len() as u64;
            state.tail.extend_from_slice(text.as_bytes());
            state.is_new = true;
        };
        assert!(written.news().is_none());
        write("a");
        write("b");
        assert_eq!(written.news().expect("new").text, "ab");
        assert!(written.news().is_none());
        written.renew();
        assert_eq!(written.news().expect("all of it again").text, "ab");
        write(&"c".repeat(MAX_LOG_BYTES));
        let report = written.news().expect("new");
        assert_eq!((report.offset, report.text.len()), (2, MAX_LOG_BYTES));
        write("d");
        written.state().has_ended = true;
        assert!(written.news().is_none());
    }

    #[test]
    fn a_report_whose_start_is_cut_begins_with_a_whole_character() {
        let mut written = StderrTail::default();
        let text = "€".repeat(MAX_LOG_BYTES);
        written.bytes = text.len() as u64;
        written.tail.extend_from_slice(text.as_bytes());
        let worker = WorkerId::try_from("worker".to_owned()).expect("a name");
        for _ in 0..2 {
            let report = written.report(&worker, false);
            assert_eq!(report.text, "€".repeat(MAX_LOG_BYTES / 3));
            assert_eq!(report.offset + report.text.len() as u64, text.len() as u64);
        }
    }
}
