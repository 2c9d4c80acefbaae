//! `divvy monitor`: the workers' state and the events, as Kafka has them.

use std::io::{IsTerminal, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use api::WorkerStatus;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};
use streams::{Followed, Follower, FollowerError, From, Settings, Topic};

use crate::arguments::{Format, variable};
use crate::failure::{Failure, INTERRUPTED};
use crate::job::describe_event;
use crate::print::{print_json, print_line, tell};
use crate::printable::printable;
use crate::program;
use crate::words::{instant, percent};
use crate::worker_list::worker_state;

/// Longest wait of one poll for the next record.
const PATIENCE: Duration = Duration::from_millis(500);

/// Prints what Kafka has of the grid: a line for each worker each second, until Ctrl-C.
///
/// DIVVY_KAFKA_CONFIG has further settings of librdkafka, such as TLS and SASL; the names of topics begin with
/// DIVVY_KAFKA_PREFIX.
#[derive(Debug, Args)]
pub(crate) struct Monitor {
    /// Kafka's brokers, with commas between [env: DIVVY_KAFKA_BROKERS]
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    brokers: Option<String>,
    /// Begin with the oldest records that the brokers keep
    #[arg(long)]
    from_beginning: bool,
    /// Read in this consumer group, which goes on where it stopped
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other, value_parser = NonEmptyStringValueParser::new())]
    group: Option<String>,
    /// Print the events of jobs, too
    #[arg(long)]
    events: bool,
    /// How to print: columns for people, one JSON value a line, or ids alone
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

/// The brokers that an option or the environment names.
pub(crate) fn settings(brokers: Option<&str>) -> Result<Settings, Failure> {
    let text = |name| variable(name, |text| Ok(text.to_owned()));
    let brokers = match brokers {
        Some(brokers) => brokers.to_owned(),
        None => text("DIVVY_KAFKA_BROKERS")?
            .ok_or_else(|| Failure::Usage("name the brokers: --brokers HOST:PORT or DIVVY_KAFKA_BROKERS".to_owned()))?,
    };
    let config = text("DIVVY_KAFKA_CONFIG")?.unwrap_or_default();
    let prefix = text("DIVVY_KAFKA_PREFIX")?;
    let settings = Settings::parse(&brokers, &config).and_then(|settings| match prefix {
        Some(prefix) => settings.with_prefix(&prefix),
        None => Ok(settings),
    });
    settings.map_err(|error| Failure::Usage(format!("Kafka: {error}")))
}

/// The failure of reading.
pub(crate) fn unreadable(settings: &Settings, error: &FollowerError) -> Failure {
    Failure::Failed(format!("cannot read from Kafka at {}: {error}", settings.brokers()))
}

/// The next record, as [`Follower::next`] returns it. A record that divvy did not publish is told and left out, and so is a topic
/// that is gone.
pub(crate) fn next(
    follower: &mut Follower,
    settings: &Settings,
    patience: Duration,
) -> Result<Option<Followed>, Failure> {
    match follower.next(patience) {
        Err(error @ (FollowerError::Record { .. } | FollowerError::Gone(_))) => {
            tell(&format!("warning: {}", printable(&error.to_string())));
            Ok(None)
        }
        followed => followed.map_err(|error| unreadable(settings, &error)),
    }
}

pub(crate) async fn run(arguments: Monitor) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    if arguments.group.is_some() {
        // A reader that ends without a word keeps its partitions in the group for a while, and what it read last is read again.
        let first = service::shutdown_signal().context("catch signals")?;
        tokio::spawn(program::tell(first, Arc::clone(&stop)));
    }
    // Reading blocks.
    let read = tokio::task::spawn_blocking(move || read(&arguments, &stop));
    read.await.map_err(|error| Failure::Failed(error.to_string()))?
}

fn read(arguments: &Monitor, stop: &AtomicBool) -> Result<(), Failure> {
    let settings = settings(arguments.brokers.as_deref())?;
    let topics: &[_] = if arguments.events { &[Topic::Workers, Topic::Events] } else { &[Topic::Workers] };
    let from = if arguments.from_beginning { From::Beginning } else { From::Now };
    let started = Follower::start(&settings, topics, from, arguments.group.as_deref());
    let mut follower = started.map_err(|error| unreadable(&settings, &error))?;
    if arguments.output == Format::Table && stdout().is_terminal() {
        print_line(&columns("AT", "WORKER", "STATE", "BUSY", "LOAD", "DONE"))?;
    }
    while !stop.load(Ordering::Relaxed) {
        match next(&mut follower, &settings, PATIENCE)? {
            None | Some(Followed::End) => (),
            Some(Followed::Worker(worker)) => match arguments.output {
                Format::Table => print_line(&describe(&worker))?,
                Format::Json => print_json(&worker)?,
                Format::Quiet => print_line(worker.id.as_str())?,
            },
            Some(Followed::Event(event)) => match arguments.output {
                Format::Table => print_line(&describe_event(&event))?,
                Format::Json => print_json(&event)?,
                Format::Quiet => print_line(&event.job.to_string())?,
            },
        }
    }
    // After a failure the group reads the record again that was not printed.
    follower.finish();
    Err(Failure::Quiet(INTERRUPTED))
}

/// One line of fixed columns, since later workers are not known yet.
fn describe(worker: &WorkerStatus) -> String {
    let WorkerStatus { id, at, state, load, slots, busy, tasks_done } = worker;
    let (busy, done) = (format!("{busy}/{slots}"), tasks_done.to_string());
    let name = printable(id.as_str());
    columns(&instant(*at), &name, worker_state(*state), &busy, &percent((*load).into()), &done)
}

fn columns(at: &str, worker: &str, state: &str, busy: &str, load: &str, done: &str) -> String {
    format!("{at:<20}  {worker:<24}  {state:<9}  {busy:>7}  {load:>5}  {done:>10}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_a_line_under_the_head() {
        let json = r#"{"id":"worker-1","at":"2026-03-21T10:00:00.25Z","state":"ready","load":0.5,"slots":4,"busy":3,
            "tasks_done":1200}"#;
        let worker = serde_json::from_str(json).expect("a worker");
        let head = columns("AT", "WORKER", "STATE", "BUSY", "LOAD", "DONE");
        assert_eq!(head, "AT                    WORKER                    STATE         BUSY   LOAD        DONE");
        let line = "2026-03-21T10:00:00Z  worker-1                  ready          3/4    50%        1200";
        assert_eq!(describe(&worker), line);
    }
}
