//! `divvy up`.

use std::net::SocketAddr;

use anyhow::Context;

use divvy::embedded::{EmbeddedGrid, Ports, Shape};
use service::warn_about_unknown_variables;

use url::Url;

use crate::arguments::{Up, worker_count};
use crate::failure::Failure;
use crate::hang_up::stop_signal;
use crate::print::{print_line, tell};
use crate::python_workers::PythonWorkers;

/// Serves a grid until Ctrl-C, SIGTERM or the end of its terminal.
pub(crate) async fn run(arguments: &Up) -> Result<(), Failure> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::trace::start("divvy", env!("CARGO_PKG_VERSION"));
    let ended = serve(arguments).await;
    service::trace::stop().await;
    ended
}

async fn serve(arguments: &Up) -> Result<(), Failure> {
    service::raise_open_files_limit();
    warn_about_unknown_variables(&[&coordinator::config::variables(), &worker::config::variables()]);
    let stop = stop_signal().context("catch signals")?;
    let (public_addr, data_dir) = (SocketAddr::new(arguments.host, arguments.port), arguments.data_dir());
    let kept = match &data_dir {
        _ if arguments.store_url.is_some() => "jobs are kept in the database".to_owned(),
        Some(directory) => format!("jobs and results are kept in {}", directory.display()),
        None => "jobs and results end with this grid: --data-dir DIRECTORY keeps them".to_owned(),
    };
    let ports = Ports { public: public_addr, internal: arguments.internal_port };
    let shape = Shape {
        coordinators: arguments.coordinators,
        workers: worker_count(arguments.workers),
        data_dir,
        store_url: arguments.store_url.clone(),
    };
    let mut grid = EmbeddedGrid::start(ports, shape)?;
    let internal_urls = grid.internal_urls().join(" ");
    let first = internal_urls.split(' ').next().unwrap_or_default();
    let internal_url = Url::parse(first).context("the grid's internal URL")?;
    let mut python_workers = PythonWorkers::start(arguments.python_workers, &internal_url)?;
    tell(&format!("workers of your own: {internal_urls}"));
    tell(&kept);
    for url in grid.urls()? {
        print_line(url.as_str().trim_end_matches('/'))?;
    }
    tokio::select! {
        () = stop => (),
        error = grid.failed() => return Err(error.into()),
        error = python_workers.failed() => return Err(error.into()),
    }
    let second = stop_signal().context("catch signals")?;
    let stopped = async {
        python_workers.stop().await?;
        grid.stop().await
    };
    tokio::select! {
        stopped = stopped => Ok(stopped?),
        () = second => Err(Failure::Failed("stopped at once: what was in flight is lost".to_owned())),
    }
}
