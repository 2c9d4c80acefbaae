//! The kernel on one thread: the sum against the count of primesieve, and against the kernel's own count.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use model::NumberRange;
use primes::{Level, Sieve, Stopped};

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::machine;

static NEVER: AtomicBool = AtomicBool::new(false);

const BILLION: u64 = 1_000_000_000;
const CHUNK: u64 = 2_500_000;

/// Name, start, end and goal of each sum; the goal is the largest ratio to primesieve's count. A lone chunk should not become
/// slower: 0.223, 0.179 and 0.044 on a Zen 4, and 5 % for the spread of its runs.
const WORKS: [(&str, u64, u64, f64); 10] = [
    ("[1, 1e9]", 1, BILLION, 0.6),
    ("[1e12, 1e12 + 1e9]", 1_000 * BILLION, 1_001 * BILLION, 0.7),
    ("[1e15, 1e15 + 1e9]", 1_000_000 * BILLION, 1_000_001 * BILLION, 0.9),
    ("[1e16, 1e16 + 1e9]", 10_000_000 * BILLION, 10_000_001 * BILLION, 1.0),
    ("[1e17, 1e17 + 1e9]", 100_000_000 * BILLION, 100_000_001 * BILLION, 1.0),
    ("[1e18, 1e18 + 1e9]", BILLION * BILLION, (BILLION + 1) * BILLION, 1.0),
    ("the last 1e9 below 2^64", u64::MAX - BILLION, u64::MAX - 1, 1.0),
    ("2.5e6 at 1e12, warm", 1_000 * BILLION, 1_000 * BILLION + CHUNK, 0.234),
    ("2.5e6 at 1e15, warm", 1_000_000 * BILLION, 1_000_000 * BILLION + CHUNK, 0.188),
    ("2.5e6 at 1e18, warm", BILLION * BILLION, BILLION * BILLION + CHUNK, 0.046),
];

/// The rows of long ranges are measured without AVX-512 too, and may take so much more.
const WITHOUT_AVX512: f64 = 1.1;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    print_head("Kernel, one thread", &["sum", "ms", "against", "ms", "ratio (min–max)", "goal", "met"])?;
    for (name, a, b, goal) in WORKS {
        let range = NumberRange::new(a, b)?;
        against_primesieve(setting, name, range, goal, Level::best())?;
        if Level::best() > Level::Avx2 && b - a > CHUNK {
            against_primesieve(setting, &format!("{name}, AVX2"), range, goal * WITHOUT_AVX512, Level::Avx2)?;
        }
    }
    for level in Level::ALL.into_iter().rev().filter(|level| *level <= Level::best()) {
        against_count(setting, level)?;
    }
    Ok(())
}

fn against_primesieve(
    setting: &Setting,
    name: &str,
    range: NumberRange,
    goal: f64,
    level: Level,
) -> anyhow::Result<()> {
    let mut sieve = Sieve::with_level(level);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..setting.rounds {
        ours.add(seconds(|| sieve.sum(range.into(), &NEVER).map(black_box).map(drop))?);
        if let Some(primesieve) = &setting.primesieve {
            theirs.add(primesieve.seconds(range, 1)?);
        }
    }
    let ms = |samples: &Samples| format!("{:.3}", samples.median() * 1e3);
    if setting.primesieve.is_none() {
        return Ok(print_row(&[name, &ms(&ours), "–", "–", "–", "–", "–"])?);
    }
    let ratio = ours.ratio(&theirs);
    let verdict = verdict(ratio.median(), Some(goal));
    Ok(print_row(&[name, &ms(&ours), "primesieve's count", &ms(&theirs), &ratio.spread(3), &verdict])?)
}

fn against_count(setting: &Setting, level: Level) -> anyhow::Result<()> {
    let goal = match level {
        Level::Avx512 => Some(1.02),
        Level::Avx2 => Some(1.03),
        Level::Portable => None,
    };
    let mut sieve = Sieve::with_level(level);
    let (mut sums, mut counts) = (Samples::default(), Samples::default());
    for _ in 0..setting.rounds {
        sums.add(seconds(|| sieve.sum(1..=BILLION, &NEVER).map(black_box).map(drop))?);
        counts.add(seconds(|| sieve.count(1..=BILLION, &NEVER).map(black_box).map(drop))?);
    }
    let (name, ratio) = (format!("[1, 1e9], {}", machine::name(level)), sums.ratio(&counts));
    let [sum, count] = [&sums, &counts].map(|samples| format!("{:.3}", samples.median() * 1e3));
    let verdict = verdict(ratio.median(), goal);
    Ok(print_row(&[&name, &sum, "its count", &count, &ratio.spread(3), &verdict])?)
}

/// Seconds for one call, from as many as take some milliseconds.
fn seconds(mut work: impl FnMut() -> Result<(), Stopped>) -> Result<f64, Stopped> {
    const ENOUGH: Duration = Duration::from_millis(10);
    let started_at = Instant::now();
    let mut calls = 0.0;
    while calls == 0.0 || started_at.elapsed() < ENOUGH {
        work()?;
        calls += 1.0;
    }
    Ok(started_at.elapsed().as_secs_f64() / calls)
}
