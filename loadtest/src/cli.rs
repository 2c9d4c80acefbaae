//! The command line.

use std::error::Error;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, ValueEnum};
use reqwest::Url;

use crate::target::parse_url;

/// Load GET /sum-of-primes at a fixed rate, check every answer and report.
///
/// Requests leave on schedule whatever the answers do, and latency counts from the time a request was meant to leave, so
/// a service that stalls cannot hide it.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Scenario file: rate, ranges and limits (see loadtest/scenarios)
    pub(crate) scenario: PathBuf,

    /// Service to load, as http://HOST:PORT or https://HOST:PORT; given several times, requests go to each in turn
    #[arg(long = "url", required = true, value_name = "URL", value_parser = parse_url)]
    pub(crate) urls: Vec<Url>,

    /// Seed of the requests, to repeat those of an earlier run [default: a new one, printed]
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,

    /// Name of this run in the report [default: the hosts]
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// Directory for report.json and report.html [default: the scenario's name in target/loadtest]
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,

    /// report.json of an earlier run to compare with
    #[arg(long, value_name = "PATH")]
    pub(crate) baseline: Option<PathBuf>,

    /// Format of stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number from 0 to {}", u64::MAX))
}

/// Ends the program as clap does, but for a refused URL: it may hold a password, which clap would print.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    if let (Some(ContextValue::String(option)), Some(cause)) = (error.get(ContextKind::InvalidArg), error.source())
        && option.ends_with("<URL>")
    {
        let message = format!("invalid value for '{option}': {cause}");
        Args::command().error(ErrorKind::ValueValidation, message).exit();
    }
    error.exit()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A summary to read
    Text,
    /// The whole report.json
    Json,
}

const AFTER_HELP: &str = "\
Exit status: 0 all limits kept, 1 a limit missed or a wrong answer, 2 bad usage or scenario, 3 a target cannot be reached,
130 ended by Ctrl-C, SIGTERM or the end of the terminal: the report has what was measured until then.

DIVVY_TOKEN: an access token, sent with every request as Authorization: Bearer.
DIVVY_CA_FILE, DIVVY_TLS_SERVER_NAME, DIVVY_CLIENT_CERT, DIVVY_CLIENT_KEY: TLS of https:// URLs, as of the divvy command.

Compare workers asked directly with the coordinator in front of them, on the same requests:
  loadtest loadtest/scenarios/small.toml --seed 1 --label replicated --report target/loadtest/replicated \\
    --url http://127.0.0.1:9001 --url http://127.0.0.1:9002
  loadtest loadtest/scenarios/small.toml --seed 1 --label coordinator --url http://127.0.0.1:8080 \\
    --baseline target/loadtest/replicated/report.json";
