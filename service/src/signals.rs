//! Signals that ask the process to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

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
