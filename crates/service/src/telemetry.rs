//! Logs on stderr.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::program::{Variable, variables_of};

/// The filter of a service: its own state changes, and of the HTTP server only what is wrong.
pub const DEFAULT_LOG: &str = "info,actix_server=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Deserialize)]
struct LogConfig {
    /// `DIVVY_LOG`: a filter of the log, such as `warn` or `coordinator=debug`. Default `info,actix_server=warn`.
    log: Option<String>,
    /// `DIVVY_LOG_FORMAT`: `text` or `json`, a line each. Default `text`.
    #[serde(default)]
    log_format: LogFormat,
}

/// The variables that every program with a log has.
pub(crate) fn variables() -> Vec<Variable> {
    variables_of(include_str!("telemetry.rs"))
}

/// Starts logging as `DIVVY_LOG` (a filter such as `info` or `coordinator=debug`; `default_filter` where it is unset)
/// and `DIVVY_LOG_FORMAT` (`text` or `json`) say.
///
/// # Errors
/// One of the two variables has no valid value.
pub fn init_logs(default_filter: &str) -> anyhow::Result<()> {
    let config: LogConfig = crate::from_env()?;
    let filter =
        EnvFilter::try_new(config.log.as_deref().unwrap_or(default_filter)).context("DIVVY_LOG is not valid")?;
    // An error in writing a line would itself be written to stderr, by a macro that panics where that fails.
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => logs.with_ansi(is_coloured()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Whether stderr is a terminal that may be coloured; see <https://no-color.org>.
fn is_coloured() -> bool {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stderr().is_terminal() && variable("NO_COLOR").is_none() && variable("TERM").is_some_and(|term| term != "dumb")
}
