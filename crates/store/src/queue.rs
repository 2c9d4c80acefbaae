//! Entries that wait for the writer, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{Answer, Entry};
use crate::error::WriteError;

/// Time for which a recorded change waits for others to share its commit.
const LINGER: Duration = Duration::from_millis(10);
/// Most entries of one batch: about a tenth of a second of work, which a durable change may have to wait for.
pub(crate) const BATCH_LIMIT: usize = 8192;
/// Fewest callers that the next group waits for: PostgreSQL's default for `commit_siblings`.
const RETURNING_CALLERS: usize = 5;
/// Longest pause between attempts to write once the store is being closed.
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Reply = oneshot::Sender<Result<Answer, WriteError>>;

/// Work for the writer.
#[derive(Debug)]
pub(crate) enum Work {
    Entry(Entry),
    /// No entry: answered when all entries before it are committed.
    Barrier,
}

#[derive(Debug)]
struct Queued {
    work: Work,
    ticket: Ticket,
    since: Instant,
}

/// Identity of an entry while it waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Channel of the answer, if a caller waits.
    pub(crate) reply: Option<Reply>,
    /// The number of a recorded change; 0 for other entries.
    pub(crate) number: u64,
}

impl Ticket {
    /// Answers a caller with an error. Returns whether a caller waits.
    pub(crate) fn refuse(&mut self, error: &WriteError) -> bool {
        // The caller may have left.
        self.reply.take().map(|reply| reply.send(Err(error.clone()))).is_some()
    }
}

/// Entries that the writer commits together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) entries: Vec<Entry>,
    /// A ticket for each entry.
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

    /// The group's share of the backlog, in entries.
    pub(crate) fn len(&self) -> u64 {
        (self.entries.len() + self.barriers.len()) as u64
    }

    /// Cuts the group in two, of which the first has this number of entries. Both are smaller than the whole if that has more.
    pub(crate) fn split(mut self, count: usize) -> (Self, Self) {
        let (entries, tickets) = (self.entries.split_off(count), self.tickets.split_off(count));
        let barriers = std::mem::take(&mut self.barriers);
        (self, Self { entries, tickets, barriers })
    }

    /// Number of callers that wait for the group.
    pub(crate) fn callers(&self) -> usize {
        self.tickets.iter().filter(|ticket| ticket.reply.is_some()).count() + self.barriers.len()
    }

    /// The highest number of a recorded change in it.
    pub(crate) fn last_number(&self) -> Option<u64> {
        self.tickets.iter().map(|ticket| ticket.number).max().filter(|&number| number > 0)
    }
}

/// The writer's next step.
pub(crate) enum Next {
    Commit(Group),
    /// Nothing has come for as long as the writer wanted to wait.
    Idle,
    /// The queue is closed and empty.
    End,
}

/// The queue has no bound of its own: the caller that records watches [`crate::Store::backlog`], and counts the memory of large
/// changes until [`crate::Store::durable`] has their number.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    log_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Queued>,
    /// Entries of `waiting` that a caller waits for.
    urgent: usize,
    /// Callers that are likely to wait soon, and the end of the next group's wait for them.
    expected: usize,
    expected_until: Option<Instant>,
    closed: bool,
    /// The reason why the queue accepts nothing any more.
    stopped: Option<WriteError>,
    /// Number of entries that wait or are being committed.
    backlog: u64,
    /// The number of the last recorded change.
    recorded: u64,
    failing: Option<String>,
}

