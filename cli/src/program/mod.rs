//! `divvy program`.

mod check;
mod list;
mod put;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use api::client::{Client, Error};
use model::ProgramHash;

use crate::arguments::{Program, ProgramCommand};
use crate::failure::{Failure, INTERRUPTED};
use crate::patience::patiently;
use crate::source::read_bytes;

/// The status of a request for a program that is not stored.
const NOT_FOUND: u16 = 404;

pub(crate) async fn run(arguments: &Program) -> Result<(), Failure> {
    let format = arguments.grid.output;
    let grid = || arguments.grid.url.client();
    match &arguments.command {
        ProgramCommand::Put(put) => put::run(&grid()?, format, put).await,
        ProgramCommand::List => list::programs(&grid()?, format).await,
        ProgramCommand::Names => list::names(&grid()?, format).await,
        ProgramCommand::Show(one) => list::show(&grid()?, format, one.program).await,
        ProgramCommand::Delete(one) => delete(&grid()?, one.program).await,
        ProgramCommand::Check(check) => {
            let bytes = read_bytes(&check.file)?;
            until_stopped(|stop| check::run(check, format, bytes, stop))
        }
        ProgramCommand::Run(run) => {
            let bytes = read_bytes(&run.file)?;
            until_stopped(|stop| run::run(run, bytes, stop))
        }
    }
}

/// Deletes a program. If a repeated request finds no program, an earlier one has deleted it and its answer was lost.
async fn delete(grid: &Client, program: ProgramHash) -> Result<(), Failure> {
    let may_be_deleted = AtomicBool::new(false);
    let ask = async || match grid.delete_program(program).await {
        Err(Error::Refused { status, .. })
            if status.as_u16() == NOT_FOUND && may_be_deleted.load(Ordering::Relaxed) =>
        {
            Ok(())
        }
        answer => {
            if answer.as_ref().is_err_and(is_without_outcome) {
                may_be_deleted.store(true, Ordering::Relaxed);
            }
            answer
        }
    };
    Ok(patiently(ask).await?)
}

/// Whether the request may have had its effect although its client did not learn of it.
fn is_without_outcome(error: &Error) -> bool {
    match error {
        Error::Unreachable { source, .. } => !source.is_connect(),
        // A proxy answers so, and a coordinator whose store or leader is away.
        Error::Refused { status, .. } => [502, 503, 504].contains(&status.as_u16()),
        Error::Start(_) | Error::NoResult { .. } | Error::Answer { .. } => false,
    }
}

/// Does `work` on a thread that drives no asynchronous tasks, as a worker's slots are. The first signal to stop sets its flag, so that
/// it removes its directory; the second ends the process.
fn until_stopped(work: impl FnOnce(&AtomicBool) -> Result<(), Failure> + Send) -> Result<(), Failure> {
    let first = service::shutdown_signal().context("catch signals")?;
    let stop = Arc::new(AtomicBool::new(false));
    let telling = tokio::spawn(tell(first, Arc::clone(&stop)));
    let worked = thread::scope(|scope| scope.spawn(|| work(&stop)).join());
    telling.abort();
    match worked {
        Ok(Err(_)) if stop.load(Ordering::Relaxed) => Err(Failure::Quiet(INTERRUPTED)),
        Ok(worked) => worked,
        Err(_) => Err(Failure::Failed("the sandbox panicked".to_owned())),
    }
}

/// Sets `stop` at the first signal and ends the process at the second.
pub(crate) async fn tell(first: impl Future<Output = ()>, stop: Arc<AtomicBool>) {
    first.await;
    stop.store(true, Ordering::Relaxed);
    if let Ok(second) = service::shutdown_signal() {
        second.await;
        std::process::exit(INTERRUPTED.into());
    }
}
