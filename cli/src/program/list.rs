//! `divvy program list`, `names` and `show`.

use api::client::{Client, Query};
use api::{Program, ProgramPage};
use model::ProgramHash;

use crate::arguments::Format;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line, print_table};
use crate::table::{Cell, Table};
use crate::words::{instant, memory};

/// The most programs that one request asks for.
const PAGE_SIZE: usize = 1000;

pub(super) async fn programs(grid: &Client, format: Format) -> Result<(), Failure> {
    let mut list = ProgramPage { programs: Vec::new(), next_page_token: None };
    loop {
        let mut query: Query = vec![("limit", PAGE_SIZE.to_string())];
        query.extend(list.next_page_token.take().map(|token| ("page_token", token)));
        let page = patiently(async || grid.program_page(&query).await).await?;
        list.programs.extend(page.programs);
        list.next_page_token = page.next_page_token;
        if list.next_page_token.is_none() {
            break;
        }
    }
    match format {
        Format::Json => print_json(&list),
        Format::Quiet => list.programs.iter().try_for_each(|program| print_line(&program.sha256.to_string())),
        Format::Table => print_table(&table(&list.programs)),
    }
}

pub(super) async fn show(grid: &Client, format: Format, hash: ProgramHash) -> Result<(), Failure> {
    let program = patiently(async || grid.program(hash).await).await?;
    match format {
        Format::Json => print_json(&program),
        Format::Quiet => print_line(&program.sha256.to_string()),
        Format::Table => print_table(&table(&[program])),
    }
}

fn table(programs: &[Program]) -> Table<5> {
    let mut table = Table::new(["SHA256", "KIND", "SIZE", "UPLOADED", "BY"]);
    for program in programs {
        table.push([
            Cell::new(program.sha256.to_string()),
            Cell::new(program.kind.as_str()),
            Cell::number(memory(program.bytes)),
            Cell::new(instant(program.uploaded_at)),
            Cell::new(program.uploaded_by.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

pub(super) async fn names(grid: &Client, format: Format) -> Result<(), Failure> {
    let names = patiently(async || grid.program_names().await).await?;
    match format {
        Format::Json => return print_json(&names),
        Format::Quiet => return names.names.iter().try_for_each(|program| print_line(program.name.as_str())),
        Format::Table => (),
    }
    let mut table = Table::new(["PROGRAM", "WORKERS", "DESCRIPTION"]);
    for program in &names.names {
        let workers = Cell::number(program.workers);
        table.push([Cell::new(program.name.as_str()), workers, Cell::new(&program.description)]);
    }
    table.push([Cell::new("(uploaded WebAssembly)"), Cell::number(names.wasm_workers), Cell::new("")]);
    table.push([Cell::new("(uploaded executables)"), Cell::number(names.native_workers), Cell::new("")]);
    print_table(&table)
}
