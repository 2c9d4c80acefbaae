//! Sums of primes from published tables.

const TABLE: &str = include_str!("../../../../primes/tests/data/prime-sums.csv");

/// The sum of all primes up to 10^`exponent`, 1 to 12.
pub(crate) fn published_sum(exponent: u32) -> u128 {
    let limit = 10_u64.pow(exponent).to_string();
    let row = TABLE.lines().find_map(|row| row.strip_prefix(&limit)?.strip_prefix(','));
    row.expect("in the table").parse().expect("a sum")
}

/// Ranges from behind one power of ten to another, up to 10^`largest`, with their sums.
pub(crate) fn round_ranges(largest: u32) -> Vec<(u64, u64, u128)> {
    let upper = (2..=largest).map(|end| (1..end).map(move |start| (start, end)));
    let between =
        |(start, end): (u32, u32)| (10_u64.pow(start) + 1, 10_u64.pow(end), published_sum(end) - published_sum(start));
    upper.flatten().map(between).collect()
}
