//! The process: signals that ask it to stop, its limit of open files, its exit code.

use std::pin::Pin;
use std::process::ExitCode;
use std::{fs, io, thread};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::telemetry;

/// The number of SIGHUP, the same on every Linux.
const SIGHUP: u32 = 1;

/// Catches SIGTERM, SIGINT and the hang-up of the terminal from this call on; the answer resolves at the first of them. A write
/// beyond the limit of file lengths (`ulimit -f`) fails from then on, as on a full disk: its signal, SIGXFSZ, would end the process
/// without a word.
///
/// # Errors
/// The system refuses the handlers.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hang_up = hang_up()?;
    // The handler stays; a program that is executed from here has the default action again.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
            () = hang_up => (),
        }
    })
}

/// Resolves when the terminal hangs up (SIGHUP). A program that was started with SIGHUP ignored, as by `nohup`, goes on ignoring
/// it.
///
/// # Errors
/// The system refuses the handler.
pub fn hang_up() -> io::Result<impl Future<Output = ()>> {
    let mut hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        match &mut hang_up {
            Some(hang_up) => drop(hang_up.recv().await),
            None => std::future::pending().await,
        }
    })
}

/// Runs `build` on a thread of its own, since it may block for long, as while a database cannot be reached. `None` if `stop`
/// resolves first; the thread then ends with the process.
///
/// # Errors
/// No thread can be started, or `build` has panicked.
pub async fn build_until<T: Send + 'static>(
    stop: Pin<&mut impl Future<Output = ()>>,
    build: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<Option<T>> {
    let ((sender, built), runtime) = (oneshot::channel(), Handle::current());
    let building = move || {
        let _entered = runtime.enter();
        // The receiver is gone if the process stops.
        let _ = sender.send(build());
    };
    thread::Builder::new().name("start".to_owned()).spawn(building).context("start a thread")?;
    tokio::select! {
        built = built => built.map(Some).context("the start has panicked"),
        () = stop => Ok(None),
    }
}

/// Whether this process was started with SIGHUP ignored, by the mask of its status (proc(5)).
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
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
