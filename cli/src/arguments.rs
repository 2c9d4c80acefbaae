//! The command line.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

/// Divides one big computation over a pool of workers and hands back one exact answer.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = false,
    after_help = "Exit codes: 0 done, 1 the job failed, 2 usage, 3 the grid is unreachable."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    SumOfPrimes(SumOfPrimes),
    Up(Up),
}

/// Prints the sum of all primes from A to B, both included.
///
/// Without --coordinator it starts a grid of its own for this one answer: a coordinator and a worker per core, on
/// loopback ports.
#[derive(Debug, Args)]
pub(crate) struct SumOfPrimes {
    /// First number, 0 to 18446744073709551615 (2^64-1)
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) a: u64,
    /// Last number, A to 18446744073709551615 (2^64-1)
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) b: u64,
    /// Ask the grid at this URL instead of starting one
    #[arg(long, value_name = "URL", env = "DIVVY_URL", value_parser = http_url)]
    pub(crate) coordinator: Option<Url>,
    /// Workers of the own grid [default: one per core]
    #[arg(long, value_name = "N", conflicts_with = "coordinator")]
    pub(crate) workers: Option<NonZeroU32>,
    /// What to print: the sum alone, or the whole answer as JSON
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Starts a whole grid in this process and serves until Ctrl-C.
///
/// Prints the public URL on stdout. The variables DIVVY_* of the two services apply, save for addresses, names and
/// slots.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Workers to start, one slot each [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroU32>,
    /// Public port; 0 picks a free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Public address; 0.0.0.0 lets other machines ask
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Where jobs and results are kept, to go on with them the next time [default: nowhere, they end with the grid]
    #[arg(long, value_name = "DIRECTORY", env = "DIVVY_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// The asked number of workers, else one per core that the process may use.
pub(crate) fn worker_count(asked: Option<NonZeroU32>) -> u32 {
    let cores = || available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    asked.map_or_else(cores, NonZeroU32::get)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give an integer from 0 to 18446744073709551615 (2^64-1)".to_owned())
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: give a URL such as http://127.0.0.1:8080"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        _ => Err("give a URL such as http://127.0.0.1:8080".to_owned()),
    }
}
