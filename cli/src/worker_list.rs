//! `divvy worker list` and `divvy worker drain`.

use api::client::Client;
use api::{WorkerState, WorkerSummary};
use model::WorkerId;

use crate::arguments::{Format, Worker, WorkerCommand};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{labels, print_json, print_line, print_table};
use crate::table::{Cell, Table, Tone};
use crate::words::{figure, memory, percent};

pub(crate) async fn run(arguments: &Worker) -> Result<(), Failure> {
    let grid = arguments.grid.place.client()?;
    let workers = match &arguments.command {
        WorkerCommand::List => grid.workers().await?,
        WorkerCommand::Drain { names } => drain(&grid, names).await?,
    };
    match arguments.grid.output {
        Format::Table => print_table(&worker_table(&workers)),
        Format::Json => print_json(&workers),
        Format::Quiet => workers.iter().try_for_each(|worker| print_line(worker.id.as_str())),
    }
}

/// Drains workers, and answers how they are then.
async fn drain(grid: &Client, names: &[WorkerId]) -> Result<Vec<WorkerSummary>, Failure> {
    for name in names {
        patiently(async || grid.drain_worker(name).await).await?;
    }
    let workers = grid.workers().await?;
    Ok(workers.into_iter().filter(|worker| names.contains(&worker.id)).collect())
}

fn worker_table(workers: &[WorkerSummary]) -> Table<9> {
    let mut table =
        Table::new(["WORKER", "STATE", "BUSY", "DONE", "NUMBERS", "LOAD", "FREE MEMORY", "LABELS", "VERSION"]);
    for worker in workers {
        table.push([
            Cell::new(worker.id.as_str()),
            Cell::new(worker_state(worker.state)).toned(worker_tone(worker.state)),
            Cell::number(format!("{}/{}", worker.running, worker.slots)),
            Cell::number(worker.completed_tasks),
            Cell::number(
                worker.speed_numbers_per_s.map(|speed| format!("{}/s", figure(speed as f64))).unwrap_or_default(),
            ),
            Cell::number(percent(worker.cpu_load.into())),
            Cell::number(memory(worker.free_memory_bytes)),
            Cell::new(labels(&worker.labels)),
            Cell::new(&worker.version),
        ]);
    }
    table
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
