//! The `divvy-coordinator` binary: configuration from the environment, logs on stderr, SIGTERM drains.

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::pin::pin;
use std::process::ExitCode;

use coordinator::config::{self, Config};
use coordinator::front;
use coordinator::migrate;
use coordinator::succession;
use service::CommandLine;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let (command_line, start, rest): (CommandLine, fn() -> ExitCode, &[String]) = match arguments.split_first() {
        Some((command, rest)) if command == "migrate" => return move_store(rest),
        Some((command, rest)) if command == "front" => (front::command_line(), stand_before, rest),
        _ => (command_line(), serve, &arguments),
    };
    command_line.answer(rest.iter().map(OsString::from)).unwrap_or_else(start)
}

fn command_line() -> CommandLine {
    CommandLine {
        name: "divvy-coordinator",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes jobs over HTTP and divides them over divvy workers. `divvy-coordinator migrate` moves its store, \
            `divvy-coordinator front` keeps clients while the one coordinator of a grid is restarted.",
        commands: &["front [--help | --version | --check-config]", "migrate [--help | --from STORE --to STORE …]"],
        variables: config::variables(),
        check: || Config::without_files().map(drop),
    }
}

// One thread: dispatch is a chain of small steps, and passing them between threads costs more than the steps.
#[tokio::main(flavor = "current_thread")]
async fn serve() -> ExitCode {
    service::exit_code(&run().await)
}

fn move_store(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        tell(&mut stdout(), migrate::USAGE);
        return ExitCode::SUCCESS;
    }
    match migrate::migrate(arguments) {
        Ok(moved) => {
            tell(&mut stdout(), &moved);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&mut stderr(), &format!("error: {error:#}\n"));
            if error.is::<migrate::WrongUsage>() { ExitCode::from(service::WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn stand_before() -> ExitCode {
    let standing = async {
        service::init_logs(service::DEFAULT_LOG)?;
        service::raise_open_files_limit();
        front::run(service::shutdown_signal()?).await
    };
    service::exit_code(&standing.await)
}

/// Writes text for people. A closed pipe is no error: the exit code tells the result.
fn tell(place: &mut impl Write, text: &str) {
    let _ = place.write_all(text.as_bytes()).and_then(|()| place.flush());
}

async fn run() -> anyhow::Result<()> {
    service::init_logs(service::DEFAULT_LOG)?;
    service::trace::start("divvy-coordinator", env!("CARGO_PKG_VERSION"));
    let ended = coordinate().await;
    service::trace::stop().await;
    ended
}

async fn coordinate() -> anyhow::Result<()> {
    service::warn_about_unknown_variables(&[&config::variables()]);
    service::raise_open_files_limit();
    let mut stop = pin!(service::shutdown_signal()?);
    match succession::build_after_predecessor(Config::from_env()?, stop.as_mut()).await? {
        Some(coordinator) => coordinator.run(stop).await,
        None => Ok(()),
    }
}
