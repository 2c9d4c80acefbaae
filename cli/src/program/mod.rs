//! `divvy program`.

mod check;
mod list;
mod put;
mod run;

use crate::arguments::{Program, ProgramCommand};
use crate::failure::Failure;
use crate::patience::patiently;

pub(crate) async fn run(arguments: &Program) -> Result<(), Failure> {
    let format = arguments.grid.output;
    let grid = || arguments.grid.place.client();
    match &arguments.command {
        ProgramCommand::Put(put) => put::run(&grid()?, format, put).await,
        ProgramCommand::List => list::programs(&grid()?, format).await,
        ProgramCommand::Names => list::names(&grid()?, format).await,
        ProgramCommand::Show(one) => list::show(&grid()?, format, one.program).await,
        ProgramCommand::Delete(one) => {
            let grid = grid()?;
            Ok(patiently(async || grid.delete_program(one.program).await).await?)
        }
        ProgramCommand::Check(check) => check::run(check),
        // On a thread that drives no asynchronous tasks, as a worker's slots are.
        ProgramCommand::Run(run) => {
            let running = std::thread::scope(|scope| scope.spawn(|| run::run(run)).join());
            running.unwrap_or_else(|_| Err(Failure::Failed("the sandbox panicked".to_owned())))
        }
    }
}
