//! `divvy sum-of-primes A B`.

use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use coordinator::job_watch::JobWatch;
use divvy::embedded::{EmbeddedGrid, Ports, Shape};
use indicatif::ProgressBar;
use url::Url;

use crate::arguments::{Method, Output, RangeArguments, SumOfPrimes, client, worker_count};
use crate::bar;
use crate::failure::{Failure, INTERRUPTED};
use crate::print::print_line;
use crate::up::warn_about_variables;

/// Interval at which the progress bar reads the job.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The longest that a grid without a question takes to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the given grid, or one of its own.
pub(crate) async fn run(arguments: &SumOfPrimes) -> Result<(), Failure> {
    let RangeArguments { a, b, .. } = arguments.range;
    if a > b {
        return Err(Failure::Usage(format!("A must not be above B, but {a} is above {b}")));
    }
    service::init_logs("warn")?;
    warn_about_variables();
    let answer = match arguments.coordinator()? {
        Some(url) => ask(&url, arguments).await?,
        None => ask_own_grid(arguments).await?,
    };
    print_line(&match arguments.output {
        Output::Text => answer.sum.to_string(),
        Output::Json => serde_json::to_string(&answer).map_err(anyhow::Error::from)?,
    })
}

async fn ask(url: &Url, arguments: &SumOfPrimes) -> Result<api::SumOfPrimes, Failure> {
    let grid = client(url)?;
    let spinner = ProgressBar::new_spinner().with_message(format!("waiting for {url}"));
    spinner.enable_steady_tick(PROGRESS_INTERVAL);
    let answer = question(&grid, arguments).await;
    spinner.finish_and_clear();
    Ok(answer?)
}

async fn question(grid: &Client, arguments: &SumOfPrimes) -> Result<api::SumOfPrimes, api::client::Error> {
    let RangeArguments { a, b, method: Method { algorithm, verify } } = arguments.range;
    grid.sum_of_primes_by(a, b, algorithm, verify).await
}

async fn ask_own_grid(arguments: &SumOfPrimes) -> Result<api::SumOfPrimes, Failure> {
    let stop = service::shutdown_signal().context("catch signals")?;
    let mut grid = EmbeddedGrid::start(Ports::any(), Shape::of_workers(worker_count(arguments.workers)))?;
    let (url, jobs) = (grid.url(), grid.jobs().clone());
    let asking = async {
        let own = Client::new(&url?)?;
        question(&own, arguments).await.map_err(Failure::from)
    };
    let answer = tokio::select! {
        answer = asking => answer,
        never = show_progress(&jobs) => never,
        error = grid.failed() => Err(error.into()),
        () = stop => Err(Failure::Quiet(INTERRUPTED)),
    };
    // The grid stops also after a failure or a signal: its directory can only be deleted when nothing writes to it.
    match tokio::time::timeout(STOP_TIMEOUT, grid.stop()).await {
        Ok(Err(error)) if answer.is_ok() => Err(error.into()),
        _ => answer,
    }
}

/// Draws a bar of the work that is done until it is dropped.
async fn show_progress(jobs: &JobWatch) -> ! {
    let bar = ProgressBar::no_length().with_style(bar::plain());
    let _clear = ClearOnDrop(&bar);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        for (tasks, progress) in jobs.progress() {
            bar::show(&bar, &tasks, &progress);
        }
    }
}

struct ClearOnDrop<'a>(&'a ProgressBar);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
