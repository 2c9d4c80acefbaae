//! Sums and numbers of primes from published tables.

const TABLE: &str = include_str!("../../../../crates/primes/tests/data/prime-sums.csv");

/// The sum of all primes up to 10^`exponent`, 1 to 12.
pub(crate) fn published_sum(exponent: u32) -> u128 {
    let limit = 10_u64.pow(exponent).to_string();
    let row = TABLE.lines().find_map(|row| row.strip_prefix(&limit)?.strip_prefix(','));
    row.expect("in the table").parse().expect("a sum")
}

/// The number of primes up to 10^`exponent`, 1 to 10: OEIS A006880.
pub(crate) fn published_count(exponent: u32) -> u64 {
    const COUNTS: [u64; 10] = [4, 25, 168, 1229, 9592, 78498, 664_579, 5_761_455, 50_847_534, 455_052_511];
    COUNTS[exponent as usize - 1]
}

/// Ranges from behind one power of ten to another, up to 10^`largest`, with their sums.
pub(crate) fn round_ranges(largest: u32) -> Vec<(u64, u64, u128)> {
    let upper = (2..=largest).map(|end| (1..end).map(move |start| (start, end)));
    let between =
        |(start, end): (u32, u32)| (10_u64.pow(start) + 1, 10_u64.pow(end), published_sum(end) - published_sum(start));
    upper.flatten().map(between).collect()
}
