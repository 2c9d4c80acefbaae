//! A whole grid in one process, for the `divvy` command and for benchmarks.

pub mod embedded;
