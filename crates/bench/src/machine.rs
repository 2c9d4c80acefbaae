//! The machine of the figures.

use std::fs;
use std::thread;

use primes::Level;

/// The processor, its cores and the instructions that the kernel uses there.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let value =
            |line: &str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, v)| v.trim().to_owned());
        info.lines().find_map(value).unwrap_or_else(|| "unknown".to_owned())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (model, family, level) = (field("model name"), field("cpu family"), name(Level::best()));
    format!("{model} (family {family}), {cores} cores, {level}")
}

/// A level as people write it.
pub(crate) fn name(level: Level) -> &'static str {
    match level {
        Level::Portable => "portable",
        Level::Avx2 => "AVX2",
        Level::Avx512 => "AVX-512",
    }
}
