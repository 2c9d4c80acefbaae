//! The `divvy-worker` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use worker::config::Config;
use worker::startup::Worker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    let stop = service::shutdown_signal()?;
    Worker::build(Config::from_env()?)?.run(stop).await
}
