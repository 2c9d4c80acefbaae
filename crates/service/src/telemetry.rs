//! Logs on stderr.

mod one_line;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write, stderr};
use std::panic::{self, PanicHookInfo};

use anyhow::{Context, anyhow, ensure};
use serde::Deserialize;
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::command_line::{Variable, variables_of};
use crate::trace::WithTrace;
use one_line::OneLine;

/// The default filter of a service: its own state changes, and only warnings of the HTTP server.
pub const DEFAULT_LOG: &str = "info,actix_server=warn";

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Deserialize)]
struct LogConfig {
    /// `DIVVY_LOG`: a filter of the log: `off`, `error`, `warn`, `info`, `debug` or `trace`, or levels by module, such as
    /// `warn,coordinator=debug`. Default `info,actix_server=warn`.
    log: Option<String>,
    /// `DIVVY_LOG_FORMAT`: `text` or `json`, a line each. Default `text`.
    #[serde(default)]
    log_format: LogFormat,
}

/// Targets whose lines clients and programs cause, in any number, each after the word that turns it on: such a target is logged
/// only if the filter's text has the word.
const NOISY_TARGETS: [(&str, &str); 2] = [
    // actix-web's errors about connections that a client breaks off or fills with garbage. Answers that end early for reasons of
    // the service's own are logged by [`crate::connection`].
    ("actix_http", "actix_http::h1::dispatcher"),
    // The WASI engine has a span for each call of a program, and a warning for each call about a socket.
    ("wasmtime_wasi", "wasmtime_wasi"),
];

/// The variables that every program with a log has.
pub(crate) fn variables() -> Vec<Variable> {
    variables_of(include_str!("telemetry.rs"))
}

/// Starts logging by `DIVVY_LOG` (a filter such as `info` or `coordinator=debug`; `default_filter` where it is unset) and
/// `DIVVY_LOG_FORMAT` (`text` or `json`).
///
/// # Errors
/// One of the two variables has no valid value.
pub fn init_logs(default_filter: &str) -> anyhow::Result<()> {
    let (filter, log_format) = settings(default_filter)?;
    // An error in writing a line would itself be written to stderr, by a macro that panics where that fails.
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    match log_format {
        LogFormat::Text => {
            let logs = logs.with_ansi(is_coloured()).fmt_fields(OneLine);
            logs.map_event_format(|inner| WithTrace { inner, is_json: false }).init();
        }
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true);
            logs.map_event_format(|inner| WithTrace { inner, is_json: true }).init();
            // Without the log: a panic may be that of a thread that writes to it.
            panic::set_hook(Box::new(|panic| drop(writeln!(stderr(), "{}", as_json("ERROR", &told(panic))))));
        }
    }
    Ok(())
}

/// Checks whether logging can be started.
///
/// # Errors
/// The errors of [`init_logs`].
pub(crate) fn check() -> anyhow::Result<()> {
    settings(DEFAULT_LOG).map(drop)
}

fn settings(default_filter: &str) -> anyhow::Result<(EnvFilter, LogFormat)> {
    let config: LogConfig = crate::from_env()?;
    Ok((filter(config.log.as_deref().unwrap_or(default_filter))?, config.log_format))
}

/// The filter of a text, without the targets of [`NOISY_TARGETS`] that it does not name. A word that is no level would be taken for
/// the name of an unknown module, and nothing would be logged.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    for part in &parts {
        let is_directive = part.contains(['=', '[']);
        ensure!(
            is_directive || part.parse::<LevelFilter>().is_ok(),
            "DIVVY_LOG is not valid: {part:?} must be off, error, warn, info, debug or trace, or such as coordinator=debug"
        );
    }
    // The text of this error already ends with that of its cause: as a context it would be shown twice.
    let filter = EnvFilter::try_new(parts.join(","));
    let mut filter = filter.map_err(|error| anyhow!("DIVVY_LOG is not valid: {text:?}: {error}"))?;
    for (_, target) in NOISY_TARGETS.into_iter().filter(|(word, _)| !text.contains(word)) {
        filter = filter.add_directive(format!("{target}=off").parse().context("the filter of a target")?);
    }
    Ok(filter)
}

