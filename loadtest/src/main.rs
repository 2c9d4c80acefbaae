//! `loadtest`: open-model load on a service that sums primes.

mod check;
mod cli;
mod expected;
mod measured;
mod outcome;
mod pace;
mod plan;
mod ramp;
mod report;
mod run;
mod scenario;
mod target;

use std::process::ExitCode;

use clap::Parser;

use crate::run::Failure;

fn main() -> ExitCode {
    match run::run(&cli::Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            let (Failure::Usage(error) | Failure::Unreachable(error) | Failure::Io(error)) = &failure;
            eprintln!("loadtest: {error:#}");
            ExitCode::from(failure.exit_code())
        }
    }
}
