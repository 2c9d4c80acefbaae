//! A store in memory, for simulations and tests. It can fail, lose and hold commits, and is reopened with its committed
//! state; a copy of it is the state after a crash. A simulation calls the backend itself, in its own time; [`Memory::store`]
//! starts a writer as for any store.

mod apply;
mod reads;
mod shared;
mod state;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use model::JobId;
use tokio::sync::watch;
use uuid::Uuid;

use crate::backend::{Applied, Backend, BatchError, raise_latest};
use crate::batch::{Batch, Entry, Epoch};
use crate::error::WriteError;
use crate::objects::Objects;
use crate::retention::Retention;
use crate::store::{Parts, Store};
use crate::unreadable::Unreadable;

pub use shared::{MemoryShared, StoreClock};

use state::CommittedState;

/// The committed state, shared by all that have it open. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
    objects: Objects,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<CommittedState>,
    control: Mutex<Control>,
    released: Condvar,
    /// Always empty: rows in memory are as they were written.
    unreadable: Unreadable,
    /// The number of the newest event, for all that have the store open.
    latest_event: watch::Sender<u64>,
}

/// Faults of the batches to come.
#[derive(Debug, Default)]
struct Control {
    faults: VecDeque<Fault>,
    is_losing: bool,
    failing: Option<WriteError>,
    /// The most entries of a batch, if there is a bound.
    longest: Option<usize>,
    damaged: BTreeSet<JobId>,
    /// Number of reads of open jobs that are still to fail.
    failing_reads: usize,
    is_held: bool,
    /// Batches that wait until they are released.
    waiting: usize,
}

/// Fault of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// The batch is rolled back.
    RolledBack(WriteError),
    /// The batch is committed, and the answer is lost.
    AnswerLost,
    /// The batch and the answer are lost.
    BatchLost,
    /// The batch cannot be written because of this entry, or of an entry that the error does not name.
    Deterministic(Option<usize>),
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default(), objects: Objects::in_memory().of_store(Uuid::new_v4()) }
    }

    /// Opens the store under a new epoch. Earlier owners are superseded.
    #[must_use]
    pub fn open(&self) -> Parts {
        let mut state = lock(&self.shared.state);
        let epoch = state.next_epoch();
        drop(state);
        self.parts(epoch, 0, Link::default())
    }

    fn parts(&self, epoch: Epoch, last_batch: u64, link: Link) -> Parts {
        let backend = Box::new(MemoryBackend { shared: self.shared.clone(), link: link.clone(), follows: false });
        let reads = Arc::new(reads::MemoryReads { shared: self.shared.clone(), link });
        let latest_event = self.shared.latest_event.clone();
        Parts { backend, reads, objects: self.objects.clone(), epoch, last_batch, latest_event }
    }

    /// Opens the store with a writer's thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn store(&self, retention: Retention) -> std::io::Result<Store> {
        Store::start(self.open(), retention)
    }

    /// Another store with the present committed state, as after a crash at this moment. Objects stay shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = lock(&self.shared.state).clone();
        let latest_event = watch::Sender::new(state.latest_event());
        let shared = Shared { state: Mutex::new(state), latest_event, ..Shared::default() };
        Self { shared: Arc::new(shared), objects: self.objects.clone() }
    }

    /// The current epoch; 0 before the first opening.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        lock(&self.shared.state).epoch()
    }

    /// Gives the next batch without a fault this fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.control).faults.push_back(fault);
    }

    /// Loses every batch that has no injected fault, and its answer, until `is_losing` is false again.
    pub fn set_losing(&self, is_losing: bool) {
        lock(&self.shared.control).is_losing = is_losing;
    }

    /// Rolls every batch back with this error, until the error is `None` again.
    pub fn set_failing(&self, error: Option<WriteError>) {
        lock(&self.shared.control).failing = error;
    }

    /// Rolls every batch of more entries back as if the disk had no room for it, until the bound is `None` again.
    pub fn bound_batches(&self, longest: Option<usize>) {
        lock(&self.shared.control).longest = longest;
    }

    /// Refuses every batch that changes one of these jobs.
    pub fn damage(&self, jobs: impl IntoIterator<Item = JobId>) {
        lock(&self.shared.control).damaged = jobs.into_iter().collect();
    }

    /// Lets the next `count` reads of open jobs fail.
    pub fn fail_reads_of_open_jobs(&self, count: usize) {
        lock(&self.shared.control).failing_reads = count;
    }

    /// Number of batches that wait because commits are held.
    #[must_use]
    pub fn held(&self) -> usize {
        lock(&self.shared.control).waiting
    }

    /// Holds commits: no batch begins until they are released.
    pub fn hold_commits(&self, is_held: bool) {
        lock(&self.shared.control).is_held = is_held;
        self.shared.released.notify_all();
    }
}

/// A connection to the store, which a test may cut.
#[derive(Clone, Debug, Default)]
struct Link(Arc<AtomicBool>);

impl Link {
    fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Err("the connection is cut".to_owned()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct MemoryBackend {
    shared: Arc<Shared>,
    link: Link,
    /// Whether the backend takes only submissions, of no epoch.
    follows: bool,
}

impl MemoryBackend {
    /// Waits for the delay and the release of commits. Returns the fault of this batch.
    fn next_fault(&self, batch: &Batch) -> Fault {
        let mut control = lock(&self.shared.control);
        control.waiting += 1;
        while control.is_held {
            control = self.shared.released.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
        control.waiting -= 1;
        let is_too_long = control.longest.is_some_and(|longest| batch.entries.len() > longest);
        match &control.failing {
            Some(error) => Fault::RolledBack(error.clone()),
            None if is_too_long => Fault::RolledBack(WriteError::Full("the disk is full".to_owned())),
            None => {
                control.faults.pop_front().unwrap_or(if control.is_losing { Fault::BatchLost } else { Fault::None })
            }
        }
    }
}

impl MemoryBackend {
    fn write(&self, batch: &Batch) -> Result<Applied, BatchError> {
        let mut state = lock(&self.shared.state);
        let applied = if self.follows { state.accept(batch) } else { state.apply(batch)? };
        drop(state);
        raise_latest(&self.shared.latest_event, applied.latest_event);
        Ok(applied)
    }
}

impl Backend for MemoryBackend {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let fault = self.next_fault(batch);
        let lost = || BatchError::Unknown(WriteError::Unavailable("the connection was lost".to_owned()));
        self.link.check().map_err(|cut| BatchError::RolledBack(WriteError::Unavailable(cut)))?;
        let damaged = lock(&self.shared.control).damaged.clone();
        if batch.entries.iter().any(|entry| matches!(entry, Entry::Change(change) if damaged.contains(&change.job))) {
            let error = WriteError::Corrupt("a page".to_owned());
            return Err(BatchError::Damaged { error, of_one: false });
        }
        match fault {
            Fault::None => self.write(batch),
            Fault::RolledBack(error) => Err(BatchError::RolledBack(error)),
            Fault::AnswerLost => self.write(batch).and(Err(lost())),
            Fault::BatchLost => Err(lost()),
            Fault::Deterministic(entry) => {
                let reason = "the entry cannot be written".to_owned();
                Err(BatchError::Deterministic { entry, reason })
            }
        }
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.link.check().map_err(WriteError::Unavailable)?;
        lock(&self.shared.control).failing.clone().map_or(Ok(()), Err)
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests;
