//! The store's writer in virtual time: it commits in groups, through the backend of the store in memory, which decides as
//! every store does. Batches fail, answers get lost, and a crash loses what is not committed.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::ComposeFailure;
use futures_util::FutureExt;
use model::{JobId, JobKind};
use rand::RngExt;
use store::backend::{Backend, BatchError, Reading, Reads};
use store::memory::Memory;
use store::{Answer, Batch, Change, Entry, JobRecord, ResultBody, SetAsideWorker, UnfinishedJob};

use crate::client::Operation;
use crate::outcome::json;
use crate::plan::{MS, SECOND};
use crate::world::{Event, World};

/// A caller that waits for a commit.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    Operation(Operation),
    Composition(JobId),
}

#[derive(Clone, Debug)]
struct Queued {
    /// No change: the waiter waits for earlier changes.
    entry: Option<Entry>,
    /// The number of a recorded change; 0 for another entry.
    number: u64,
    waiter: Option<Waiter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    RolledBack,
    AnswerLost,
    BatchLost,
    /// It is sent again: it was written before.
    WrittenAgain,
}

pub(crate) struct Disk {
    backend: Box<dyn Backend>,
    reads: Arc<dyn Reads>,
    epoch: store::Epoch,
    next_batch: u64,
    waiting: VecDeque<Queued>,
    /// The batch that is being written.
    writing: Option<(Batch, Vec<Queued>, Fate)>,
    is_started: bool,
    recorded: u64,
    pub(crate) durable: u64,
}

fn ready<T>(reading: Reading<'_, T>) -> T {
    reading.now_or_never().expect("a read in memory is ready").expect("a read in memory does not fail")
}

