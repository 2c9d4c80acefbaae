//! The writer's thread.

mod room;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::JobId;
use tokio::sync::watch;

use super::batch_size::BatchSize;
use super::refusals::{log_refusal, refuse};
use super::suspects::{Suspects, changed_job};
use crate::backend::{Applied, Backend, BatchError, raise_latest};
use crate::batch::{Answer, Batch, Entry, Epoch};
use crate::error::WriteError;
use crate::queue::{Group, Next, Queue};

/// Pauses between attempts while nothing can be written.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Time for which a closing store that cannot write goes on trying.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// The store does what no change waits for when nothing has come for so long,
const QUIET: Duration = Duration::from_millis(200);
/// and is asked so often whether it could write.
const CHECK_INTERVAL: Duration = Duration::from_millis(400);
/// A commit waits at most this long for the callers of the last one,
const LONGEST_WAIT: Duration = Duration::from_millis(5);
/// and no longer than this part of the time that it took: what PostgreSQL's manual advises for `commit_delay`. Otherwise the
/// callers fall apart into two groups that take turns, each with every second commit.
const PART_OF_COMMIT: u32 = 2;
/// Time for which a caller waits for a batch whose commit is in doubt.
const DOUBT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct WriterThread {
    queue: Arc<Queue>,
    backend: Box<dyn Backend>,
    events: watch::Sender<u64>,
    pub(super) durable: watch::Sender<u64>,
    /// Whether the store's files are gone or others have taken their place.
    pub(super) replaced: watch::Sender<bool>,
    /// Jobs whose changes cannot be written, though those of others can.
    pub(super) unwritable: watch::Sender<BTreeMap<JobId, WriteError>>,
    /// The highest number of a recorded change that is written.
    last_written: u64,
    epoch: Epoch,
    /// The id of the next batch.
    next_batch: u64,
    batch_size: BatchSize,
    pause: Duration,
    /// The reason why new entries are refused.
    no_room: Option<String>,
    closing_since: Option<Instant>,
}

/// The result of a group's commit.
enum Committed {
    /// All of it is written or refused.
    Yes,
    /// It waits again.
    NotYet,
    /// This owner writes nothing any more.
    Never,
}

impl WriterThread {
    pub(super) fn new(
        queue: Arc<Queue>,
        backend: Box<dyn Backend>,
        epoch: Epoch,
        last_batch: u64,
        events: watch::Sender<u64>,
    ) -> Self {
        Self {
            queue,
            backend,
            events,
            durable: watch::Sender::default(),
            replaced: watch::Sender::default(),
            unwritable: watch::Sender::default(),
            last_written: 0,
            epoch,
            next_batch: last_batch + 1,
            batch_size: BatchSize::default(),
            pause: FIRST_PAUSE,
            no_room: None,
            closing_since: None,
        }
    }

    pub(super) fn run(&mut self) {
        let mut more_to_do = true;
        loop {
            let is_failing = self.pause != FIRST_PAUSE;
            match self.queue.next(if more_to_do || is_failing { QUIET } else { CHECK_INTERVAL }) {
                Next::Commit(mut group) => {
                    self.refuse_without_room(&mut group);
                    match self.commit(group) {
                        Committed::Yes => {}
                        Committed::NotYet if self.is_out_of_patience() => return,
                        Committed::NotYet => {}
                        Committed::Never => return,
                    }
                    more_to_do = self.maintain(false);
                }
                // The end of a failure is found without another change.
                Next::Idle if is_failing => {
                    if matches!(self.commit(Group::default()), Committed::Never) {
                        return;
                    }
                }
                Next::Idle => {
                    // Said by itself where it has changed.
                    let _ = self.look_for_room();
                    if let Err(error) = self.backend.check() {
                        self.failed(Vec::new(), &error);
                    } else if more_to_do {
                        more_to_do = self.maintain(true);
                    }
                }
                Next::End => {
                    while more_to_do {
                        more_to_do = self.maintain(true) && self.closing_time() < CLOSE_PATIENCE;
                    }
                    return;
                }
            }
        }
    }

    fn maintain(&mut self, is_idle: bool) -> bool {
        let more_to_do = self.backend.maintain(is_idle);
        self.queue.set_log_bytes(self.backend.log_bytes());
        more_to_do
    }

