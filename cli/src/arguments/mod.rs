//! The command line: what each command takes. `job.rs` has the arguments of `divvy job`, `described.rs` those of kinds of job
//! without a command of their own, `values.rs` how values are read.

mod described;
mod job;
mod program;
mod statistics;
mod values;

use std::env;
use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::available_parallelism;

use api::client::{AccessToken, Client};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use coordinator::config::StoreUrl;
use model::{Algorithm, Priority, WorkerId};
use service::Rights;
use url::Url;

use crate::failure::Failure;

pub(crate) use job::{
    Change, Events, Filter, JobCommand, List, RangeArguments, ResultOf, Submit, SubmitOptions, Tasks, Work, WorkCommand,
};
pub(crate) use program::{CheckProgram, CombineName, Logs, ProgramArguments, ProgramCommand, PutProgram, RunProgram};
pub(crate) use statistics::{Statistics, StatisticsFormat};
pub(crate) use values::each_once;
use values::{count, decimal, http_url, integer, ip_address, names, number, priority};

/// Divides big computations over a pool of workers.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = false,
    after_help = "Variables of the environment: DIVVY_URL, the grid to ask; DIVVY_TOKEN, an access token; DIVVY_CA_FILE, \
                  DIVVY_TLS_SERVER_NAME, DIVVY_CLIENT_CERT and DIVVY_CLIENT_KEY, the TLS of https:// URLs. `divvy up` and \
                  `divvy sum-of-primes` read those of the services, too.\n\n\
                  Exit codes: 0 done, 1 the job failed, 2 usage, 3 the grid is unreachable, 4 the job was canceled, \
                  5 not there yet, 129 the terminal is gone, 130 interrupted, 141 the reader of stdout is gone."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    SumOfPrimes(SumOfPrimes),
    Job(Job),
    Program(Program),
    Worker(Worker),
    Coordinator(Coordinator),
    Stats(Stats),
    Statistics(Statistics),
    Simulate(Simulate),
    Watch(Watch),
    #[cfg(feature = "kafka")]
    Monitor(crate::monitor::Monitor),
    Up(Up),
    Token(Token),
    Completions(Completions),
}

/// The grid to ask, and the format of its answers.
#[derive(Debug, Args)]
pub(crate) struct Grid {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How to print: columns for people, the API's JSON (one value a line where there are several), or ids alone
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// The grid to ask.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The grid to ask [env: DIVVY_URL] [default: http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL", value_parser = http_url, value_hint = ValueHint::Url)]
    coordinator: Option<Url>,
}

impl Place {
    /// A client of the grid, with the token of `DIVVY_TOKEN` where it is set.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let from_environment = || variable("DIVVY_URL", http_url).map(|url| url.unwrap_or_else(local));
        client(&self.coordinator.clone().map_or_else(from_environment, Ok)?)
    }
}

/// URL of a grid on this machine.
fn local() -> Url {
    Url::parse("http://127.0.0.1:8080").expect("a valid URL")
}

/// A client of the grid at `url`, with the token of `DIVVY_TOKEN` where it is set.
pub(crate) fn client(url: &Url) -> Result<Client, Failure> {
    let client = Client::new(url)?;
    let token = variable("DIVVY_TOKEN", |text| text.parse::<AccessToken>().map_err(|error| error.to_string()))?;
    Ok(match token {
        Some(token) => client.with_token(token),
        None => client,
    })
}

/// A variable of the environment; an empty one counts as unset.
pub(crate) fn variable<T>(name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = value.to_str().ok_or_else(|| "it is not text".to_owned()).and_then(parse);
    parsed.map(Some).map_err(|message| Failure::Usage(format!("{name} is not valid: {message}")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Quiet,
}

/// Submits jobs, follows them and changes them.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Job {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

/// Stores programs, checks them and runs them here.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: ProgramCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

/// Shows the workers and drains some of them.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Lists the workers that are there now
    List,
    /// Drains workers: each finishes its leases and gets no more, and can be stopped then
    Drain {
        /// The workers
        #[arg(value_name = "NAME", required = true, value_hint = ValueHint::Other)]
        names: Vec<WorkerId>,
    },
}

/// Shows the coordinators.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Coordinator {
    #[command(subcommand)]
    pub(crate) command: CoordinatorCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Lists the coordinators of the grid, and which of them leads
    List,
}

/// Shows the grid's figures: jobs, tasks, queue, workers, throughput.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) grid: Grid,
}

/// Runs tasks that only sleep on workers that exist only for them, to see how the grid schedules.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Tasks in all, 1 to 1000000
    #[arg(long, value_name = "N", value_parser = integer::<u64>(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) tasks: u64,
    /// Seconds that each task takes, 0 to 3600
    #[arg(long, value_name = "S", value_parser = decimal(0.0..=3600.0), allow_negative_numbers = true)]
    pub(crate) seconds: f64,
    /// Simulated workers of one slot each, 1 to 1000
    #[arg(long, value_name = "N", value_parser = integer::<u32>(1..=1000), allow_negative_numbers = true)]
    pub(crate) workers: u32,
    /// Spread the tasks over these priorities, one job for each [default: one job of priority 5]
    #[arg(long = "priority", value_name = "1-9", value_delimiter = ',', value_parser = priority)]
    pub(crate) priorities: Vec<Priority>,
    /// Wait for the end, as `divvy job wait` does
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

