//! The `divvy-worker` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use std::process::ExitCode;

use service::CommandLine;
use worker::config::{self, Config};
use worker::startup::Worker;

fn main() -> ExitCode {
    worker::run_child_if_asked();
    serve()
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> ExitCode {
    let command_line = CommandLine {
        name: "divvy-worker",
        version: env!("CARGO_PKG_VERSION"),
        about: "Computes the leases that a divvy coordinator gives it.",
        commands: &[],
        variables: config::variables(),
        check: || Config::without_files().map(drop),
    };
    match command_line.answer(std::env::args_os().skip(1)) {
        Some(answered) => answered,
        None => service::exit_code(&run().await),
    }
}

async fn run() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::trace::start("divvy-worker", env!("CARGO_PKG_VERSION"));
    let ended = work().await;
    service::trace::stop().await;
    ended
}

async fn work() -> anyhow::Result<()> {
    service::warn_about_unknown_variables(&[&config::variables()]);
    service::raise_open_files_limit();
    let stop = service::shutdown_signal()?;
    Worker::build(Config::from_env()?)?.run(stop).await
}
