//! The contract's tests for the store in memory.

use super::Memory;
use crate::store::Parts;
use crate::suite::Harness;

impl Harness for Memory {
    fn parts(&self) -> Parts {
        self.open()
    }

    fn crashed(&self) -> Box<dyn Harness> {
        Box::new(self.fork())
    }
}

crate::suite!(super::Memory::new());
