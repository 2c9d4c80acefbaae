//! The command line: what each command takes. `job.rs` has the arguments of `divvy job`, `values.rs` how values are read.

mod job;
mod values;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use protocol::Priority;
use url::Url;

pub(crate) use job::{Change, Events, Filter, JobCommand, List, ResultOf, Submit, SubmitOptions, Tasks, WorkCommand};
use values::{finite, http_url, number, priority};

/// Divides big computations over a pool of workers.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = false,
    after_help = "Exit codes: 0 done, 1 the job failed, 2 usage, 3 the grid is unreachable, 4 the job was canceled, \
                  5 not there yet."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    SumOfPrimes(SumOfPrimes),
    Job(Job),
    Worker(Worker),
    Stats(Stats),
    Simulate(Simulate),
    Watch(Watch),
    Up(Up),
    Completions(Completions),
}

/// Which grid, and how to print what it answers.
#[derive(Debug, Args)]
pub(crate) struct Grid {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How to print: columns for people, the API's JSON (one value a line where there are several), or ids alone
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Which grid.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The grid to ask
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DIVVY_URL",
        default_value = "http://127.0.0.1:8080",
        value_parser = http_url
    )]
    pub(crate) coordinator: Url,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Quiet,
}

/// Submits jobs, follows them and changes them.
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

/// Shows the workers.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
    #[command(flatten)]
    pub(crate) grid: Grid,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Lists the workers that are registered now
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
    #[arg(long, value_name = "N", value_parser = number)]
    pub(crate) tasks: u64,
    /// Seconds that each task takes, 0 to 3600
    #[arg(long, value_name = "S", value_parser = finite)]
    pub(crate) seconds: f64,
    /// Simulated workers of one slot each, 1 to 1000
    #[arg(long, value_name = "N")]
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

/// Shows the grid live: workers, jobs, throughput and queue. Press q to quit.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) place: Place,
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
    /// Python workers to start beside them, one slot each; needs the command divvy-python-worker
    #[arg(long, value_name = "N")]
    pub(crate) python_workers: Option<NonZeroU32>,
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
            assert_eq!((job.grid.output, job.grid.place.coordinator.as_str()), (Format::Json, "http://h:1/"), "{line}");
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
