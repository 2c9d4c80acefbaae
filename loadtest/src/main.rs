//! `loadtest`: open-model load on a service that sums primes.

mod check;
mod cli;
mod expected;
mod files;
mod measured;
mod outcome;
mod pace;
mod plan;
mod ramp;
mod report;
mod run;
mod scenario;
mod stop;
mod target;

use std::process::ExitCode;

use clap::Parser;

use crate::run::{RunError, Verdict};

/// The exit code of a program that SIGINT has ended, as a shell reports it.
const INTERRUPTED: u8 = 128 + 2;

fn main() -> ExitCode {
    let args = match cli::Args::try_parse() {
        Ok(args) => args,
        Err(error) => cli::refuse(&error),
    };
    match run::run(&args) {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Missed) => ExitCode::from(1),
        Ok(Verdict::Partial) => ExitCode::from(INTERRUPTED),
        Err(abort) => {
            let (RunError::Usage(error) | RunError::Unreachable(error) | RunError::Io(error)) = &abort;
            run::tell(&format!("loadtest: {error:#}"));
            ExitCode::from(abort.exit_code())
        }
    }
}