    /// Time since the store began to close.
    fn closing_time(&mut self) -> Duration {
        if !self.queue.is_closed() {
            return Duration::ZERO;
        }
        self.closing_since.get_or_insert_with(Instant::now).elapsed()
    }

    fn is_out_of_patience(&mut self) -> bool {
        self.closing_time() > CLOSE_PATIENCE
    }

    fn commit(&mut self, mut group: Group) -> Committed {
        self.refuse_unwritable(&mut group);
        if group.entries.is_empty() && !group.barriers.is_empty() && self.pause == FIRST_PAUSE {
            self.answer(group, Vec::new());
            return Committed::Yes;
        }
        // The rest of the group, last part first.
        let mut parts = vec![group];
        let mut suspects = Suspects::default();
        while let Some(part) = parts.pop() {
            let (mut part, rest) = self.batch_size.cut(part);
            parts.extend(rest);
            suspects.hold_back(&mut part);
            if part.entries.is_empty() && !suspects.errors.is_empty() {
                continue;
            }
            let batch = Batch { id: self.next_batch, epoch: self.epoch, entries: std::mem::take(&mut part.entries) };
            let since = Instant::now();
            let outcome = self.apply(&batch, &mut part);
            part.entries = batch.entries;
            match outcome {
                Ok(applied) => self.committed(part, applied, since.elapsed(), &mut suspects),
                Err(BatchError::Deterministic { entry: None, .. } | BatchError::Damaged { .. })
                    if part.entries.len() > 1 =>
                {
                    let half = part.entries.len() / 2;
                    let (first, second) = part.split(half);
                    parts.extend([second, first]);
                }
                Err(BatchError::Deterministic { entry, reason }) => {
                    if refuse(&mut part, entry.unwrap_or(0), reason) {
                        parts.push(part);
                    } else {
                        let answers = vec![Answer::Done; part.entries.len()];
                        self.answer(part, answers);
                    }
                }
                Err(BatchError::Damaged { error, of_one }) => {
                    if let Err(error) = Self::suspect(&mut suspects, &mut part, error, of_one) {
                        parts.push(part);
                        return self.put_back(suspects, parts, &error);
                    }
                    parts.push(part);
                }
                Err(BatchError::RolledBack(error) | BatchError::Unknown(error)) => {
                    self.batch_size.refused(part.entries.len(), &error);
                    parts.push(part);
                    return self.put_back(suspects, parts, &error);
                }
                Err(BatchError::Superseded { current }) => {
                    parts.extend([part, suspects.held]);
                    self.superseded(parts, current);
                    return Committed::Never;
                }
            }
        }
        match suspects.errors.first_key_value().map(|(_, error)| error.clone()) {
            Some(error) if !suspects.are_alone => self.put_back(suspects, parts, &error),
            Some(_) => {
                self.set_aside(suspects);
                Committed::Yes
            }
            None => Committed::Yes,
        }
    }

    /// A part is committed, in this time.
    fn committed(&mut self, part: Group, applied: Applied, took: Duration, suspects: &mut Suspects) {
        let Applied { answers, latest_event } = applied;
        self.next_batch += 1;
        self.batch_size.written();
        raise_latest(&self.events, latest_event);
        self.queue.expect_again(part.callers(), (took / PART_OF_COMMIT).min(LONGEST_WAIT));
        suspects.note_written(&part);
        // A caller that is answered finds the number.
        self.written(&part, suspects.errors.is_empty());
        self.answer(part, answers);
    }

    /// Nothing more can be written now: what is left waits again, the last part first.
    fn put_back(&mut self, suspects: Suspects, mut parts: Vec<Group>, error: &WriteError) -> Committed {
        parts.push(suspects.held);
        parts.reverse();
        self.failed(parts, error);
        Committed::NotYet
    }

    /// The only entry of a part meets damage. A recorded change is held back; a caller gets the error.
    ///
    /// # Errors
    /// There is no entry: the damage is not of one.
    fn suspect(suspects: &mut Suspects, part: &mut Group, error: WriteError, of_one: bool) -> Result<(), WriteError> {
        let Some((entry, ticket)) = part.entries.first_mut().zip(part.tickets.first_mut()) else { return Err(error) };
        if ticket.refuse(&error) {
            *entry = Entry::Nothing;
            return Ok(());
        }
        let Some(job) = changed_job(entry) else { return Err(error) };
        suspects.errors.insert(job, error);
        suspects.are_alone |= of_one;
        suspects.hold_back(part);
        Ok(())
    }

