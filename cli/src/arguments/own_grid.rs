//! Arguments of the commands that start a grid in their own process: `divvy up` and `divvy sum-of-primes`.

use std::env;
use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, ValueEnum, ValueHint};
use coordinator::config::StoreUrl;
use model::Algorithm;
use url::Url;

use super::values::{count, http_url, integer, ip_address, names};
use super::{RangeArguments, variable};
use crate::failure::Failure;

/// Prints the sum of all primes from A to B, both included.
///
/// Without --coordinator it starts a grid of its own for this one answer: a coordinator and a worker per core, on
/// loopback ports.
#[derive(Debug, Args)]
pub(crate) struct SumOfPrimes {
    #[command(flatten)]
    pub(crate) range: RangeArguments,
    /// Ask the grid at this URL instead of starting one [env: DIVVY_URL, unless --workers is given]
    #[arg(long, value_name = "URL", value_parser = http_url, value_hint = ValueHint::Url)]
    coordinator: Option<Url>,
    /// Workers of the own grid, 1 to 256 [default: one per core]
    #[arg(long, value_name = "N", conflicts_with = "coordinator", value_parser = worker_number(), allow_negative_numbers = true)]
    pub(crate) workers: Option<NonZeroU32>,
    /// Print the sum alone, or the whole answer as JSON
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// The choice of the algorithm for primes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Method {
    /// A sieve of the range, or two sums of all primes up to its ends in about x^(2/3) steps; auto takes what is expected
    /// to take less
    #[arg(long, value_name = "ALGORITHM", value_parser = names::<Algorithm>(Algorithm::ALL.map(Algorithm::as_str)), default_value = "auto")]
    pub(crate) algorithm: Algorithm,
    /// Compute it by the other algorithm, too, and fail if the results differ
    #[arg(long)]
    pub(crate) verify: bool,
}

impl SumOfPrimes {
    /// The URL of the grid to ask; `None` if the command starts a grid of its own, as it does with `--workers`.
    pub(crate) fn coordinator(&self) -> Result<Option<Url>, Failure> {
        match (&self.coordinator, self.workers) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => variable("DIVVY_URL", http_url),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Starts a whole grid in this process and serves until Ctrl-C.
///
/// Prints the public URL on stdout; on stderr the address where workers of your own fetch tasks, and the place of the jobs.
/// The variables DIVVY_* of the two services apply, save for addresses, names and slots.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Workers to start, 1 to 256, one slot each [default: one per core]
    #[arg(long, value_name = "N", value_parser = worker_number(), allow_negative_numbers = true)]
    pub(crate) workers: Option<NonZeroU32>,
    /// Python workers to start beside them, 1 to 256, one slot each; needs the command divvy-python-worker
    #[arg(long, value_name = "N", value_parser = worker_number(), allow_negative_numbers = true)]
    pub(crate) python_workers: Option<NonZeroU32>,
    /// Public port; 0 picks a free one
    #[arg(long, value_name = "PORT", value_parser = integer::<u16>(0..=65_535), default_value = "8080", allow_negative_numbers = true)]
    pub(crate) port: u16,
    /// Port on 127.0.0.1 for workers of your own and for metrics; 0 picks a free one
    #[arg(long, value_name = "PORT", value_parser = integer::<u16>(0..=65_535), default_value = "0", allow_negative_numbers = true)]
    pub(crate) internal_port: u16,
    /// Public address; 0.0.0.0 lets other machines ask
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Directory of jobs and results, for the next start too [env: DIVVY_DATA_DIR] [default: they end with the grid]
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath, conflicts_with = "store_url")]
    data_dir: Option<PathBuf>,
    /// Coordinators to start, 1 to 16; several need a database, and take the ports after the given ones
    #[arg(long, value_name = "N", default_value = "1", value_parser = count(MAX_COORDINATORS), allow_negative_numbers = true)]
    pub(crate) coordinators: NonZeroU32,
    /// A PostgreSQL instead of a directory, such as postgres://user:password@host/database; large results go to
    /// DIVVY_RESULTS_URL [env: DIVVY_STORE_URL]
    #[arg(long, value_name = "URL", value_parser = store_url)]
    pub(crate) store_url: Option<StoreUrl>,
}

impl Up {
    /// The directory for data; `None` if jobs end with the grid.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(|| non_empty("DIVVY_DATA_DIR").map(PathBuf::from))
    }

    /// Whether the jobs are kept in a database.
    pub(crate) fn has_database(&self) -> bool {
        self.store_url.is_some() || non_empty("DIVVY_STORE_URL").is_some()
    }
}

/// A variable of the environment that is not empty.
fn non_empty(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The most coordinators in one process.
const MAX_COORDINATORS: u64 = 16;

fn store_url(text: &str) -> Result<StoreUrl, String> {
    StoreUrl::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// The most workers in one process: each has two threads and a port of its own.
const MAX_WORKERS: u64 = 256;

fn worker_number() -> impl Fn(&str) -> Result<NonZeroU32, String> + Clone {
    count(MAX_WORKERS)
}

/// The requested number of workers; by default one per core that the process may use.
pub(crate) fn worker_count(asked: Option<NonZeroU32>) -> u32 {
    let cores = || available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    asked.map_or_else(cores, NonZeroU32::get).min(MAX_WORKERS as u32)
}
