//! Workers that an operator has drained.

use super::Store;
use crate::batch::Entry;
use crate::drains::{Drain, DrainChange, DrainedWorker};
use crate::error::{ReadError, WriteError};

impl Store {
    /// Marks a worker as drained; durable when the future resolves. Without effect if it is marked.
    ///
    /// # Errors
    /// The mark could not be made durable.
    pub async fn drain(&self, drain: Drain) -> Result<(), WriteError> {
        self.change_drains(DrainChange::Put(drain)).await
    }

    /// Removes the mark of a drained worker.
    ///
    /// # Errors
    /// The removal could not be made durable.
    pub async fn forget_drain(&self, drained: DrainedWorker) -> Result<(), WriteError> {
        self.change_drains(DrainChange::Remove(drained)).await
    }

    async fn change_drains(&self, change: DrainChange) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.call(Entry::Drain(change)).await.map(|_| ())
    }

    /// Every drained worker, by name.
    ///
    /// # Errors
    /// The marks could not be read.
    pub async fn drains(&self) -> Result<Vec<Drain>, ReadError> {
        self.reads.drains().await
    }
}