/// Writes the error that ends the process as one line, whatever the filter of the logs is, also if logging could not be started:
/// only `DIVVY_LOG_FORMAT` decides its format.
pub(crate) fn report_fatal(message: &str) {
    report(("error", "ERROR"), message);
}

/// Like [`report_fatal`], for a warning.
pub(crate) fn report_warning(message: &str) {
    report(("warning", "WARN"), message);
}

/// Writes a line at a level, which has a name for people and a name in the log.
fn report((word, level): (&str, &str), message: &str) {
    let is_json = std::env::var_os("DIVVY_LOG_FORMAT").is_some_and(|format| format == "json");
    let line = if is_json { as_json(level, message) } else { format!("{word}: {message}") };
    // A closed stderr must not turn the message into a panic.
    let _ = writeln!(stderr(), "{line}");
}

/// The message with the fields that every line of the log has.
fn as_json(level: &str, message: &str) -> String {
    let mut timestamp = String::new();
    // Formatting into memory fails only if the clock cannot be read; the line is written without a time then.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    json!({ "timestamp": timestamp, "level": level, "message": message, "target": "service" }).to_string()
}

/// The location and the message of a panic, with the backtrace if the environment asks for one.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let (thread, backtrace) = (std::thread::current(), Backtrace::capture());
    let told = format!("thread {} {panic}", thread.name().unwrap_or("without a name"));
    if backtrace.status() == BacktraceStatus::Captured { format!("{told}\n{backtrace}") } else { told }
}

/// Whether stderr is a terminal that may be coloured; see <https://no-color.org>.
fn is_coloured() -> bool {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stderr().is_terminal() && variable("NO_COLOR").is_none() && variable("TERM").is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_panic_is_one_line_of_json_with_its_thread_and_place() {
        let (sender, lines) = mpsc::channel();
        // Other tests may panic meanwhile; nobody listens after this one.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| drop(sender.send(as_json("ERROR", &told(panic))))));
        let panicking = thread::Builder::new().name("slot-7".to_owned());
        let panicking = panicking.spawn(|| assert!(black_box(false), "first\nsecond")).expect("a thread");
        let ended = panicking.join();
        panic::set_hook(before);
        assert!(ended.is_err());
        let line = lines.iter().find(|line| line.contains("slot-7")).expect("it is told");
        assert!(!line.contains('\n'), "{line}");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let message = line["message"].as_str().expect("a text");
        assert!(message.contains("telemetry.rs") && message.contains("first\nsecond"), "{message}");
        assert_eq!(line["level"], "ERROR");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_instead_of_silencing_the_log() {
        for valid in [DEFAULT_LOG, "off", "INFO", "warn, coordinator=debug", "coordinator::jobs=trace", "[lease]=debug"]
        {
            assert!(filter(valid).is_ok(), "{valid}");
        }
        for (wrong, named) in [("verbose", "\"verbose\""), ("info,warning", "\"warning\""), ("-1", "\"-1\"")] {
            let error = filter(wrong).expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("DIVVY_LOG is not valid: {named} must be off, error, ")), "{error}");
        }
        let twice = filter("info,coordinator=verbose").expect_err("no level");
        assert_eq!(format!("{twice:#}").matches("parsing level filter").count(), 1, "{twice:#}");
        assert!(filter("=x=").is_err());
    }

    #[test]
    fn lines_that_clients_and_programs_cause_are_logged_only_by_name() {
        let logged = |text: &str| {
            let logs = tracing_subscriber::fmt().with_env_filter(filter(text).expect("valid")).finish();
            tracing::subscriber::with_default(logs, || {
                let of_clients = tracing::enabled!(target: "actix_http::h1::dispatcher", tracing::Level::ERROR);
                let of_programs = tracing::enabled!(target: "wasmtime_wasi::p1", tracing::Level::WARN);
                let own = tracing::enabled!(target: "worker", tracing::Level::WARN);
                [of_clients, of_programs, own]
            })
        };
        assert_eq!(logged(DEFAULT_LOG), [false, false, true]);
        assert_eq!(logged("debug"), [false, false, true]);
        assert_eq!(logged("info,actix_http=error"), [true, false, true]);
        assert_eq!(logged("info,wasmtime_wasi=warn"), [false, true, true]);
    }
}