    /// Jobs that cannot be written go no further, and all others do.
    fn set_aside(&mut self, Suspects { errors, held, .. }: Suspects) {
        self.unwritable.send_modify(|unwritable| unwritable.extend(errors));
        self.written(&held, true);
        let answers = vec![Answer::Done; held.entries.len()];
        self.answer(held, answers);
    }

    /// Takes out the changes to jobs that cannot be written.
    fn refuse_unwritable(&self, group: &mut Group) {
        let unwritable = self.unwritable.borrow();
        if unwritable.is_empty() {
            return;
        }
        for (entry, ticket) in group.entries.iter_mut().zip(&mut group.tickets) {
            if let Some(error) = changed_job(entry).and_then(|job| unwritable.get(&job)) {
                ticket.refuse(error);
                *entry = Entry::Nothing;
            }
        }
    }

    /// A part is written or refused, and all that came before it where `is_all`.
    fn written(&mut self, part: &Group, is_all: bool) {
        self.last_written = self.last_written.max(part.last_number().unwrap_or(0));
        if is_all {
            self.recovered();
        }
        if is_all && self.last_written > 0 {
            self.durable.send_replace(self.last_written);
        }
    }

    /// Sends a batch until it is known what became of it, or the store closes. While it is in doubt, callers behind it
    /// get the error at once and callers for a part of it after a while.
    fn apply(&mut self, batch: &Batch, part: &mut Group) -> Result<Applied, BatchError> {
        let since = Instant::now();
        let mut was_in_doubt = false;
        loop {
            let error = match self.backend.apply(batch) {
                Err(BatchError::Unknown(error)) => error,
                known => {
                    if was_in_doubt && matches!(known, Err(BatchError::Superseded { .. })) {
                        self.answer_in_doubt(part);
                    }
                    return known;
                }
            };
            was_in_doubt = true;
            self.failed(Vec::new(), &error);
            let is_over = self.is_out_of_patience();
            if is_over || since.elapsed() > DOUBT_PATIENCE {
                self.answer_in_doubt(part);
            }
            if is_over {
                return Err(BatchError::Unknown(error));
            }
        }
    }

    /// Callers need not wait until it is known what became of a batch.
    fn answer_in_doubt(&self, part: &mut Group) {
        self.queue.finished(part.barriers.len() as u64);
        let replies = part.tickets.iter_mut().filter_map(|ticket| ticket.reply.take());
        for reply in replies.chain(part.barriers.drain(..)) {
            // The caller may have left.
            let _ = reply.send(Err(WriteError::InDoubt));
        }
    }

    /// Nothing can be written: says so, puts back what waits and pauses.
    fn failed(&mut self, parts: Vec<Group>, error: &WriteError) {
        self.queue.set_failing(Some(error.to_string()));
        self.note_replaced(matches!(error, WriteError::Replaced(_)));
        if self.pause == FIRST_PAUSE {
            tracing::error!(%error, backlog = self.queue.backlog(), "changes cannot be committed");
        }
        self.queue.put_back(parts, error);
        self.queue.pause(self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    fn recovered(&mut self) {
        if self.pause != FIRST_PAUSE {
            self.pause = FIRST_PAUSE;
            self.queue.set_failing(self.no_room.clone());
            self.note_replaced(false);
            tracing::info!("changes are committed again");
        }
    }

    fn note_replaced(&self, is_replaced: bool) {
        self.replaced.send_if_modified(|known| std::mem::replace(known, is_replaced) != is_replaced);
    }

    fn superseded(&self, parts: Vec<Group>, current: Epoch) {
        let error = WriteError::Superseded { current, own: self.epoch };
        tracing::warn!(%error, "nothing of this epoch is written any more");
        self.queue.set_failing(Some(error.to_string()));
        self.queue.put_back(parts, &error);
        self.queue.stop(&error);
    }

    fn answer(&self, group: Group, answers: Vec<Answer>) {
        self.queue.finished(group.len());
        for ((entry, ticket), answer) in group.entries.into_iter().zip(group.tickets).zip(answers) {
            if let Answer::Refused(reason) = &answer {
                log_refusal(&entry, reason);
            }
            if let Some(reply) = ticket.reply {
                // The caller may have left; the change is kept.
                let _ = reply.send(Ok(answer));
            }
        }
        for reply in group.barriers {
            let _ = reply.send(Ok(Answer::Done));
        }
    }
}
