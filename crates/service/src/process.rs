//! The process: signals that ask it to stop, its limit of open files, its exit code.

use std::io;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry;

/// Catches SIGTERM and SIGINT from this call on; the answer resolves at the first of them.
///
/// # Errors
/// The system refuses the handlers.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}

/// Lets the process open as many files as the system allows it: the usual limit of 1024 is below what two listeners may
/// hold in connections.
pub fn raise_open_files_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// 0, or 1 with the error in one line on stderr, in the format of the logs.
pub fn exit_code(result: &anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::report_fatal(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
