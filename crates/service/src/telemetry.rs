//! Logs on stderr.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

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
    log: Option<String>,
    #[serde(default)]
    log_format: LogFormat,
}

/// Starts logging as `DIVVY_LOG` (a filter such as `info` or `coordinator=debug`; `default_filter` where it is unset)
/// and `DIVVY_LOG_FORMAT` (`text` or `json`) say.
///
/// # Errors
/// One of the two variables has no valid value.
pub fn init_logs(default_filter: &str) -> anyhow::Result<()> {
    let config: LogConfig = crate::from_env()?;
    let filter = EnvFilter::try_new(config.log.as_deref().unwrap_or(default_filter)).context("read DIVVY_LOG")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.log_format {
        LogFormat::Text => logs.with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
