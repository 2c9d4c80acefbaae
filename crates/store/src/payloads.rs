//! Cuts the payloads of individual tasks into blocks.

use std::ops::Range;

use model::Payloads;

/// Most payloads in one block, and about the most bytes: what reading one task costs.
const BLOCK_TASKS: usize = 512;
const BLOCK_BYTES: usize = 256 * 1024;

/// The places of the payloads of each block, in order. A payload that is larger than a block is one by itself.
pub fn payload_blocks(payloads: &Payloads) -> impl Iterator<Item = Range<usize>> {
    let mut lengths = payloads.iter().map(str::len).peekable();
    let mut first = 0;
    std::iter::from_fn(move || {
        let mut bytes = lengths.next()?;
        let mut beyond = first + 1;
        while beyond < first + BLOCK_TASKS
            && let Some(length) = lengths.next_if(|length| bytes + length <= BLOCK_BYTES)
        {
            bytes += length;
            beyond += 1;
        }
        let block = first..beyond;
        first = beyond;
        Some(block)
    })
}
