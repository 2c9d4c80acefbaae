//! The `divvy-coordinator` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use coordinator::config::Config;
use coordinator::startup::Coordinator;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    let stop = service::shutdown_signal()?;
    Coordinator::build(Config::from_env()?)?.run(stop).await
}
