//! The `divvy` command: a whole grid in one process, and a client for a running one.
//!
//! Data goes to stdout, progress, logs and errors to stderr. Exit codes: 0 done, 1 the job failed, 2 usage,
//! 3 unreachable, 4 the job was canceled, 5 the job is not over, 129 the terminal is gone, 130 interrupted, 141 the reader of stdout
//! is gone.

mod arguments;
mod bar;
mod completions;
mod coordinator_list;
mod failure;
mod follow;
mod job;
#[cfg(feature = "kafka")]
mod monitor;
mod patience;
mod print;
mod printable;
mod program;
mod python_workers;
mod simulate;
mod source;
mod statistics;
mod stats;
mod sum_of_primes;
mod table;
mod token;
mod up;
mod watch;
mod words;
mod worker_list;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::print::unwritable;

fn main() -> ExitCode {
    // A grid in this process, and `divvy program run`, start their helpers from this binary.
    worker::run_child_if_asked();
    python_workers::become_one_if_asked().unwrap_or_else(run)
}

#[tokio::main]
async fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are no errors: they go to stdout.
        Err(shown) if !shown.use_stderr() => {
            let printed = shown.print().and_then(|()| std::io::stdout().flush());
            return printed.map_or_else(|error| unwritable(&error).report(), |()| ExitCode::SUCCESS);
        }
        Err(wrong) => return Failure::from(&wrong).report(),
    };
    let result = match arguments.command {
        Command::SumOfPrimes(arguments) => sum_of_primes::run(&arguments).await,
        Command::Job(arguments) => job::run(&arguments).await,
        Command::Program(arguments) => program::run(&arguments).await,
        Command::Worker(arguments) => worker_list::run(&arguments).await,
        Command::Coordinator(arguments) => coordinator_list::run(&arguments).await,
        Command::Stats(arguments) => stats::run(&arguments).await,
        Command::Statistics(arguments) => statistics::run(&arguments).await,
        Command::Simulate(arguments) => simulate::run(&arguments).await,
        Command::Watch(arguments) => watch::run(&arguments).await,
        #[cfg(feature = "kafka")]
        Command::Monitor(arguments) => monitor::run(arguments).await,
        Command::Up(arguments) => up::run(&arguments).await,
        Command::Token(arguments) => token::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
