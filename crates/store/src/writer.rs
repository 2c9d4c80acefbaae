//! The one thread that writes. It takes what is queued, hands it to the store as one batch, and tells the callers that
//! wait. While nothing can be written, recorded changes wait in order and every caller gets the error.

mod batch_size;
mod refusals;
mod suspects;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use model::JobId;
use tokio::sync::{oneshot, watch};

use crate::backend::Backend;
use crate::batch::{Answer, Entry, Epoch};
use crate::error::WriteError;
use crate::queue::{Queue, Work};

use thread::WriterThread;

/// The way to the thread. Dropped, it waits until all is committed.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Arc<Queue>,
    latest_event: watch::Receiver<u64>,
    durable: watch::Receiver<u64>,
    replaced: watch::Receiver<bool>,
    unwritable: watch::Receiver<BTreeMap<JobId, WriteError>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        backend: Box<dyn Backend>,
        epoch: Epoch,
        last_batch: u64,
        events: watch::Sender<u64>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let latest_event = events.subscribe();
        let stop = StopOnDrop(queue.clone());
        let mut thread = WriterThread::new(queue.clone(), backend, epoch, last_batch, events);
        let (durable, replaced) = (thread.durable.subscribe(), thread.replaced.subscribe());
        let unwritable = thread.unwritable.subscribe();
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let _stop = stop;
            thread.run();
        })?;
        Ok(Self { queue, latest_event, durable, replaced, unwritable, thread: Some(thread) })
    }

    pub(crate) fn record(&self, entry: Entry) -> u64 {
        self.queue.record(entry)
    }

    pub(crate) async fn call(&self, work: Work) -> Result<Answer, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.call([(work, reply)]);
        wait_for(answer).await
    }

    /// Calls in this order. An answer for each.
    pub(crate) async fn call_all(&self, work: impl Iterator<Item = Work>) -> Vec<Result<Answer, WriteError>> {
        let (calls, waiting): (Vec<_>, Vec<_>) = work
            .map(|work| {
                let (reply, answer) = oneshot::channel();
                ((work, reply), answer)
            })
            .unzip();
        self.queue.call(calls);
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(wait_for(answer).await);
        }
        answers
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn latest_event(&self) -> watch::Receiver<u64> {
        self.latest_event.clone()
    }

    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    pub(crate) fn replaced(&self) -> watch::Receiver<bool> {
        self.replaced.clone()
    }

    pub(crate) fn unwritable(&self) -> watch::Receiver<BTreeMap<JobId, WriteError>> {
        self.unwritable.clone()
    }

    /// Commits what is queued and ends the thread. Returns the number of changes that could not be committed.
    pub(crate) fn close(&mut self) -> u64 {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        self.queue.backlog()
    }
}

async fn wait_for(answer: oneshot::Receiver<Result<Answer, WriteError>>) -> Result<Answer, WriteError> {
    match answer.await {
        Ok(Ok(Answer::Refused(reason))) => Err(WriteError::Refused(reason)),
        Ok(answer) => answer,
        Err(_) => Err(WriteError::Closed),
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Stops the queue when the thread ends, also by a panic, so that no caller waits in vain.
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let lost = self.0.stop(&WriteError::Closed);
        if lost > 0 {
            tracing::error!(changes = lost, "the store stopped before all changes were committed");
        }
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests;