impl Disk {
    pub(crate) fn open(memory: &Memory) -> Self {
        let parts = memory.open();
        Self {
            backend: parts.backend,
            reads: parts.reads,
            epoch: parts.epoch,
            next_batch: parts.last_batch + 1,
            waiting: VecDeque::new(),
            writing: None,
            is_started: false,
            recorded: 0,
            durable: 0,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.0
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_none()
    }

    pub(crate) fn unfinished(&self, only: Option<JobId>) -> Vec<UnfinishedJob> {
        let jobs = only.map_or_else(|| ready(self.reads.open_jobs()), |id| vec![id]);
        ready(self.reads.unfinished(jobs))
    }

    /// Workers that were set aside, the latest last.
    pub(crate) fn set_aside(&self) -> Vec<SetAsideWorker> {
        let verified = ready(self.reads.verified(usize::MAX));
        verified.into_iter().rev().flat_map(|verified| verified.set_aside).collect()
    }

    pub(crate) fn job(&self, id: JobId) -> Option<JobRecord> {
        ready(self.reads.job(id))
    }

    pub(crate) fn result(&self, id: JobId) -> Option<String> {
        use store::backend::ResultRowBody::{Json, Object};
        match ready(self.reads.result(id))?.body {
            Json(text) => Some(text),
            Object { name, .. } => Some(name),
        }
    }

    pub(crate) fn payloads(&self, job: JobId, tasks: &std::ops::Range<u64>) -> Vec<u64> {
        let payload = |task: u64| {
            let block = ready(self.reads.payloads(job, task))?;
            let place = usize::try_from(task - block.tasks.start).ok()?;
            block.payloads.get(place)?.get().parse().ok()
        };
        tasks.clone().map(|task| payload(task).unwrap_or(u64::MAX)).collect()
    }

    /// The result of individual tasks, from their stored answers.
    fn compose(&self, job: JobId) -> Option<ResultBody> {
        let record = self.job(job)?;
        let (tasks, is_folded) = (record.tasks, record.kind == JobKind::PROGRAM);
        let mut answers = vec!["null".to_owned(); usize::try_from(tasks).ok()?];
        let mut next = 0;
        loop {
            let some = ready(self.reads.answers(job, next));
            if some.is_empty() {
                break;
            }
            for found in some {
                next = found.tasks.end;
                let list: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(found.json.as_deref()?).ok()?;
                for (task, answer) in found.tasks.zip(list) {
                    answer.get().clone_into(answers.get_mut(usize::try_from(task).ok()?)?);
                }
            }
        }
        if is_folded {
            return Some(ResultBody::Inline(json(format!(r#"{{"output":{}}}"#, answers.last()?))));
        }
        Some(ResultBody::Inline(json(format!(r#"{{"tasks":[{}]}}"#, answers.join(",")))))
    }
}

impl World {
    pub(crate) fn record(&mut self, change: Change) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        coordinator.disk.recorded += 1;
        let number = coordinator.disk.recorded;
        self.audit.recorded(number, &change);
        let queued = Queued { entry: Some(Entry::Change(change)), number, waiter: None };
        self.enqueue(queued, 10 * MS);
    }

    pub(crate) fn call_disk(&mut self, waiter: Waiter, entry: Option<Entry>) {
        self.enqueue(Queued { entry, number: 0, waiter: Some(waiter) }, 0);
    }

    fn enqueue(&mut self, queued: Queued, linger: u64) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        coordinator.disk.waiting.push_back(queued);
        let run = coordinator.run;
        if !std::mem::replace(&mut coordinator.disk.is_started, true) {
            self.after(linger, Event::DiskStarts { run });
        }
    }

    pub(crate) fn disk_starts(&mut self, run: u64) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run) else { return };
        let disk = &mut coordinator.disk;
        let count = disk.waiting.len().min(self.rng.random_range(1..64));
        let group: Vec<_> = disk.waiting.drain(..count).collect();
        let entries = group.iter().filter_map(|queued| queued.entry.clone()).collect();
        let batch = Batch { id: disk.next_batch, epoch: disk.epoch, entries };
        let fate = if self.is_calm {
            Fate::Written
        } else if self.disk_fails {
            Fate::RolledBack
        } else if self.rng.random_bool(self.plan.commit_failures) {
            [Fate::RolledBack, Fate::AnswerLost, Fate::BatchLost][self.rng.random_range(0..3)]
        } else {
            Fate::Written
        };
        disk.writing = Some((batch, group, fate));
        let most = if self.is_calm { 10 * MS } else { self.plan.max_commit };
        let delay = self.rng.random_range(200..=most);
        self.after(delay, Event::DiskEnds { run });
    }

    pub(crate) fn disk_ends(&mut self, run: u64) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run) else { return };
        let disk = &mut coordinator.disk;
        let Some((batch, group, fate)) = disk.writing.take() else { return };
        match fate {
            Fate::RolledBack => {
                // Recorded changes wait again, in order; each caller gets the error.
                let (recorded, callers): (Vec<_>, Vec<_>) = group.into_iter().partition(|queued| queued.number > 0);
                recorded.into_iter().rev().for_each(|queued| disk.waiting.push_front(queued));
                self.note("disk", format_args!("batch {} is rolled back", batch.id));
                callers.into_iter().filter_map(|queued| queued.waiter).for_each(|waiter| self.refuse(waiter));
                self.after(SECOND / 10, Event::DiskStarts { run });
            }
            Fate::AnswerLost | Fate::BatchLost => {
                if fate == Fate::AnswerLost {
                    let _ = disk.backend.apply(&batch);
                }
                let delay = self.rng.random_range(MS..SECOND);
                let again = if fate == Fate::AnswerLost { Fate::WrittenAgain } else { Fate::Written };
                disk.writing = Some((batch, group, again));
                self.after(delay, Event::DiskEnds { run });
            }
            Fate::Written | Fate::WrittenAgain => self.written(run, &batch, group),
        }
    }

    fn written(&mut self, run: u64, batch: &Batch, group: Vec<Queued>) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let disk = &mut coordinator.disk;
        let applied = match disk.backend.apply(batch) {
            Ok(applied) => applied,
            Err(BatchError::Superseded { .. }) => return self.violate("a living coordinator is superseded"),
            Err(error) => return self.violate(format!("a batch is refused: {error}")),
        };
        disk.next_batch += 1;
        let number = group.iter().map(|queued| queued.number).max().unwrap_or(0);
        disk.durable = disk.durable.max(number);
        if disk.waiting.is_empty() {
            disk.is_started = false;
        } else {
            self.after(MS, Event::DiskStarts { run });
        }
        let mut answers = applied.answers.into_iter();
        let mut waiters = Vec::new();
        for queued in group {
            let answer = queued.entry.as_ref().and_then(|_| answers.next()).unwrap_or(Answer::Done);
            if let Answer::Refused(reason) = &answer {
                let what = format!("the store refuses a change: {reason}: {:?}", queued.entry);
                self.violate(what);
            }
            if let Some(entry) = &queued.entry {
                self.audit_committed(entry, queued.number, &answer);
            }
            waiters.extend(queued.waiter.map(|waiter| (waiter, answer)));
        }
        if number > 0 {
            self.audit_durable(number);
            self.input(|engine, now| engine.stored(number, now));
        }
        for (waiter, answer) in waiters {
            match waiter {
                Waiter::Operation(operation) => self.go_on(operation, Some(answer)),
                Waiter::Composition(job) => self.compose(job),
            }
        }
    }

    fn compose(&mut self, job: JobId) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let fails = !self.is_calm && self.rng.random_bool(0.1);
        let outcome = match coordinator.disk.compose(job) {
            Some(result) if !fails => Ok(result),
            Some(_) => Err(ComposeFailure::Unavailable("as planned".to_owned())),
            None => return self.violate("a result cannot be put together"),
        };
        self.note("coordinator", format_args!("composed job {}: {}", self.name(job), outcome.is_ok()));
        self.input(|engine, now| engine.composed(job, outcome, now));
    }

    fn refuse(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Operation(operation) => self.go_on(operation, None),
            Waiter::Composition(job) => {
                let failure = Err(ComposeFailure::Unavailable("the disk fails".to_owned()));
                self.input(|engine, now| engine.composed(job, failure, now));
            }
        }
    }

    /// Ends the disk with its process: the batch in writing may be committed, the waiting changes are lost.
    pub(crate) fn end_disk(&mut self, mut disk: Disk) {
        if let Some((batch, group, fate)) = disk.writing.take()
            && fate != Fate::RolledBack
            && (fate == Fate::WrittenAgain || self.rng.random_bool(0.5))
            && let Ok(applied) = disk.backend.apply(&batch)
        {
            let entries = group.iter().filter_map(|queued| queued.entry.as_ref().map(|entry| (entry, queued.number)));
            for ((entry, number), answer) in entries.zip(&applied.answers) {
                self.audit_committed(entry, number, answer);
            }
            self.note("disk", format_args!("the last batch is committed, {} are lost", disk.waiting.len()));
        } else {
            self.note("disk", format_args!("{} are lost", disk.waiting.len()));
        }
    }
}

/// Whether the result of a job of this kind is put together from its tasks' results.
pub(crate) fn is_composed(kind: JobKind) -> bool {
    kind == JobKind::TASKS || kind == JobKind::PROGRAM
}
