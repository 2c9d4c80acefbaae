//! One request at a time: a coordinator that divides it over two workers of one slot, against one of these workers asked
//! directly. Both sieve.

use model::NumberRange;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, quantile, verdict};
use crate::grid::{Grid, target};
use crate::http::Connection;

/// The last number, requests of each kind in a round, and what the ratio should be at most.
const WORKS: [(&str, u64, usize, f64); 4] = [
    ("4e6", 4_000_000, 100, 1.15),
    ("5e7", 50_000_000, 50, 0.65),
    ("2e8", 200_000_000, 20, 0.56),
    ("7.5e8", 750_000_000, 8, 0.53),
];

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let columns = ["[10, b]", "coordinator ms", "one worker ms", "ratio of medians (min–max)", "goal", "met"];
    print_head("One request at a time, a coordinator with two workers ÷ one worker asked directly", &columns)?;
    let grid = Grid::start(&setting.binaries, &[])?;
    let (mut coordinator, mut worker) = (grid.connect()?, grid.connect_worker()?);
    for (name, last, requests, goal) in WORKS {
        let request = target(NumberRange::new(10, last)?);
        let (mut divided, mut alone) = (Samples::default(), Samples::default());
        for _ in 0..setting.rounds {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..requests {
                ours.push(seconds(&mut coordinator, &request)?);
                theirs.push(seconds(&mut worker, &request)?);
            }
            divided.add(quantile(&mut ours, 0.5));
            alone.add(quantile(&mut theirs, 0.5));
        }
        let ratio = divided.ratio(&alone);
        let [divided, alone] = [&divided, &alone].map(|samples| format!("{:.3}", samples.median() * 1e3));
        let verdict = verdict(ratio.median(), Some(goal));
        print_row(&[name, &divided, &alone, &ratio.spread(3), &verdict])?;
    }
    Ok(())
}

fn seconds(connection: &mut Connection, request: &str) -> anyhow::Result<f64> {
    let started_at = std::time::Instant::now();
    connection.get(request)?;
    Ok(started_at.elapsed().as_secs_f64())
}
