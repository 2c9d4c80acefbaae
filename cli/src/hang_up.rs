//! The end of the terminal.

use std::{fs, io};

use tokio::signal::unix::{SignalKind, signal};

/// The number of SIGHUP, the same on every Linux.
const SIGHUP: u32 = 1;

/// Resolves when the terminal hangs up. A program that was started to outlive its terminal, by `nohup`, ignores that.
///
/// # Errors
/// The system refuses the handler.
pub(crate) fn hang_up() -> io::Result<impl Future<Output = ()>> {
    let mut hang_up = if is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        match &mut hang_up {
            Some(hang_up) => drop(hang_up.recv().await),
            None => std::future::pending().await,
        }
    })
}

/// Resolves at the first SIGINT, SIGTERM or hang-up.
///
/// # Errors
/// The system refuses a handler.
pub(crate) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (stop, hang_up) = (service::shutdown_signal()?, hang_up()?);
    Ok(async move {
        tokio::select! {
            () = stop => (),
            () = hang_up => (),
        }
    })
}

/// Whether this process was started with SIGHUP ignored, by the mask of its status (proc(5)).
fn is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