impl QueueState {
    fn put(&mut self, work: Work, ticket: Ticket) {
        if let Some(error) = &self.stopped {
            if let Some(reply) = ticket.reply {
                // The caller may have left.
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        self.urgent += usize::from(ticket.reply.is_some());
        self.waiting.push_back(Queued { work, ticket, since: Instant::now() });
        self.backlog += 1;
    }
}

impl Queue {
    /// The length of the store's log, as the writer has found it last.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code that holds it can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change that no caller waits for. Returns its number.
    pub(crate) fn record(&self, entry: Entry) -> u64 {
        let mut state = self.lock();
        state.recorded += 1;
        let number = state.recorded;
        state.put(Work::Entry(entry), Ticket { reply: None, number });
        let waiting = state.waiting.len();
        drop(state);
        if waiting == 1 || waiting == BATCH_LIMIT {
            self.changed.notify_one();
        }
        number
    }

    /// Adds entries that callers wait for, all of them before the next group begins.
    pub(crate) fn call(&self, calls: impl IntoIterator<Item = (Work, Reply)>) {
        let mut state = self.lock();
        let before = state.urgent;
        for (work, reply) in calls {
            state.put(work, Ticket { reply: Some(reply), number: 0 });
        }
        // The thread waits for the first caller, and for the last of those that are expected.
        let ends_wait = before == 0 || state.urgent >= state.expected || state.waiting.len() >= BATCH_LIMIT;
        drop(state);
        if ends_wait {
            self.changed.notify_one();
        }
    }

    /// Notes that `callers` callers are about to be answered. As a rule they call again, and share the next commit if it waits
    /// for them for up to `patience`.
    pub(crate) fn expect_again(&self, callers: usize, patience: Duration) {
        let mut state = self.lock();
        let expected = state.urgent + callers;
        let is_worth_it = callers > 0 && expected >= RETURNING_CALLERS;
        (state.expected, state.expected_until) =
            if is_worth_it { (expected, Some(Instant::now() + patience)) } else { (0, None) };
    }

    /// The next group: at once if a caller waits for one of its entries and no more callers are expected.
    pub(crate) fn next(&self, patience: Duration) -> Next {
        let mut state = self.lock();
        let asked = Instant::now();
        loop {
            let now = Instant::now();
            let others_until = state.expected_until.filter(|until| state.urgent < state.expected && *until > now);
            let until = match state.waiting.front() {
                Some(_) if state.closed || state.waiting.len() >= BATCH_LIMIT => break,
                Some(_) if state.urgent > 0 => match others_until {
                    Some(until) => until,
                    None => break,
                },
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
        (state.expected, state.expected_until) = (0, None);
        Next::Commit(group)
    }

    /// Notes that `count` entries are committed, or given up.
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

    /// Waits, unless the queue is closed.
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

    /// Ends the queue: waiting callers get the error, and nothing is accepted any more. Returns the number of lost changes.
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

    pub(crate) fn recorded(&self) -> u64 {
        self.lock().recorded
    }

    pub(crate) fn failing(&self) -> Option<String> {
        self.lock().failing.clone()
    }
}

/// Answers a caller, which may have left, with an error. The backlog is one entry shorter.
fn fail(reply: Reply, error: &WriteError) -> u64 {
    let _ = reply.send(Err(error.clone()));
    1
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn call(queue: &Queue) {
        queue.call([(Work::Entry(Entry::Nothing), oneshot::channel().0)]);
    }

    #[test]
    fn what_is_called_together_is_in_one_group() {
        let queue = Queue::default();
        let next = thread::scope(|scope| {
            let writer = scope.spawn(|| queue.next(LONG));
            queue.call((0..1_000).map(|_| (Work::Entry(Entry::Nothing), oneshot::channel().0)));
            writer.join().expect("no panic")
        });
        assert_eq!(size(&next), 1_000);
    }

    fn size(next: &Next) -> usize {
        match next {
            Next::Commit(group) => group.entries.len(),
            Next::Idle | Next::End => 0,
        }
    }

    #[test]
    fn callers_that_are_answered_together_share_the_next_group_too() {
        let queue = Queue::default();
        call(&queue);
        queue.expect_again(7, LONG);
        let next = thread::scope(|scope| {
            let writer = scope.spawn(|| queue.next(LONG));
            (0..7).for_each(|_| call(&queue));
            writer.join().expect("no panic")
        });
        assert_eq!(size(&next), 8);
        // They are expected once.
        call(&queue);
        assert_eq!(size(&queue.next(LONG)), 1);
    }

    #[test]
    fn a_group_waits_no_longer_for_callers_than_it_was_told_and_not_at_all_for_few() {
        let queue = Queue::default();
        queue.expect_again(8, Duration::from_millis(1));
        (0..3).for_each(|_| call(&queue));
        assert_eq!(size(&queue.next(LONG)), 3);
        queue.expect_again(RETURNING_CALLERS - 1, LONG);
        call(&queue);
        assert_eq!(size(&queue.next(LONG)), 1);
        queue.expect_again(8, LONG);
        call(&queue);
        queue.close();
        assert_eq!(size(&queue.next(LONG)), 1);
    }
}
