//! The time of our sum against that of primesieve's count, one thread each.
//!
//! `cargo bench -p primes --bench kernel` prints a table of ratios: medians of interleaved rounds (`ROUNDS`, 9 if not
//! set). primesieve is looked for in `PRIMESIEVE`, then on the `PATH`. Its time is that of the whole process less
//! that of one with nothing to do, which a chunk of its own needs: the time it prints is rounded to milliseconds.

use std::env;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use primes::{Level, Sieve};

static NEVER: AtomicBool = AtomicBool::new(false);

struct Work {
    name: &'static str,
    first: u64,
    len: u64,
    goal: f64,
}

const fn work(name: &'static str, first: u64, len: u64, goal: f64) -> Work {
    Work { name, first, len, goal }
}

const WORKS: [Work; 6] = [
    work("[1, 1e9]", 1, 999_999_999, 0.65),
    work("[1e12, 1e12 + 1e9]", 1_000_000_000_000, 1_000_000_000, 0.75),
    work("[1e15, 1e15 + 1e9]", 1_000_000_000_000_000, 1_000_000_000, 1.0),
    work("2.5e6 at 1e12, warm", 1_000_000_000_000, 2_499_999, 0.5),
    work("2.5e6 at 1e15, warm", 1_000_000_000_000_000, 2_499_999, 0.35),
    work("2.5e6 at 1e18, warm", 1_000_000_000_000_000_000, 2_499_999, 0.08),
];

fn main() {
    let is_benchmark = env::args().any(|argument| argument == "--bench");
    if !is_benchmark {
        return println!("nothing is measured outside cargo bench");
    }
    let rounds = env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
    let primesieve = Primesieve::find();
    println!("CPU: {}, level {:?}, {rounds} rounds", cpu(), Level::best());
    match &primesieve {
        Some(primesieve) => println!("Reference: {}", primesieve.version),
        None => println!("Reference: none; primesieve is neither in PRIMESIEVE nor on the PATH"),
    }
    println!("{:<22} {:>12} {:>12} {:>7} {:>6}", "sum", "ours ms", "reference ms", "ratio", "goal");
    for work in &WORKS {
        compare(work, rounds, primesieve.as_ref());
    }
    for level in Level::ALL.into_iter().filter(|level| *level <= Level::best()) {
        let ratio = sum_to_count(level, rounds);
        println!("sum to count, [1, 1e9], {level:?}: {ratio:.3}");
    }
}

fn compare(work: &Work, rounds: usize, primesieve: Option<&Primesieve>) {
    let range = work.first..=work.first + work.len;
    let mut sieve = Sieve::new();
    sum(&mut sieve, &range);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(time(|| sum(&mut sieve, &range)));
        theirs.extend(primesieve.map(|primesieve| primesieve.time(work)));
    }
    let ours = median(&mut ours);
    print!("{:<22} {ours:>12.3}", work.name);
    if primesieve.is_some() {
        let theirs = median(&mut theirs);
        print!(" {theirs:>12.3} {:>7.3} {:>6}", ours / theirs, work.goal);
    }
    println!();
}

fn sum_to_count(level: Level, rounds: usize) -> f64 {
    let mut sieve = Sieve::with_level(level);
    let range = 1..=1_000_000_000;
    sum(&mut sieve, &range);
    let (mut sums, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        sums.push(time(|| sum(&mut sieve, &range)));
        counts.push(time(|| {
            std::hint::black_box(sieve.count(range.clone(), &NEVER)).expect("nothing stops it");
        }));
    }
    median(&mut sums) / median(&mut counts)
}

fn sum(sieve: &mut Sieve, range: &RangeInclusive<u64>) {
    std::hint::black_box(sieve.sum(range.clone(), &NEVER)).expect("nothing stops it");
}

/// Milliseconds for one call, from as many as take some milliseconds.
fn time(mut work: impl FnMut()) -> f64 {
    const ENOUGH: Duration = Duration::from_millis(10);
    let started_at = Instant::now();
    let mut calls = 0.0;
    while calls == 0.0 || started_at.elapsed() < ENOUGH {
        work();
        calls += 1.0;
    }
    started_at.elapsed().as_secs_f64() * 1e3 / calls
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct Primesieve {
    path: String,
    version: String,
}

impl Primesieve {
    fn find() -> Option<Self> {
        let path = env::var("PRIMESIEVE").unwrap_or_else(|_| "primesieve".to_owned());
        let output = Command::new(&path).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next()?.to_owned();
        Some(Self { path, version })
    }

    /// Milliseconds for the count, less those of starting the program.
    fn time(&self, work: &Work) -> f64 {
        const STARTS: usize = 5;
        let mut starts: Vec<f64> = (0..STARTS).map(|_| self.process(0, 0)).collect();
        self.process(work.first, work.len) - median(&mut starts)
    }

    fn process(&self, first: u64, len: u64) -> f64 {
        let distance = format!("-d{len}");
        let started_at = Instant::now();
        let status = Command::new(&self.path)
            .args(["-c", "-t1", "-q", &first.to_string(), &distance])
            .stdout(std::process::Stdio::null())
            .status();
        let milliseconds = started_at.elapsed().as_secs_f64() * 1e3;
        assert!(status.is_ok_and(|status| status.success()), "primesieve runs");
        milliseconds
    }
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}
