//! The memory of one guest: linear memories and tables together.

use wasmtime::{Error, Result, format_err};

use super::shortage;

/// Largest size of a table's element in the host.
const ELEMENT_BYTES: usize = 16;
/// A component is made of several modules, each with its own.
const MOST_IN_COMPONENT: usize = 64;

/// Counts what a guest takes, and traps when it would take more: a guest that ignores a failed growth would go on with
/// a wrong address. A growth that fails stays counted: the engine tells of failures also where it has not asked before,
/// so a guest could take back by them what it has.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit: usize,
    taken: usize,
    peak: usize,
    exceeded: bool,
    most_parts: usize,
}

impl MemoryLimiter {
    pub(super) fn new(limit: u64, is_component: bool) -> Self {
        let most_parts = if is_component { MOST_IN_COMPONENT } else { 1 };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { limit, taken: 0, peak: 0, exceeded: false, most_parts }
    }

    pub(super) fn exceeded(&self) -> bool {
        self.exceeded
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak as u64
    }

    fn grow(&mut self, by: usize) -> Result<bool> {
        let taken = self.taken.saturating_add(by);
        if taken > self.limit {
            self.exceeded = true;
            return Err(format_err!("the limit of {} bytes of memory", self.limit));
        }
        self.taken = taken;
        self.peak = self.peak.max(taken);
        Ok(true)
    }
}

impl wasmtime::ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // The module's own bound is the module's own matter.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES))
    }

    /// A guest that is told of a failure would end with an error of its own, although the machine is at fault.
    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        if shortage(&error).is_some() { Err(error) } else { Ok(()) }
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        if shortage(&error).is_some() { Err(error) } else { Ok(()) }
    }

    fn instances(&self) -> usize {
        self.most_parts
    }

    fn tables(&self) -> usize {
        // A module may have several tables; their elements are counted.
        MOST_IN_COMPONENT
    }

    fn memories(&self) -> usize {
        self.most_parts.max(8)
    }
}
