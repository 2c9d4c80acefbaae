//! The ledgers that a writer keeps: read once, then kept while their jobs are not over.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use model::JobId;

use super::JobLedger;

/// Ledgers by job, each with a store's own key, and the ledgers that the present batch has touched.
#[derive(Debug)]
pub struct Ledgers<K> {
    known: HashMap<JobId, (K, JobLedger)>,
    touched: HashSet<JobId>,
}

impl<K> Default for Ledgers<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), touched: HashSet::new() }
    }
}

impl<K> Ledgers<K> {
    /// The ledger of a job to be changed, read if it is not in memory. `None` if there is no such job.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub fn find<E>(
        &mut self,
        job: JobId,
        read: impl FnOnce() -> Result<Option<(K, JobLedger)>, E>,
    ) -> Result<Option<&mut (K, JobLedger)>, E> {
        let ledger = match self.known.entry(job) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match read()? {
                Some(ledger) => place.insert(ledger),
                None => return Ok(None),
            },
        };
        self.touched.insert(job);
        Ok(Some(ledger))
    }

    /// A ledger in memory.
    #[must_use]
    pub fn get(&self, job: JobId) -> Option<&(K, JobLedger)> {
        self.known.get(&job)
    }

    /// Visits the ledgers that the batch has touched.
    ///
    /// # Errors
    /// The first error of a visit.
    pub fn visit_touched<E>(&mut self, mut visit: impl FnMut(&K, &mut JobLedger) -> Result<(), E>) -> Result<(), E> {
        for job in &self.touched {
            if let Some((key, ledger)) = self.known.get_mut(job) {
                visit(key, ledger)?;
            }
        }
        Ok(())
    }

    /// Notes that the batch is committed.
    pub fn keep(&mut self) {
        for job in self.touched.drain() {
            if self.known.get(&job).is_some_and(|(_, ledger)| ledger.state.is_over()) {
                self.known.remove(&job);
            }
        }
    }

    /// Notes that the row of a job has changed beside its ledger, which is read again when needed.
    pub fn discard(&mut self, job: JobId) {
        self.touched.remove(&job);
        self.known.remove(&job);
    }

    /// Notes that the batch was rolled back, or has changed rows beside the ledgers: touched ledgers are read again when needed.
    pub fn forget(&mut self) {
        for job in self.touched.drain() {
            self.known.remove(&job);
        }
    }
}
