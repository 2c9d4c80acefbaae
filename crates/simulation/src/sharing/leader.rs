//! A term of a coordinator: its engine and its way to write, as the real one has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Effect, Engine, LeaseFailure, LeaseOrder, Now, Settings};
use futures_util::FutureExt;
use jiff::Timestamp;
use model::{AttemptId, EventKind, JobId};
use rand::RngExt;
use scheduler::{AttemptFailure, Policy, WorkerKey};
use store::backend::{Applied, Backend, BatchError, Reading, Reads};
use store::{Answer, Batch, Entry, Epoch, Shared};

use super::member::Power;
use super::{Event, Sharing};
use crate::plan::{MS, Micros};

/// Numbers from a task's first to its last.
pub(crate) const CHUNK: NonZeroU64 = NonZeroU64::new(99).expect("not 0");

/// Time for which tasks wait for the lists of workers that a freshly started coordinator may not know.
const RECOVERY: Micros = 2_500 * MS;

/// Interval at which the leader looks for jobs that the others have accepted.
const EVENTS_INTERVAL: Micros = 50 * MS;

/// The end of a sent lease without an outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Undeliverable,
    Broken,
    Refused,
}

pub(crate) struct Term {
    pub(crate) epoch: u64,
    /// Time by the coordinator's own clock.
    pub(crate) until: Instant,
    pub(crate) engine: Engine,
    backend: Box<dyn Backend>,
    reads: Arc<dyn Reads>,
    next_batch: u64,
    waiting: VecDeque<(u64, Entry)>,
    /// The batch that is being written, with the numbers of its recorded changes.
    writing: Option<(Batch, Vec<u64>)>,
    recorded: u64,
    pub(crate) registered: BTreeMap<usize, WorkerKey>,
    /// Events up to this one are read.
    after_event: u64,
    /// Leases that are being sent.
    sent: BTreeSet<AttemptId>,
}

pub(crate) fn ready<T>(reading: Reading<'_, T>) -> Option<T> {
    reading.now_or_never().expect("a read in memory is ready").ok()
}

