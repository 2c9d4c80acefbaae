//! The host's own binary as a child: supervisors and compilers are started from it, with a private first argument.

use std::env;

/// First argument of a supervisor.
pub(crate) const SUPERVISE: &str = "--sandbox-supervise";
/// First argument of a compiler.
#[cfg(feature = "wasm")]
pub(crate) const COMPILE: &str = "--sandbox-compile";

/// Has the process be a child of the sandbox if it was started as one, and then never returns.
///
/// A host calls this first in `main`, before it starts threads, opens files or reads its arguments:
/// [`crate::Config::helper`] is the host's own binary unless told otherwise.
pub fn run_child_if_asked() {
    let Some(word) = env::args_os().nth(1) else { return };
    if word == SUPERVISE {
        std::process::exit(crate::native::supervisor::main());
    }
    #[cfg(feature = "wasm")]
    if word == COMPILE {
        std::process::exit(crate::wasm::compile_on_standard_streams());
    }
}
