//! The `divvy-coordinator` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use std::pin::pin;
use std::process::ExitCode;

use coordinator::config::{self, Config};
use coordinator::succession;
use service::Program;

// One thread: dispatch is a chain of small steps, and handing them from thread to thread costs more than they do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let program = Program {
        name: "divvy-coordinator",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes jobs over HTTP and divides them over divvy workers.",
        variables: config::variables(),
    };
    match program.answer(std::env::args_os().skip(1)) {
        Some(answered) => answered,
        None => service::exit_code(&run().await),
    }
}

async fn run() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::warn_about_unknown_variables(&[&config::variables()]);
    service::raise_open_files_limit();
    let mut stop = pin!(service::shutdown_signal()?);
    match succession::build_after_predecessor(Config::from_env()?, stop.as_mut()).await? {
        Some(coordinator) => coordinator.run(stop).await,
        None => Ok(()),
    }
}
