//! A map whose set bits can be counted and summed up to any place while multiples are crossed off.
//!
//! Each block of 64 bytes, one vector, has a counter. A counter holds a count and a sum at once, so that adding up
//! counters, which a query does for the blocks before it, and taking a number out of one are single additions.

use std::marker::PhantomData;

use super::tail::Tail;
use super::tiny::{self, bits_up_to_number};
use super::weight::Weight;
use crate::wheel::{CARRY, KEEP, RESIDUES};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;

/// The longest map: the counter of all of it does not overflow.
pub(crate) const LONGEST: usize = 256 << 10;

/// The sum of a counter is below this bit: 2^20.5 numbers, less than 2^22 on average, beyond the start of the map.
const SUM_BITS: u32 = 43;

/// A count and, above `SUM_BITS`, the sum of how far the numbers are beyond the start of the map.
pub(crate) type Packed = u64;

pub(crate) const fn packed(count: u64, sum: u64) -> Packed {
    count << SUM_BITS | sum
}

/// The sum of `f` over the numbers of a counter, for a map that starts at number `low`, below 2^43.
#[inline(always)]
pub(crate) fn unpack<W: Weight>(packed: Packed, low: u64) -> u64 {
    let count = packed >> SUM_BITS;
    if W::IS_SUM { count * low + packed % (1 << SUM_BITS) } else { count }
}

#[derive(Debug)]
pub(crate) struct Counted<W> {
    map: Vec<u8>,
    blocks: Vec<Packed>,
    total: Packed,
    weight: PhantomData<W>,
}

/// The sums of a query, from which the next query continues if it is not before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    block: usize,
    before: Packed,
}

impl<W: Weight> Counted<W> {
    /// A map of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        assert!(len.is_multiple_of(BLOCK) && len <= LONGEST, "a map is some blocks long");
        Self { map: vec![0; len], blocks: vec![0; len / BLOCK], total: 0, weight: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Starts with the numbers from `30 first_byte` on that the first seven primes do not divide.
    #[inline(always)]
    pub(crate) fn fill<T: Tail>(&mut self, first_byte: u64) {
        tiny::fill(&mut self.map, first_byte);
        self.total = 0;
        let (blocks, _) = self.map.as_chunks::<BLOCK>();
        for (index, (block, counter)) in blocks.iter().zip(&mut self.blocks).enumerate() {
            *counter = T::tail::<W>(block, index, BLOCK - 1, 0xff);
            self.total += *counter;
        }
    }

    /// The total of the numbers that are left.
    pub(crate) fn total(&self) -> Packed {
        self.total
    }

    /// The total of the numbers left up to `offset` beyond the start of the map. `offset` lies in the map and not before the last
    /// query of `cursor`.
    #[inline(always)]
    pub(crate) fn up_to<T: Tail>(&self, offset: u64, cursor: &mut Cursor) -> Packed {
        let byte = (offset / 30) as usize;
        let block = byte / BLOCK;
        let passed = &self.blocks[cursor.block..block];
        cursor.before += passed.iter().sum::<Packed>();
        cursor.block = block;
        let bytes = self.map[block * BLOCK..].first_chunk().expect("the map is some blocks long");
        cursor.before + T::tail::<W>(bytes, block, byte % BLOCK, bits_up_to_number(offset % 30))
    }

    /// Takes the multiples of `strider` out.
    #[inline(always)]
    pub(crate) fn strike(&mut self, strider: &mut Strider) {
        match strider.class {
            0 => self.strike_class::<0>(strider),
            1 => self.strike_class::<1>(strider),
            2 => self.strike_class::<2>(strider),
            3 => self.strike_class::<3>(strider),
            4 => self.strike_class::<4>(strider),
            5 => self.strike_class::<5>(strider),
            6 => self.strike_class::<6>(strider),
            _ => self.strike_class::<7>(strider),
        }
    }

    #[inline(always)]
    fn strike_class<const CLASS: usize>(&mut self, strider: &mut Strider) {
        let len = self.map.len() as i64;
        let prime = i64::from(strider.prime);
        let quotient = prime / 30;
        let mut position = strider.position;
        if position < 0 {
            self.strike_partly::<CLASS>(prime, position);
            if position + prime > len {
                strider.position -= len;
                return;
            }
            position += prime;
        }
        let offsets: [usize; 8] =
            std::array::from_fn(|s| (quotient * i64::from(RESIDUES[s]) + i64::from(CARRY[CLASS][s])) as usize);
        let values: [Packed; 8] = std::array::from_fn(|s| packed(1, Self::sum(prime * i64::from(RESIDUES[s]))));
        let mut removed = 0;
        while position + prime <= len {
            let start = position as usize;
            let beyond = Self::sum(30 * position);
            for s in 0..8 {
                removed += self.clear(start + offsets[s], CLASS, s, values[s] + beyond);
            }
            position += prime;
        }
        self.total -= removed;
        if position < len {
            self.strike_partly::<CLASS>(prime, position);
        }
        strider.position = position - len;
    }

    /// Takes those multiples of a period out that are in the map.
    #[inline(always)]
    fn strike_partly<const CLASS: usize>(&mut self, prime: i64, position: i64) {
        for s in 0..8 {
            let residue = i64::from(RESIDUES[s]);
            let byte = position + prime / 30 * residue + i64::from(CARRY[CLASS][s]);
            if (0..self.map.len() as i64).contains(&byte) {
                let value = packed(1, Self::sum(30 * position + prime * residue));
                self.total -= self.clear(byte as usize, CLASS, s, value);
            }
        }
    }

    /// Clears the bit of a multiple, and takes `value` from its block if it was set. Returns what was taken.
    #[inline(always)]
    #[expect(unsafe_code, reason = "bounds checks cost a tenth of the time of a prefix sum")]
    fn clear(&mut self, byte: usize, class: usize, s: usize, value: Packed) -> Packed {
        debug_assert!(byte < self.map.len());
        let keep = KEEP[class][s];
        // SAFETY: the callers have found the byte inside the map, which has a counter for every block of it.
        let (cell, counter) =
            unsafe { (self.map.get_unchecked_mut(byte), self.blocks.get_unchecked_mut(byte / BLOCK)) };
        let was_set = *cell >> keep.trailing_ones() & 1;
        *cell &= keep;
        let taken = value & 0u64.wrapping_sub(was_set.into());
        *counter -= taken;
        taken
    }

    fn sum(beyond: i64) -> u64 {
        if W::IS_SUM { beyond as u64 } else { 0 }
    }
}

/// A sieving prime, and where the first of its periods with multiples in the next map starts, in bytes from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strider {
    position: i64,
    prime: u32,
    class: u8,
}

impl Strider {
    /// A prime above 5 for a map that starts at byte `first_byte` of the numbers.
    pub(crate) fn new(prime: u32, first_byte: u64) -> Self {
        let class = crate::wheel::class_of(u64::from(prime)).expect("a sieving prime is coprime to 30");
        let p = u64::from(prime);
        let period = first_byte / p * p;
        Self { position: period as i64 - first_byte as i64, prime, class: class as u8 }
    }
}
