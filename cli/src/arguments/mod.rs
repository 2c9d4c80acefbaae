//! The command line: what each command takes. `job.rs` has the arguments of `divvy job`, `described.rs` those of kinds of job
//! without a command of their own, `own_grid.rs` those of commands that start a grid, `values.rs` how values are read.

mod described;
mod job;
mod own_grid;
mod program;
mod statistics;
mod values;

use std::env;
use std::path::PathBuf;

use api::client::{AccessToken, Client};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use model::{Priority, WorkerId};
use service::Rights;
use url::Url;

use crate::failure::Failure;

pub(crate) use job::{
    Change, Events, Filter, JobCommand, List, RangeArguments, ResultOf, Submit, SubmitOptions, Tasks, Work, WorkCommand,
};
pub(crate) use own_grid::{Method, Output, SumOfPrimes, Up, worker_count};
pub(crate) use program::{CheckProgram, CombineName, Logs, ProgramArguments, ProgramCommand, PutProgram, RunProgram};
pub(crate) use statistics::{Statistics, StatisticsFormat};
pub(crate) use values::each_once;
use values::{decimal, http_url, integer, priority};

/// Divides big computations over a pool of workers.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = false,
    after_help = "Variables of the environment: DIVVY_URL, the grid to ask; DIVVY_TOKEN, an access token; DIVVY_CA_FILE, \
                  DIVVY_TLS_SERVER_NAME, DIVVY_CLIENT_CERT and DIVVY_CLIENT_KEY, the TLS of https:// URLs. `divvy up` and \
                  `divvy sum-of-primes` read those of the services, too.\n\n\
                  Exit codes: 0 done, 1 the job or the command failed, 2 usage, 3 the grid is unreachable, 4 the job was \
                  canceled, 5 the job is not over yet, 129 the terminal is gone, 130 interrupted, 141 the reader of stdout is \
                  gone."
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
pub(crate) struct GridOptions {
    #[command(flatten)]
    pub(crate) url: GridUrl,
    /// How to print: columns for people, the API's JSON (one value a line where there are several), or ids alone
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// The grid to ask.
#[derive(Debug, Args)]
pub(crate) struct GridUrl {
    /// URL of the grid to ask [env: DIVVY_URL] [default: http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL", value_parser = http_url, value_hint = ValueHint::Url)]
    coordinator: Option<Url>,
}

impl GridUrl {
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
    pub(crate) grid: GridOptions,
}

/// Stores programs, checks them and runs them here.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: ProgramCommand,
    #[command(flatten)]
    pub(crate) grid: GridOptions,
}

/// Lists and drains workers.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
    #[command(flatten)]
    pub(crate) grid: GridOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Lists the workers that are there now
    List,
    /// Drains workers: each finishes its leases and gets no more, so that it can be stopped
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
    pub(crate) grid: GridOptions,
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
    pub(crate) grid: GridOptions,
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
    #[arg(long = "priority", value_name = "1-9", value_delimiter = ',', value_parser = priority, allow_negative_numbers = true)]
    pub(crate) priorities: Vec<Priority>,
    /// Wait for the end, as `divvy job wait` does
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) grid: GridOptions,
}

/// Shows the grid live: workers, jobs, throughput and queue. Keys: q quits, ? shows all keys.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) url: GridUrl,
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
/// The file gets the name, the rights and the SHA-256 hash of the token; the token itself is printed only now. The coordinator
/// reads the file that DIVVY_API_TOKENS_FILE names.
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
    /// Add and remove programs; with submit, run them and Python calls
    Programs,
    /// Everything
    Admin,
}

/// Prints a completion script for a shell, such as for `source <(divvy completions bash)`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: Shell,
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
            let url = job.grid.url.coordinator.expect("a URL");
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
