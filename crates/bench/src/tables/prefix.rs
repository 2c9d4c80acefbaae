//! Sums and counts of all primes up to x on two threads, against primesum and primecount on as many.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use primes::Quantity;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::reference::Reference;

static NEVER: AtomicBool = AtomicBool::new(false);

const THREADS: u32 = 2;

/// The exponent of ten up to which is summed, and what the ratio to primesum should be at most.
const SUMS: [(u32, f64); 4] = [(12, 1.0), (14, 0.9), (16, 0.9), (18, 0.9)];

/// The same for counts and primecount.
const COUNTS: [(u32, f64); 4] = [(12, 2.0), (14, 2.0), (16, 2.0), (18, 2.0)];

/// From here on each run takes a minute or more, so that one round says enough.
const LONG: u32 = 18;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let title = format!("Prefix sums and counts, {THREADS} threads");
    print_head(&title, &["all primes", "ms", "against", "ms", "ratio (min–max)", "goal", "met"])?;
    for (exponent, goal) in SUMS {
        measure(setting, Quantity::Sum, exponent, ("primesum", setting.primesum.as_ref()), goal)?;
    }
    for (exponent, goal) in COUNTS {
        measure(setting, Quantity::Count, exponent, ("primecount", setting.primecount.as_ref()), goal)?;
    }
    Ok(())
}

fn measure(
    setting: &Setting,
    quantity: Quantity,
    exponent: u32,
    (program, reference): (&str, Option<&Reference>),
    goal: f64,
) -> anyhow::Result<()> {
    let x = 10u64.pow(exponent);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let rounds = if exponent >= LONG { 1 } else { setting.rounds };
    for _ in 0..rounds {
        let started_at = Instant::now();
        black_box(primes::up_to(quantity, x, THREADS as usize, &NEVER)?);
        ours.add(started_at.elapsed().as_secs_f64());
        if let Some(reference) = reference {
            theirs.add(reference.seconds_up_to(x, THREADS)?);
        }
    }
    let name = format!("{}, up to 1e{exponent}", if quantity == Quantity::Sum { "sum" } else { "count" });
    let ms = |samples: &Samples| format!("{:.1}", samples.median() * 1e3);
    if reference.is_none() {
        return Ok(print_row(&[&name, &ms(&ours), "–", "–", "–", "–", "–"])?);
    }
    let ratio = ours.ratio(&theirs);
    let verdict = verdict(ratio.median(), Some(goal));
    Ok(print_row(&[&name, &ms(&ours), program, &ms(&theirs), &ratio.spread(3), &verdict])?)
}
