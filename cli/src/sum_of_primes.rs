//! `divvy sum-of-primes A B`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::client::Client;
use coordinator::startup::JobWatch;
use divvy::embedded::EmbeddedGrid;
use indicatif::{ProgressBar, ProgressStyle};
use url::Url;

use crate::arguments::{Output, SumOfPrimes, worker_count};
use crate::failure::Failure;
use crate::print::print_line;

/// How often the progress bar looks at the job.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Asks the given grid, or one of its own.
pub(crate) async fn run(arguments: &SumOfPrimes) -> Result<(), Failure> {
    if arguments.a > arguments.b {
        let (a, b) = (arguments.a, arguments.b);
        return Err(Failure::Usage(format!("A must not be above B, but {a} is above {b}")));
    }
    service::init_logs("warn")?;
    let answer = match &arguments.coordinator {
        Some(url) => ask(url, arguments).await?,
        None => ask_own_grid(arguments).await?,
    };
    print_line(&match arguments.output {
        Output::Text => answer.sum.to_string(),
        Output::Json => serde_json::to_string(&answer).map_err(anyhow::Error::from)?,
    })
}

async fn ask(url: &Url, arguments: &SumOfPrimes) -> Result<api::SumOfPrimes, Failure> {
    let grid = Client::new(url)?;
    let spinner = ProgressBar::new_spinner().with_message(format!("waiting for {url}"));
    spinner.enable_steady_tick(PROGRESS_INTERVAL);
    let answer = grid.sum_of_primes(arguments.a, arguments.b).await;
    spinner.finish_and_clear();
    Ok(answer?)
}

async fn ask_own_grid(arguments: &SumOfPrimes) -> Result<api::SumOfPrimes, Failure> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut grid = EmbeddedGrid::start(any_port, worker_count(arguments.workers), None)?;
    let (own, jobs) = (Client::new(&grid.url()?)?, grid.jobs().clone());
    let answer = tokio::select! {
        answer = own.sum_of_primes(arguments.a, arguments.b) => answer,
        never = show_progress(&jobs) => never,
        error = grid.failed() => return Err(error.into()),
    };
    grid.stop().await?;
    Ok(answer?)
}

/// Draws a bar of the tasks that are done until it is dropped.
async fn show_progress(jobs: &JobWatch) -> ! {
    let style = "{bar:40} {percent:>3}% {pos}/{len} tasks, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    let bar = ProgressBar::no_length().with_style(style);
    let _clear = ClearOnDrop(&bar);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        for progress in jobs.progress() {
            bar.set_length(progress.total);
            bar.set_position(progress.succeeded);
        }
    }
}

struct ClearOnDrop<'a>(&'a ProgressBar);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
