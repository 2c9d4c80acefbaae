//! What waits for the writer, in order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::JobId;
use tokio::sync::oneshot;

use crate::change::Change;
use crate::error::WriteError;
use crate::record::{NewJob, Submission};

/// How long a change waits for others to share its commit.
const LINGER: Duration = Duration::from_millis(10);
/// Most changes in one transaction: about a tenth of a second of work, which a durable change may have to wait for.
const GROUP_LIMIT: usize = 8192;

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Work {
    Submit(Box<NewJob>),
    Change(Change),
    /// Nothing: resolves when all before it is committed.
    Barrier,
    /// Takes jobs that are over out of sight.
    Doom(Vec<i64>),
    /// Deletes some of what belonged to a doomed job.
    Sweep(i64),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Changed,
    Submitted(Submission),
    Mismatch(JobId),
    /// Rows that a sweep or a doom changed.
    Rows(u64),
    Refused(String),
}

pub(crate) type Reply = oneshot::Sender<Result<Done, WriteError>>;

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) work: Work,
    pub(crate) reply: Option<Reply>,
    pub(crate) since: Instant,
}

/// What the writer is to do next.
pub(crate) enum Next {
    Commit(Vec<Queued>),
    /// Nothing has come for as long as the writer wanted to wait.
    Idle,
    /// Nothing will come any more.
    End,
}

/// Without a bound of its own: whoever fills it watches [`crate::Store::backlog`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    /// Those of them that somebody waits for.
    urgent: usize,
    closed: bool,
    stopped: bool,
    /// Waiting or being committed.
    backlog: u64,
    failing: Option<String>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds it can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, work: Work, reply: Option<Reply>) {
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        let urgent = reply.is_some();
        state.waiting.push_back(Queued { work, reply, since: Instant::now() });
        state.urgent += usize::from(urgent);
        state.backlog += 1;
        let waiting = state.waiting.len();
        drop(state);
        if urgent || waiting == 1 || waiting == GROUP_LIMIT {
            self.changed.notify_one();
        }
    }

    /// The next group: at once where somebody waits for one of it.
    pub(crate) fn next(&self, patience: Option<Duration>) -> Next {
        let mut state = self.lock();
        let asked = Instant::now();
        loop {
            let now = Instant::now();
            let until = match state.waiting.front() {
                Some(_) if state.urgent > 0 || state.closed || state.waiting.len() >= GROUP_LIMIT => break,
                Some(first) => Some(first.since + LINGER),
                None if state.closed => return Next::End,
                None => patience.map(|patience| asked + patience),
            };
            state = match until {
                Some(until) if until <= now && state.waiting.is_empty() => return Next::Idle,
                Some(until) if until <= now => break,
                Some(until) => self.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let count = state.waiting.len().min(GROUP_LIMIT);
        let group: Vec<_> = state.waiting.drain(..count).collect();
        state.urgent -= group.iter().filter(|queued| queued.reply.is_some()).count();
        Next::Commit(group)
    }

    /// So many are committed, or given up.
    pub(crate) fn finished(&self, count: u64) {
        self.lock().backlog -= count;
    }

    pub(crate) fn set_failing(&self, error: Option<String>) {
        self.lock().failing = error;
    }

    /// Puts a group back in front. Whoever waits for any change, in it or behind it, gets the error instead.
    pub(crate) fn put_back(&self, group: Vec<Queued>, error: &WriteError) {
        let mut state = self.lock();
        let all: Vec<_> = group.into_iter().chain(state.waiting.drain(..)).collect();
        let before = all.len();
        for mut queued in all {
            match queued.reply.take() {
                Some(reply) => _ = reply.send(Err(error.clone())),
                None => state.waiting.push_back(queued),
            }
        }
        state.backlog -= (before - state.waiting.len()) as u64;
        state.urgent = 0;
    }

    /// Waits, unless the end has come.
    pub(crate) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            // At the end there is little time left: only as long as the first pause.
            let left = if state.closed { left.min(Duration::from_millis(100)) } else { left };
            let (guard, waited) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if state.closed && waited.timed_out() {
                return;
            }
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The writer is gone: whoever waits hears of it, and nothing is taken in any more. Returns what was lost.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = self.lock();
        state.stopped = true;
        state.failing.get_or_insert_with(|| WriteError::Closed.to_string());
        state.urgent = 0;
        state.waiting.clear();
        state.backlog
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.lock().backlog
    }

    pub(crate) fn failing(&self) -> Option<String> {
        self.lock().failing.clone()
    }
}
