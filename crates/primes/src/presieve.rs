//! The first primes are not crossed off but copied: the pattern that a group of primes leaves in the map repeats after
//! their product of bytes, so a map starts as the AND of a few such tables.
//!
//! Source of the idea: primesieve (K. Walisch), `PreSieve.hpp`.

use std::sync::LazyLock;

use crate::level::Level;
use crate::wheel::{CARRY, KEEP, RESIDUES, class_of};

/// The largest prime whose multiples the tables remove.
pub(crate) const LARGEST: u32 = 251;

const COUNT: usize = 24;

/// Large primes are paired with small ones, so that the tables stay in the second-level cache together.
const GROUPS: [&[u32]; COUNT] = [
    &[7, 23, 37],
    &[11, 19, 31],
    &[13, 17, 29],
    &[41, 163],
    &[43, 157],
    &[47, 151],
    &[53, 149],
    &[59, 139],
    &[61, 137],
    &[67, 131],
    &[71, 127],
    &[73, 113],
    &[79, 109],
    &[83, 107],
    &[89, 103],
    &[97, 101],
    &[167, 251],
    &[173, 241],
    &[179, 239],
    &[181, 233],
    &[191, 229],
    &[193, 227],
    &[197, 223],
    &[199, 211],
];

/// Map bytes that are filled at a time; each table is longer than its period by so much, and no period is shorter.
const PIECE: usize = 4096;

struct Table {
    period: usize,
    bytes: Vec<u8>,
}

static TABLES: LazyLock<[Table; COUNT]> = LazyLock::new(|| GROUPS.map(Table::new));

impl Table {
    fn new(primes: &[u32]) -> Self {
        let period = primes.iter().product::<u32>() as usize;
        let mut bytes = vec![0xff; period];
        for &prime in primes {
            let class = class_of(u64::from(prime)).expect("a pre-sieved prime is coprime to 30");
            let (quotient, prime) = (prime as usize / 30, prime as usize);
            for start in (0..period).step_by(prime) {
                for s in 0..8 {
                    let offset = quotient * usize::from(RESIDUES[s]) + usize::from(CARRY[class][s]);
                    bytes[start + offset] &= KEEP[class][s];
                }
            }
        }
        bytes.extend_from_within(..PIECE);
        Self { period, bytes }
    }

    /// The place in the table of byte `byte` of the numbers.
    fn phase(&self, byte: u64) -> usize {
        (byte % self.period as u64) as usize
    }

    /// The place of the byte that is a piece further.
    fn advance(&self, phase: usize) -> usize {
        let next = phase + PIECE;
        if next < self.period { next } else { next - self.period }
    }
}

/// Fills `map`, whose first byte is byte `first_byte` of the numbers, with the pattern of the primes 7 to [`LARGEST`].
///
/// These primes themselves stay set, and 1 does not. The CPU has the instructions of `level`.
pub(crate) fn fill(map: &mut [u8], first_byte: u64, level: Level) {
    let tables = &*TABLES;
    let mut phases = tables.each_ref().map(|table| table.phase(first_byte));
    for piece in map.chunks_mut(PIECE) {
        let patterns = std::array::from_fn(|t| &tables[t].bytes[phases[t]..][..piece.len()]);
        phases = std::array::from_fn(|t| tables[t].advance(phases[t]));
        match level {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call into AVX-512 code")]
            // SAFETY: the caller has found AVX-512 on this CPU.
            Level::Avx512 => unsafe { combine_avx512(piece, &patterns) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call into AVX2 code")]
            // SAFETY: the caller has found AVX2 on this CPU.
            Level::Avx2 => unsafe { combine_avx2(piece, &patterns) },
            _ => combine(piece, &patterns),
        }
    }
    restore(map, first_byte);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn combine_avx512(piece: &mut [u8], patterns: &[&[u8]; COUNT]) {
    combine(piece, patterns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn combine_avx2(piece: &mut [u8], patterns: &[&[u8]; COUNT]) {
    combine(piece, patterns);
}

/// Sets `piece` to the AND of the patterns, all of its length.
#[inline(always)]
fn combine(piece: &mut [u8], patterns: &[&[u8]; COUNT]) {
    piece.fill(0xff);
    let (eights, _) = patterns.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in eights {
        let first = a.iter().zip(*b).zip(c.iter().zip(*d));
        let second = e.iter().zip(*f).zip(g.iter().zip(*h));
        for (byte, (((a, b), (c, d)), ((e, f), (g, h)))) in piece.iter_mut().zip(first.zip(second)) {
            *byte &= (a & b & c & d) & (e & f & g & h);
        }
    }
}

fn restore(map: &mut [u8], first_byte: u64) {
    const HEAD: [u8; 9] = head();
    if first_byte < HEAD.len() as u64 {
        for (byte, &primes) in map.iter_mut().zip(&HEAD[first_byte as usize..]) {
            *byte = primes;
        }
    }
}

/// The finished map of the numbers below 270, by trial division.
const fn head() -> [u8; 9] {
    let mut head = [0; 9];
    let mut n = 7;
    while n < 270 {
        let mut divisor = 7;
        while n % divisor != 0 {
            divisor += 2;
        }
        if divisor == n
            && let Some(bit) = class_of(n)
        {
            head[n as usize / 30] |= 1 << bit;
        }
        n += 2;
    }
    head
}
