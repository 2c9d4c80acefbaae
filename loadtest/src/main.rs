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

use crate::run::RunError;

fn main() -> ExitCode {
    match run::run(&cli::Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(abort) => {
            let (RunError::Usage(error) | RunError::Unreachable(error) | RunError::Io(error)) = &abort;
            eprintln!("loadtest: {error:#}");
            ExitCode::from(abort.exit_code())
        }
    }
}
