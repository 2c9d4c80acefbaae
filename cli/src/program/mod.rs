//! `divvy program`.

mod check;
mod list;
mod put;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;

use crate::arguments::{Program, ProgramCommand};
use crate::failure::{Failure, INTERRUPTED};
use crate::patience::patiently;

pub(crate) async fn run(arguments: &Program) -> Result<(), Failure> {
    let format = arguments.grid.output;
    let grid = || arguments.grid.url.client();
    match &arguments.command {
        ProgramCommand::Put(put) => put::run(&grid()?, format, put).await,
        ProgramCommand::List => list::programs(&grid()?, format).await,
        ProgramCommand::Names => list::names(&grid()?, format).await,
        ProgramCommand::Show(one) => list::show(&grid()?, format, one.program).await,
        ProgramCommand::Delete(one) => {
            let grid = grid()?;
            Ok(patiently(async || grid.delete_program(one.program).await).await?)
        }
        ProgramCommand::Check(check) => {
            let bytes = put::read(&check.file)?;
            until_stopped(|stop| check::run(check, bytes, stop))
        }
        ProgramCommand::Run(run) => {
            let bytes = put::read(&run.file)?;
            until_stopped(|stop| run::run(run, bytes, stop))
        }
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
async fn tell(first: impl Future<Output = ()>, stop: Arc<AtomicBool>) {
    first.await;
    stop.store(true, Ordering::Relaxed);
    if let Ok(second) = service::shutdown_signal() {
        second.await;
        std::process::exit(INTERRUPTED.into());
    }
}
