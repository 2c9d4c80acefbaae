//! `divvy up`.

use std::net::SocketAddr;

use anyhow::Context;

use divvy::embedded::EmbeddedGrid;

use crate::arguments::{Up, worker_count};
use crate::failure::Failure;
use crate::print::print_line;
use crate::python_workers::PythonWorkers;

/// Serves a grid until Ctrl-C or SIGTERM.
pub(crate) async fn run(arguments: &Up) -> Result<(), Failure> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::raise_open_files_limit();
    let stop = service::shutdown_signal().context("catch signals")?;
    let public_addr = SocketAddr::new(arguments.host, arguments.port);
    let mut grid = EmbeddedGrid::start(public_addr, worker_count(arguments.workers), arguments.data_dir.clone())?;
    let mut python_workers = PythonWorkers::start(arguments.python_workers, &grid.internal_url()?)?;
    print_line(grid.url()?.as_str().trim_end_matches('/'))?;
    tokio::select! {
        () = stop => (),
        error = grid.failed() => return Err(error.into()),
        error = python_workers.failed() => return Err(error.into()),
    }
    let second = service::shutdown_signal().context("catch signals")?;
    let stopped = async {
        python_workers.stop().await?;
        grid.stop().await
    };
    tokio::select! {
        stopped = stopped => Ok(stopped?),
        () = second => Err(Failure::Failed("stopped at once: what was in flight is lost".to_owned())),
    }
}
