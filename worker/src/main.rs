//! The `divvy-worker` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use std::process::ExitCode;

use worker::config::Config;
use worker::startup::Worker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::exit_code(&run().await)
}

async fn run() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::raise_open_files_limit();
    let stop = service::shutdown_signal()?;
    Worker::build(Config::from_env()?)?.run(stop).await
}
