//! `divvy coordinator list`.

use std::time::Duration;

use api::{CoordinatorRole, CoordinatorSummary};

use crate::arguments::{Coordinator, CoordinatorCommand, Format};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line, print_table};
use crate::table::{Cell, Table, Tone};
use crate::words::{instant, span};

pub(crate) async fn run(arguments: &Coordinator) -> Result<(), Failure> {
    let CoordinatorCommand::List = arguments.command;
    let grid = arguments.grid.url.client()?;
    let list = patiently(async || grid.coordinators().await).await?;
    match arguments.grid.output {
        Format::Table => print_table(&coordinator_table(&list.coordinators)),
        Format::Json => print_json(&list),
        Format::Quiet => list.coordinators.iter().try_for_each(|coordinator| print_line(&coordinator.id)),
    }
}

fn coordinator_table(coordinators: &[CoordinatorSummary]) -> Table<8> {
    let mut table =
        Table::new(["COORDINATOR", "ROLE", "EPOCH", "PUBLIC", "INTERNAL", "SINCE", "SEEN BEFORE", "VERSION"]);
    for coordinator in coordinators {
        let (role, tone) = match coordinator.role {
            CoordinatorRole::Leader => ("leader", Tone::Good),
            CoordinatorRole::Standby => ("standby", Tone::Waiting),
        };
        table.push([
            Cell::new(&coordinator.id),
            Cell::new(role).toned(tone),
            Cell::number(coordinator.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()),
            Cell::new(&coordinator.public_address),
            Cell::new(&coordinator.internal_address),
            Cell::new(instant(coordinator.started_at)),
            Cell::number(span(Duration::from_millis(coordinator.last_contact_ms_ago))),
            Cell::new(&coordinator.version),
        ]);
    }
    table
}
