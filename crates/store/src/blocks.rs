//! Cache of the blocks of payloads that were read last. Tasks are leased in order, from a few jobs at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use model::JobId;

use crate::backend::PayloadBlock;

/// Most blocks.
const BLOCKS: usize = 64;
/// Most bytes of cached payloads, except for a single larger block.
const BLOCKS_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
struct Kept {
    job: JobId,
    block: PayloadBlock,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    newest_first: Mutex<VecDeque<Arc<Kept>>>,
}

impl Blocks {
    /// Adds the payloads from task `next` on, as far as the block at hand has them. Returns the task after the last.
    pub(crate) fn take<T: Extend<Box<serde_json::value::RawValue>>>(
        &self,
        job: JobId,
        next: u64,
        beyond: u64,
        payloads: &mut T,
    ) -> Option<u64> {
        let kept = self.find(job, next)?;
        Some(take_from(&kept.block, next, beyond, payloads))
    }

    /// Forgets the blocks of a job that is gone; another job may come under its id.
    pub(crate) fn forget(&self, job: JobId) {
        self.lock().retain(|kept| kept.job != job);
    }

    pub(crate) fn keep(&self, job: JobId, block: PayloadBlock) {
        let bytes = block.payloads.iter().map(|payload| payload.get().len()).sum();
        let mut blocks = self.lock();
        blocks.push_front(Arc::new(Kept { job, block, bytes }));
        let mut held: usize = blocks.iter().map(|kept| kept.bytes).sum();
        while blocks.len() > BLOCKS || (held > BLOCKS_BYTES && blocks.len() > 1) {
            held -= blocks.pop_back().map_or(0, |kept| kept.bytes);
        }
    }

    fn find(&self, job: JobId, task: u64) -> Option<Arc<Kept>> {
        let mut blocks = self.lock();
        let place = blocks.iter().position(|kept| kept.job == job && kept.block.tasks.contains(&task))?;
        if place > 0 {
            let kept = blocks.remove(place)?;
            blocks.push_front(kept);
        }
        blocks.front().cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Kept>>> {
        self.newest_first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the payloads of a block that holds task `next`. Returns the task after the last.
pub(crate) fn take_from<T: Extend<Box<serde_json::value::RawValue>>>(
    block: &PayloadBlock,
    next: u64,
    beyond: u64,
    payloads: &mut T,
) -> u64 {
    let beyond = beyond.min(block.tasks.end);
    let of_block = (next - block.tasks.start) as usize..(beyond - block.tasks.start) as usize;
    payloads.extend(block.payloads[of_block].iter().cloned());
    beyond
}
