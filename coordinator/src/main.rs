//! The `divvy-coordinator` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use std::process::ExitCode;

use coordinator::config::Config;
use coordinator::startup::Coordinator;

// One thread: dispatch is a chain of small steps, and handing them from thread to thread costs more than they do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::exit_code(&run().await)
}

async fn run() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::raise_open_files_limit();
    let stop = service::shutdown_signal()?;
    Coordinator::build(Config::from_env()?)?.run(stop).await
}
