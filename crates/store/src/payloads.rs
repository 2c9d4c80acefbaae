//! How the payloads of individual tasks are cut into blocks.

use std::ops::Range;

use serde_json::value::RawValue;

/// Most payloads in one block, and about the most bytes: what reading one task costs.
const BLOCK_TASKS: usize = 512;
const BLOCK_BYTES: usize = 256 * 1024;

/// The places of the payloads of each block, in order. A payload that is larger than a block is one by itself.
pub fn payload_blocks(payloads: &[Box<RawValue>]) -> impl Iterator<Item = Range<usize>> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let rest = payloads.get(first..).filter(|rest| !rest.is_empty())?;
        let mut bytes = 0;
        let fitting = rest.iter().take(BLOCK_TASKS).take_while(|payload| {
            bytes += payload.get().len();
            bytes <= BLOCK_BYTES
        });
        let block = first..first + fitting.count().max(1);
        first = block.end;
        Some(block)
    })
}
