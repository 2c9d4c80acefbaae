//! What waits for the writer, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{Answer, Entry};
use crate::error::WriteError;

/// How long a recorded change waits for others to share its commit.
const LINGER: Duration = Duration::from_millis(10);
/// Most entries in one batch: about a tenth of a second of work, which a durable change may have to wait for.
const BATCH_LIMIT: usize = 8192;
/// Longest pause between attempts to write once the store is being closed.
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Reply = oneshot::Sender<Result<Answer, WriteError>>;

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Work {
    Entry(Entry),
    /// Nothing: is answered when all before it is committed.
    Barrier,
}

#[derive(Debug)]
struct Queued {
    work: Work,
    ticket: Ticket,
    since: Instant,
}

/// What an entry is known by while it waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// For the answer, where a caller waits.
    pub(crate) reply: Option<Reply>,
    /// The number of a recorded change; 0 of anything else.
    pub(crate) number: u64,
}

/// What the writer commits together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) entries: Vec<Entry>,
    /// One for each entry.
    pub(crate) tickets: Vec<Ticket>,
    /// Answered after the entries.
    pub(crate) barriers: Vec<Reply>,
}

impl Group {
    fn push(&mut self, queued: Queued) {
        match (queued.work, queued.ticket.reply) {
            (Work::Entry(entry), reply) => {
                self.entries.push(entry);
                self.tickets.push(Ticket { reply, number: queued.ticket.number });
            }
            (Work::Barrier, reply) => self.barriers.extend(reply),
        }
    }

    /// How much of the backlog it is.
    pub(crate) fn len(&self) -> u64 {
        (self.entries.len() + self.barriers.len()) as u64
    }

    /// Cuts it in two, each smaller than the whole.
    pub(crate) fn halve(mut self) -> (Self, Self) {
        let half = self.entries.len() / 2;
        let (entries, tickets) = (self.entries.split_off(half), self.tickets.split_off(half));
        let barriers = std::mem::take(&mut self.barriers);
        (self, Self { entries, tickets, barriers })
    }

    /// The highest number of a recorded change in it.
    pub(crate) fn last_number(&self) -> Option<u64> {
        self.tickets.iter().map(|ticket| ticket.number).max().filter(|&number| number > 0)
    }
}

/// What the writer is to do next.
pub(crate) enum Next {
    Commit(Group),
    /// Nothing has come for as long as the writer wanted to wait.
    Idle,
    /// Nothing will come any more.
    End,
}

/// Without a bound of its own: the caller that records watches [`crate::Store::backlog`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    log_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    /// Those of them that a caller waits for.
    urgent: usize,
    closed: bool,
    /// Why nothing is taken in any more.
    stopped: Option<WriteError>,
    /// Waiting or being committed.
    backlog: u64,
    /// The number of the last recorded change.
    recorded: u64,
    failing: Option<String>,
}

impl Queue {
    /// The length of the store's log, as the writer has found it last.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds it can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a change that nobody waits for. Returns its number.
    pub(crate) fn record(&self, entry: Entry) -> u64 {
        let mut state = self.lock();
        state.recorded += 1;
        let number = state.recorded;
        self.push(state, Work::Entry(entry), Ticket { reply: None, number });
        number
    }

    /// Takes in what a caller waits for.
    pub(crate) fn call(&self, work: Work, reply: Reply) {
        let state = self.lock();
        self.push(state, work, Ticket { reply: Some(reply), number: 0 });
    }

    fn push(&self, mut state: MutexGuard<'_, State>, work: Work, ticket: Ticket) {
        if let Some(error) = &state.stopped {
            if let Some(reply) = ticket.reply {
                // The caller may have left.
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let urgent = ticket.reply.is_some();
        state.waiting.push_back(Queued { work, ticket, since: Instant::now() });
        state.urgent += usize::from(urgent);
        state.backlog += 1;
        let waiting = state.waiting.len();
        drop(state);
        if urgent || waiting == 1 || waiting == BATCH_LIMIT {
            self.changed.notify_one();
        }
    }

    /// The next group: at once where a caller waits for one of it.
    pub(crate) fn next(&self, patience: Duration) -> Next {
        let mut state = self.lock();
        let asked = Instant::now();
        loop {
            let now = Instant::now();
            let until = match state.waiting.front() {
                Some(_) if state.urgent > 0 || state.closed || state.waiting.len() >= BATCH_LIMIT => break,
                Some(first) => first.since + LINGER,
                None if state.closed => return Next::End,
                None => asked + patience,
            };
            if until <= now {
                if state.waiting.is_empty() {
                    return Next::Idle;
                }
                break;
            }
            state = self.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = state.waiting.len().min(BATCH_LIMIT);
        let mut group = Group::default();
        group.entries.reserve(count);
        group.tickets.reserve(count);
        let mut urgent = 0;
        for queued in state.waiting.drain(..count) {
            urgent += usize::from(queued.ticket.reply.is_some());
            group.push(queued);
        }
        state.urgent -= urgent;
        Next::Commit(group)
    }

    /// So many are committed, or given up.
    pub(crate) fn finished(&self, count: u64) {
        self.lock().backlog -= count;
    }

    pub(crate) fn set_failing(&self, error: Option<String>) {
        self.lock().failing = error;
    }

    /// Puts groups back in front. Callers that wait for anything in them or behind them get the error instead.
    pub(crate) fn put_back(&self, groups: Vec<Group>, error: &WriteError) {
        let mut state = self.lock();
        let since = Instant::now();
        let mut all = VecDeque::with_capacity(state.waiting.len());
        let mut given_up = 0;
        for group in groups {
            for (entry, mut ticket) in group.entries.into_iter().zip(group.tickets) {
                match ticket.reply.take() {
                    Some(reply) => given_up += fail(reply, error),
                    None => all.push_back(Queued { work: Work::Entry(entry), ticket, since }),
                }
            }
            given_up += group.barriers.into_iter().map(|reply| fail(reply, error)).sum::<u64>();
        }
        for mut queued in state.waiting.drain(..) {
            match queued.ticket.reply.take() {
                Some(reply) => given_up += fail(reply, error),
                None => all.push_back(queued),
            }
        }
        state.waiting = all;
        state.backlog -= given_up;
        state.urgent = 0;
    }

    /// Waits, unless the end has come.
    pub(crate) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let left = if state.closed { left.min(CLOSING_PAUSE) } else { left };
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

    /// The writer ends: callers that wait get the error, and nothing is taken in any more. Returns how many changes were
    /// lost.
    pub(crate) fn stop(&self, error: &WriteError) -> u64 {
        let mut state = self.lock();
        if state.stopped.is_some() {
            return 0;
        }
        state.stopped = Some(error.clone());
        state.failing.get_or_insert_with(|| error.to_string());
        state.urgent = 0;
        for queued in state.waiting.drain(..) {
            queued.ticket.reply.map(|reply| fail(reply, error));
        }
        state.backlog
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.lock().backlog
    }

    pub(crate) fn failing(&self) -> Option<String> {
        self.lock().failing.clone()
    }
}

/// Tells a caller, which may have left. One entry less.
fn fail(reply: Reply, error: &WriteError) -> u64 {
    let _ = reply.send(Err(error.clone()));
    1
}