/// Shows the grid live: workers, jobs, throughput and queue. Keys: q quits, ? shows all keys.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Makes access tokens.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    New(NewToken),
}

/// Adds a token to a file of tokens and prints it.
///
/// The file gets the name, the rights and the SHA-256 hash of the token; the token itself is printed this once. It is the
/// file that the coordinator reads by DIVVY_API_TOKENS_FILE.
#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// Name of the token's user: 1 to 100 of A-Z, a-z, 0-9, '-', '_', '.' and '@'
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) name: String,
    /// Rights of the token
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    rights: Vec<Right>,
    /// The file of tokens, in TOML; made where it is missing, readable by its owner only
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

impl NewToken {
    pub(crate) fn rights(&self) -> Result<Rights, Failure> {
        let names = self.rights.iter().filter_map(Right::to_possible_value);
        let list = names.map(|right| right.get_name().to_owned()).collect::<Vec<_>>().join(",");
        Ok(list.parse::<Rights>()?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Right {
    /// See jobs, results, events, workers and figures
    Read,
    /// Submit and change jobs
    Submit,
    /// Manage programs
    Programs,
    /// Everything
    Admin,
}

/// Prints a completion script for a shell, such as for `source <(divvy completions bash)`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: Shell,
}

/// Prints the sum of all primes from A to B, both included.
///
/// Without --coordinator it starts a grid of its own for this one answer: a coordinator and a worker per core, on
/// loopback ports.
#[derive(Debug, Args)]
pub(crate) struct SumOfPrimes {
    /// First number, 0 to 18446744073709551615 (2^64-1), such as 1000, 10_000 or 1e9
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) a: u64,
    /// Last number, A to 18446744073709551615 (2^64-1)
    #[arg(value_parser = number, allow_negative_numbers = true)]
    pub(crate) b: u64,
    #[command(flatten)]
    pub(crate) method: Method,
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
    /// The grid to ask; none where an own one is to be started. `--workers` asks for an own one.
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
/// Prints the public URL on stdout, and on stderr where workers of your own fetch tasks and where jobs are kept. The
/// variables DIVVY_* of the two services apply, save for addresses, names and slots.
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
    /// Where jobs and results are kept for the next start [env: DIVVY_DATA_DIR] [default: they end with the grid]
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath, conflicts_with = "store_url")]
    data_dir: Option<PathBuf>,
    /// Coordinators to start, 1 to 16; several share a database, and each has ports of its own, behind the first one's
    #[arg(long, value_name = "N", default_value = "1", value_parser = count(MAX_COORDINATORS), allow_negative_numbers = true)]
    pub(crate) coordinators: NonZeroU32,
    /// A PostgreSQL instead of a directory, such as postgres://user:password@host/database; large results go to
    /// DIVVY_RESULTS_URL [env: DIVVY_STORE_URL]
    #[arg(long, value_name = "URL", value_parser = store_url)]
    pub(crate) store_url: Option<StoreUrl>,
}

impl Up {
    /// The directory for data; none where jobs end with the grid.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(|| non_empty("DIVVY_DATA_DIR").map(PathBuf::from))
    }

    /// Whether jobs are in a database.
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

/// The asked number of workers, else one per core that the process may use.
pub(crate) fn worker_count(asked: Option<NonZeroU32>) -> u32 {
    let cores = || available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    asked.map_or_else(cores, NonZeroU32::get).min(MAX_WORKERS as u32)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn grid_and_format_may_stand_before_or_after_the_command() {
        for line in [
            "divvy job --output json --coordinator http://h:1 list",
            "divvy job list --output json --coordinator http://h:1",
            "divvy job --coordinator http://h:1 list --output json",
        ] {
            let Command::Job(job) = Arguments::try_parse_from(line.split(' ')).expect(line).command else {
                panic!("{line} is a job command")
            };
            let url = job.grid.place.coordinator.expect("a URL");
            assert_eq!((job.grid.output, url.as_str()), (Format::Json, "http://h:1/"), "{line}");
        }
    }

    #[test]
    fn priorities_of_a_simulation_are_a_list() {
        let line = "divvy simulate --tasks 1e3 --seconds 0.5 --workers 4 --priority 9,1 --priority 5";
        let Command::Simulate(simulate) = Arguments::try_parse_from(line.split(' ')).expect(line).command else {
            panic!("{line} is a simulation")
        };
        assert_eq!(simulate.priorities.iter().map(|priority| priority.get()).collect::<Vec<_>>(), [9, 1, 5]);
        assert_eq!(simulate.tasks, 1000);
    }
}
