//! Exact sums and counts of the primes in a range of `u64`.
