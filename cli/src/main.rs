//! The `divvy` command: a whole grid in one process, and a client for a running one.
//!
//! Data goes to stdout, progress, logs and errors to stderr. Exit codes: 0 done, 1 the job failed, 2 usage,
//! 3 unreachable.

mod arguments;
mod client;
mod failure;
mod sum_of_primes;
mod up;

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are no errors: they go to stdout.
        Err(shown) if !shown.use_stderr() => shown.exit(),
        Err(wrong) => return Failure::from(&wrong).report(),
    };
    let result = match arguments.command {
        Command::SumOfPrimes(arguments) => sum_of_primes::run(&arguments).await,
        Command::Up(arguments) => up::run(&arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Prints data to stdout; a reader that has closed it is a failure, not a panic.
fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(stdout(), "{line}").map_err(|error| Failure::Failed(format!("cannot write to stdout: {error}")))
}