impl Sharing {
    fn now_at(&self, member: usize) -> Now {
        // The calendar of each host is its own, too.
        let at = Timestamp::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + 37 * member as u64);
        Now { instant: self.local_now(member), at: at + Duration::from_micros(self.now) }
    }

    /// The term, where the process is up and the event is meant for it.
    pub(crate) fn term(&mut self, member: usize, boot: u64, epoch: u64) -> Option<&mut Term> {
        if !self.is_up(member, boot) {
            return None;
        }
        self.members[member].term.as_mut().filter(|term| term.epoch == epoch)
    }

    pub(crate) fn begin(&mut self, member: usize, epoch: u64, until: Instant) {
        self.members[member].term = None;
        let opened = self.members[member].way.lead(Epoch(epoch));
        let Ok(parts) = opened else { return self.cannot_lead(member, epoch) };
        self.note(format_args!("member {member} leads in epoch {epoch}"));
        let settings = Settings {
            policy: Policy {
                lease_target: Duration::from_millis(60),
                lease_timeout: Duration::from_secs(30),
                aging_interval: Duration::from_secs(10),
            },
            chunk_size: CHUNK,
            worker_wait: Duration::from_secs(10),
            max_unstored: 50_000,
            recovery: Duration::from_micros(RECOVERY),
            epoch,
            instance: self.rng.random(),
            secret: self.rng.random(),
        };
        let after_event = *parts.latest_event.borrow();
        let unfinished = ready(parts.reads.open_jobs()).and_then(|jobs| ready(parts.reads.unfinished(jobs)));
        let Some(unfinished) = unfinished else { return self.cannot_lead(member, epoch) };
        let Some(verified) = ready(parts.reads.verified(usize::MAX)) else { return self.cannot_lead(member, epoch) };
        let term = Term {
            epoch,
            until,
            engine: Engine::new(settings, self.now_at(member)),
            backend: parts.backend,
            reads: parts.reads,
            next_batch: parts.last_batch + 1,
            waiting: VecDeque::new(),
            writing: None,
            recorded: 0,
            registered: BTreeMap::new(),
            after_event,
            sent: BTreeSet::new(),
        };
        self.members[member].term = Some(term);
        let set_aside = verified.into_iter().rev().flat_map(|verified| verified.set_aside).collect();
        self.input(member, |engine, now| engine.keep_set_aside(set_aside, now));
        if self.input(member, |engine, now| engine.take_over(unfinished, now)).is_none_or(|failed| !failed.is_empty()) {
            self.violate("a stored job cannot be read");
        }
        let boot = self.members[member].boot;
        self.after(EVENTS_INTERVAL, Event::EventsDue { member, boot, epoch });
        if self.now - self.members[member].started_at >= RECOVERY {
            self.ask_for_lists(member, epoch);
        }
    }

    /// The store went away between the lease and the first read.
    fn cannot_lead(&mut self, member: usize, epoch: u64) {
        self.note(format_args!("member {member} cannot lead in epoch {epoch}"));
        self.stand_back(member, epoch);
    }

    fn ask_for_lists(&mut self, member: usize, epoch: u64) {
        let names = (0..self.workers.len()).map(|worker| self.workers[worker].name(worker)).collect();
        self.input(member, |engine, now| engine.await_lists(names, now));
        for worker in 0..self.workers.len() {
            if !self.members[member].is_cut_from_workers {
                let delay = self.delay();
                self.after(delay, Event::AnnounceArrives { worker, epoch });
            }
        }
    }

    /// Gives the engine of a member's term an input and performs the effects.
    pub(crate) fn input<T>(&mut self, member: usize, input: impl FnOnce(&mut Engine, Now) -> T) -> Option<T> {
        let now = self.now_at(member);
        let term = self.members[member].term.as_mut()?;
        let result = input(&mut term.engine, now);
        let (effects, epoch, timeout) = (term.engine.take_effects(), term.epoch, term.engine.poll_timeout());
        for effect in effects {
            match effect {
                Effect::Store(change) => self.record(member, Entry::Change(change)),
                Effect::Send(order) => self.send(member, epoch, *order),
                Effect::Revoke { attempt, worker, .. } => self.revoke(member, epoch, attempt, worker),
                Effect::Suspended { .. } | Effect::Lacks { .. } => (),
                Effect::Answer { .. } | Effect::Deliver { .. } | Effect::Compose { .. } => {
                    self.violate("an effect of what no client has asked for");
                }
            }
        }
        if let Some(timeout) = timeout {
            let (boot, due) = (self.members[member].boot, self.real(member, timeout));
            self.after(due.saturating_sub(self.now).max(1), Event::EngineDue { member, boot, epoch });
        }
        Some(result)
    }

    pub(crate) fn engine_due(&mut self, member: usize, boot: u64, epoch: u64) {
        let local = self.local_now(member);
        let Some(term) = self.term(member, boot, epoch) else { return };
        if term.engine.poll_timeout().is_some_and(|at| at <= local) {
            self.input(member, Engine::handle_timeout);
        }
    }

    fn send(&mut self, member: usize, epoch: u64, order: LeaseOrder) {
        let term = self.members[member].term.as_ref();
        if term.is_some_and(|term| term.engine.has_rival(order.attempt)) {
            self.second_attempts.insert(order.attempt);
        }
        let attempt = order.attempt;
        if !self.members[member].is_trusted(self.local_now(member)) {
            return;
        }
        self.act(member, epoch);
        let Some(term) = self.members[member].term.as_mut() else { return };
        term.sent.insert(attempt);
        let Some(worker) =
            self.workers.iter().enumerate().find(|(number, worker)| worker.name(*number) == order.worker_id)
        else {
            return self.violate("a lease for a worker that there is not");
        };
        let (worker, boot, delay) = (worker.0, self.members[member].boot, self.delay());
        if self.members[member].is_cut_from_workers {
            return self.after(delay, Event::LeaseUndeliverable { member, boot, epoch, attempt });
        }
        self.after(delay, Event::LeaseArrives { worker, member, boot, epoch, order: Box::new(order) });
    }

    fn revoke(&mut self, member: usize, epoch: u64, attempt: AttemptId, key: WorkerKey) {
        let is_trusted = self.members[member].is_trusted(self.local_now(member));
        let Some(term) = self.members[member].term.as_mut() else { return };
        term.sent.remove(&attempt);
        let worker = term.registered.iter().find(|(_, known)| **known == key).map(|(worker, _)| *worker);
        if let Some(worker) = worker.filter(|_| is_trusted && !self.members[member].is_cut_from_workers) {
            self.act(member, epoch);
            let delay = self.delay();
            self.after(delay, Event::StopArrives { worker, epoch, attempt });
        }
    }

    pub(crate) fn lease_ended(&mut self, member: usize, boot: u64, epoch: u64, attempt: AttemptId, end: End) {
        let Some(term) = self.term(member, boot, epoch) else { return };
        if !term.sent.remove(&attempt) {
            return;
        }
        self.input(member, |engine, now| match end {
            End::Broken => engine.connection_broke(attempt, now),
            // The attempt may have ended meanwhile.
            End::Undeliverable => {
                let _ = engine.fail(attempt, LeaseFailure::Undeliverable, now);
            }
            End::Refused => {
                let cause = AttemptFailure::Refused("its worker has seen a later epoch".to_owned());
                let _ = engine.fail(attempt, LeaseFailure::WorkerFailed(cause), now);
            }
        });
    }

    /// Takes the answer to a lease that was sent; tells whether it was waited for.
    pub(crate) fn take_sent(&mut self, member: usize, attempt: AttemptId) -> bool {
        self.members[member].term.as_mut().is_some_and(|term| term.sent.remove(&attempt))
    }

    pub(crate) fn record(&mut self, member: usize, entry: Entry) {
        let boot = self.members[member].boot;
        let Some(term) = self.members[member].term.as_mut() else { return };
        let number = if matches!(entry, Entry::Change(_)) {
            term.recorded += 1;
            term.recorded
        } else {
            0
        };
        term.waiting.push_back((number, entry));
        let epoch = term.epoch;
        self.after(10 * MS, Event::BatchDue { member, boot, epoch });
    }

    pub(crate) fn batch_due(&mut self, member: usize, boot: u64, epoch: u64) {
        let Some(term) = self.term(member, boot, epoch) else { return };
        if term.writing.is_some() || term.waiting.is_empty() {
            return;
        }
        let (numbers, entries) = term.waiting.drain(..).unzip();
        term.writing = Some((Batch { id: term.next_batch, epoch: Epoch(epoch), entries }, numbers));
        self.send_batch(member, boot, epoch);
    }

    fn send_batch(&mut self, member: usize, boot: u64, epoch: u64) {
        let delay = self.delay();
        self.after(delay, Event::BatchArrives { member, boot, epoch });
    }

    /// The batch comes to the store, also when its sender hangs.
    pub(crate) fn batch_arrives(&mut self, member: usize, boot: u64, epoch: u64) {
        let is_there = self.members[member].boot == boot && self.members[member].power != Power::Down;
        let term = self.members[member].term.as_mut().filter(|term| is_there && term.epoch == epoch);
        let Some(term) = term else { return };
        let Some((batch, _)) = term.writing.clone() else { return };
        let answer = term.backend.apply(&batch);
        let current = self.memory.epoch().0;
        if answer.is_ok() && epoch != current {
            self.violate(format!("a batch of epoch {epoch} is written in epoch {current}"));
        }
        if let Ok(applied) = &answer
            && let Some(Answer::Refused(why)) =
                applied.answers.iter().find(|answer| matches!(answer, Answer::Refused(_)))
        {
            self.violate(format!("the store refuses a change: {why}"));
        }
        if answer.is_ok() {
            self.check_applied(&batch);
        }
        let answer = if self.rng.random_bool(self.lost_answers) {
            Err(BatchError::Unknown(store::WriteError::InDoubt))
        } else {
            answer
        };
        let delay = self.delay();
        self.after(delay, Event::BatchAnswered { member, boot, epoch, answer });
    }

    pub(crate) fn batch_answered(&mut self, member: usize, boot: u64, epoch: u64, answer: Result<Applied, BatchError>) {
        let Some(term) = self.term(member, boot, epoch) else { return };
        let Some((batch, numbers)) = term.writing.take() else { return };
        match answer {
            Ok(applied) => {
                term.next_batch += 1;
                let number = numbers.iter().copied().max().unwrap_or(0);
                for (entry, answer) in batch.entries.iter().zip(&applied.answers) {
                    if let (Entry::Submission(new), Answer::Submitted(_)) = (entry, answer) {
                        self.acknowledged(member, new.id);
                    }
                }
                if number > 0 {
                    self.input(member, |engine, now| engine.stored(number, now));
                }
                self.after(MS, Event::BatchDue { member, boot, epoch });
            }
            Err(BatchError::Superseded { .. }) => {
                // Nothing of it is written any more; the candidacy finds the lease lost.
            }
            // It is found out by sending it again.
            Err(BatchError::Unknown(_) | BatchError::RolledBack(_)) => {
                term.writing = Some((batch, numbers));
                let pause = self.rng.random_range(20 * MS..200 * MS);
                self.after(pause, Event::BatchArrives { member, boot, epoch });
            }
            Err(error @ (BatchError::Deterministic { .. } | BatchError::Damaged { .. })) => {
                self.violate(format!("a batch is refused: {error}"))
            }
        }
    }

    /// Writes the waiting changes, as a stopping coordinator does; returns whether all are known to be written.
    pub(crate) fn flush_at_once(&mut self, member: usize) -> bool {
        let Some(term) = self.members[member].term.as_mut() else { return true };
        let writing = term.writing.take();
        if let Some((batch, _)) = &writing {
            if term.backend.apply(batch).is_err() {
                return false;
            }
            term.next_batch += 1;
        }
        let entries: Vec<_> = term.waiting.drain(..).map(|(_, entry)| entry).collect();
        let batch = Batch { id: term.next_batch, epoch: Epoch(term.epoch), entries };
        let is_written = batch.entries.is_empty() || term.backend.apply(&batch).is_ok();
        writing.into_iter().for_each(|(batch, _)| self.check_applied(&batch));
        if is_written && !batch.entries.is_empty() {
            self.check_applied(&batch);
        }
        is_written
    }

    /// Takes up the jobs that other coordinators have accepted.
    pub(crate) fn events_due(&mut self, member: usize, boot: u64, epoch: u64) {
        let Some(term) = self.term(member, boot, epoch) else { return };
        if let Some(events) = ready(term.reads.events(term.after_event, None, 1_000)) {
            term.after_event = events.last().map_or(term.after_event, |event| event.seq);
            let submitted = events.iter().filter(|event| event.kind == EventKind::Submitted);
            let submitted: Vec<JobId> = submitted.map(|event| event.job).collect();
            submitted.into_iter().for_each(|job| self.take_up(member, job));
        }
        self.input(member, Engine::tick);
        self.after(EVENTS_INTERVAL, Event::EventsDue { member, boot, epoch });
    }

    pub(crate) fn take_up(&mut self, member: usize, job: JobId) {
        let Some(term) = self.members[member].term.as_ref() else { return };
        // The end of the job may be on its way to the store.
        if term.engine.knows(job) || term.writing.is_some() || !term.waiting.is_empty() {
            if !term.engine.knows(job) {
                let (after, reads) = (term.after_event, Arc::clone(&term.reads));
                let seq = ready(reads.events(0, Some(job), 1)).and_then(|events| Some(events.first()?.seq));
                if let (Some(term), Some(seq)) = (self.members[member].term.as_mut(), seq) {
                    term.after_event = after.min(seq - 1);
                }
            }
            return;
        }
        let unfinished = ready(term.reads.unfinished(vec![job])).and_then(|mut jobs| jobs.pop());
        if let Some(unfinished) = unfinished {
            self.note(format_args!("member {member} takes job {job} up"));
            if !matches!(self.input(member, |engine, now| engine.take_up(unfinished, now)), Some(Ok(()))) {
                self.violate("a stored job cannot be read");
            }
        }
    }
}
