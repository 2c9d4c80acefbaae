//! `divvy up`.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;

use divvy::embedded::{EmbeddedGrid, Ports, Shape};
use service::warn_about_unknown_variables;
use tokio::time::timeout;

use crate::arguments::{Up, worker_count};
use crate::failure::Failure;
use crate::print::{print_line, tell};
use crate::python_workers::PythonWorkers;

/// Longest time that the other parts of a grid may take to end after one has failed.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(30);

/// Warns about variables that neither this command nor a service reads.
pub(crate) fn warn_about_variables() {
    warn_about_unknown_variables(&[&coordinator::config::variables(), &worker::config::variables()]);
}

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
    warn_about_variables();
    let mut stop = pin!(service::shutdown_signal().context("catch signals")?);
    let (public_addr, data_dir) = (SocketAddr::new(arguments.host, arguments.port), arguments.data_dir());
    let kept = match &data_dir {
        _ if arguments.has_database() => "jobs are kept in the database".to_owned(),
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
    PythonWorkers::demand_command(arguments.python_workers)?;
    let started = service::build_until(stop.as_mut(), move || EmbeddedGrid::start(ports, shape)).await?;
    let Some(mut grid) = started.transpose()? else { return Ok(()) };
    let (python_workers, failure) = match begin(arguments, &grid, &kept) {
        Ok(mut python_workers) => {
            let failure = tokio::select! {
                () = stop => None,
                error = grid.failed() => Some(Failure::from(error)),
                error = python_workers.failed() => Some(Failure::from(error)),
            };
            if failure.is_some() {
                tell("stopping: a part of the grid has failed");
            }
            (python_workers, failure)
        }
        // The grid runs already and is to be stopped.
        Err(failure) => (PythonWorkers::default(), Some(failure)),
    };
    let second = service::shutdown_signal().context("catch signals")?;
    let stopped = async {
        python_workers.stop().await?;
        grid.stop().await
    };
    if let Some(error) = failure {
        tokio::select! {
            // A failure of the other parts is less telling than the first one.
            _ = timeout(FAILURE_TIMEOUT, stopped) => (),
            () = second => (),
        }
        return Err(error);
    }
    tokio::select! {
        stopped = stopped => Ok(stopped?),
        () = second => Err(Failure::Failed("stopped at once: what was in flight is lost".to_owned())),
    }
}

/// Starts the Python workers of a grid, and tells where it serves.
fn begin(arguments: &Up, grid: &EmbeddedGrid, kept: &str) -> Result<PythonWorkers, Failure> {
    let internal_urls = grid.internal_urls();
    let python_workers = PythonWorkers::start(arguments.python_workers, &internal_urls)?;
    tell(&format!("workers of your own: {}", internal_urls.join(" ")));
    tell(kept);
    for url in grid.urls()? {
        print_line(url.as_str().trim_end_matches('/'))?;
    }
    Ok(python_workers)
}

#[cfg(test)]
mod tests {
    use service::is_variable_of_a_program;

    #[test]
    fn every_program_knows_the_variables_of_the_others() {
        let front = coordinator::front::command_line().variables;
        let variables = [coordinator::config::variables(), worker::config::variables(), front].concat();
        assert!(variables.len() > 50, "{variables:?}");
        for variable in variables.iter().filter(|variable| variable.name.starts_with("DIVVY_")) {
            let name = &variable.name;
            assert!(
                is_variable_of_a_program(name),
                "{name} is missing in OF_ALL_PROGRAMS of crates/service/src/config.rs"
            );
        }
        assert!(!is_variable_of_a_program("DIVVY_FOO"));
    }
}
