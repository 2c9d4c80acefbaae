//! `divvy worker list` and `divvy worker drain`.

use std::time::Duration;

use api::client::Client;
use api::{Delivery, WorkerState, WorkerSummary, WorkerSuspension};
use model::WorkerId;

use crate::arguments::{Format, Worker, WorkerCommand};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{labels, print_json, print_line, print_table};
use crate::table::{Cell, Table, Tone};
use crate::words::{figure, memory, percent, span};

pub(crate) async fn run(arguments: &Worker) -> Result<(), Failure> {
    let grid = arguments.grid.url.client()?;
    match &arguments.command {
        WorkerCommand::List => print(arguments.grid.output, &patiently(async || grid.workers().await).await?),
        WorkerCommand::Drain { names } => drain(&grid, arguments.grid.output, names).await,
    }
}

fn print(format: Format, workers: &[WorkerSummary]) -> Result<(), Failure> {
    match format {
        Format::Table => print_table(&worker_table(workers)),
        Format::Json => print_json(&workers),
        Format::Quiet => workers.iter().try_for_each(|worker| print_line(worker.id.as_str())),
    }
}

/// Drains workers and prints the drained ones. Fails with the first error if some could not be drained.
async fn drain(grid: &Client, format: Format, names: &[WorkerId]) -> Result<(), Failure> {
    let (mut drained, mut failure) = (Vec::new(), None);
    for name in names {
        match patiently(async || grid.drain_worker(name).await).await.map_err(Failure::from) {
            Ok(()) => drained.push(name),
            Err(unreachable @ Failure::Unreachable { .. }) => return unlisted(unreachable, format, &drained),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if !drained.is_empty() {
        let workers = match patiently(async || grid.workers().await).await {
            Ok(workers) => workers,
            Err(error) => return unlisted(error.into(), format, &drained),
        };
        let workers: Vec<_> = workers.into_iter().filter(|worker| drained.contains(&&worker.id)).collect();
        print(format, &workers)?;
    }
    failure.map_or(Ok(()), Err)
}

/// The end of a command whose drained workers the grid cannot list: the failure names them.
fn unlisted(failure: Failure, format: Format, drained: &[&WorkerId]) -> Result<(), Failure> {
    if drained.is_empty() {
        return Err(failure);
    }
    let names: Vec<_> = drained.iter().map(|name| name.as_str()).collect();
    if format == Format::Quiet {
        names.iter().try_for_each(|name| print_line(name))?;
    }
    let tell = |text: String| format!("{text}; drained: {}", names.join(", "));
    Err(match failure {
        Failure::Unreachable { url, cause } => Failure::Unreachable { url, cause: tell(cause) },
        Failure::Usage(message) => Failure::Usage(tell(message)),
        Failure::Failed(message) => Failure::Failed(tell(message)),
        other @ (Failure::Canceled(_) | Failure::NotYet(_) | Failure::Quiet(_)) => other,
    })
}

fn worker_table(workers: &[WorkerSummary]) -> Table<10> {
    let mut table =
        Table::new(["WORKER", "STATE", "BUSY", "DONE", "NUMBERS", "LOAD", "FREE MEMORY", "LABELS", "VERSION", "NOTE"]);
    for worker in workers {
        table.push([
            Cell::new(worker.id.as_str()),
            Cell::new(worker_state(worker.state)).toned(worker_tone(worker.state)),
            Cell::number(format!("{}/{}", worker.running, worker.slots)),
            Cell::number(worker.completed_tasks),
            Cell::number(
                worker.speed_numbers_per_s.map(|speed| format!("{}/s", figure(speed as f64))).unwrap_or_default(),
            ),
            Cell::number(load(worker)),
            Cell::number(free_memory(worker)),
            Cell::new(labels(&worker.labels)),
            Cell::new(&worker.version),
            Cell::new(worker.suspension.as_ref().map(|of| suspension(of, worker.delivery)).unwrap_or_default()),
        ]);
    }
    table
}

/// The reason for which a worker is suspended, and until when.
fn suspension(WorkerSuspension { reason, ends_in_ms }: &WorkerSuspension, delivery: Delivery) -> String {
    match (ends_in_ms, delivery) {
        (None, _) => format!("{reason}; until it is started again"),
        (Some(0), Delivery::Pushed) => format!("{reason}; until its next heartbeat"),
        (Some(0), Delivery::Pulled) => format!("{reason}; until its next claim"),
        (Some(left), _) => format!("{reason}; for {}", span(Duration::from_millis(*left))),
    }
}

/// The load of the worker's CPUs; empty for a worker that claims its tasks, which reports neither load nor memory.
pub(crate) fn load(worker: &WorkerSummary) -> String {
    if worker.delivery == Delivery::Pulled { String::new() } else { percent(worker.cpu_load.into()) }
}

/// The free memory; empty for a worker that claims its tasks.
pub(crate) fn free_memory(worker: &WorkerSummary) -> String {
    if worker.delivery == Delivery::Pulled { String::new() } else { memory(worker.free_memory_bytes) }
}

pub(crate) fn worker_state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Ready => "ready",
        WorkerState::Suspended => "suspended",
        WorkerState::Draining => "draining",
    }
}

pub(crate) fn worker_tone(state: WorkerState) -> Tone {
    match state {
        WorkerState::Ready => Tone::Good,
        WorkerState::Suspended => Tone::Bad,
        WorkerState::Draining => Tone::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(fields: &Value) -> String {
        let mut worker = json!({
            "id": "one", "delivery": "pushed", "slots": 1, "busy": 0, "running": 0, "last_seen_ms_ago": 10,
            "state": "ready", "completed_tasks": 0, "cpu_load": 0.0, "free_memory_bytes": 0, "labels": {},
            "resources": {"cpus": 0, "memory_bytes": 0}, "kinds": ["tasks"], "version": "0.1.0",
        });
        for (name, value) in fields.as_object().expect("an object") {
            worker[name] = value.clone();
        }
        worker_table(&[serde_json::from_value(worker).expect("a worker")]).render(false)
    }

    #[test]
    fn load_and_memory_that_a_worker_does_not_tell_are_shown_as_nothing() {
        let (pushed, pulled) = (shown(&json!({})), shown(&json!({"delivery": "pulled"})));
        assert!(pushed.contains("0%") && pushed.contains("0 B"), "{pushed}");
        assert!(!pulled.contains('%') && !pulled.contains("0 B"), "{pulled}");
    }

    #[test]
    fn a_suspended_worker_has_a_note_of_the_reason_and_the_time_left() {
        assert!(!shown(&json!({})).contains("NOTE"));
        for (ends_in_ms, note) in [
            (json!(12_400), "it failed a lease; for 12s"),
            (json!(0), "it failed a lease; until its next heartbeat"),
            (Value::Null, "it failed a lease; until it is started again"),
        ] {
            let suspension = json!({"reason": "it failed a lease", "ends_in_ms": ends_in_ms});
            let shown = shown(&json!({"state": "suspended", "suspension": suspension}));
            assert!(shown.contains("NOTE") && shown.ends_with(note), "{shown}");
        }
        let suspension = json!({"reason": "it failed a lease", "ends_in_ms": 0});
        let pulled = shown(&json!({"delivery": "pulled", "state": "suspended", "suspension": suspension}));
        assert!(pulled.ends_with("it failed a lease; until its next claim"), "{pulled}");
    }
}
