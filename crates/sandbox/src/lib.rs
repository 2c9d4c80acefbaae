//! Runs user programs as tasks: WASI modules and components, uploaded executables, and commands that an operator has
//! named. Each runs within limits and leaves nothing behind.
//!
//! - [`Sandbox::run`] takes a [`LocalProgram`] and a [`Call`] on the caller's thread and returns [`Finished`] or a
//!   [`FailedCall`].
//! - The host's `main` calls [`run_child_if_asked`] first: supervisors and compilers are the host's own binary.
//! - [`Capabilities`] says what the kernel contains; what it cannot contain is refused, by name.
//!
//! # What holds
//!
//! - A WASI program sees its arguments, its environment and its three streams. It is compiled in a child process with
//!   limits, and only what such a child made is ever loaded.
//! - A native program runs below a supervisor process that ends it with all its descendants, also when the host is
//!   killed. An uploaded one reads system libraries and its scratch directory, and has no network.
//! - Linux only.

mod capabilities;
mod entry;
mod failure;
mod hash;
mod native;
mod output;
mod program;
mod sandbox;
mod scratch;
mod tail;
#[cfg(feature = "wasm")]
mod wasm;

pub use capabilities::{Capabilities, Missing};
pub use entry::run_child_if_asked;
pub use failure::{Blame, FailedCall, Finished, Reason, Usage};
pub use hash::{NotAHash, ProgramHash};
pub use native::check_executable;
pub use output::Spool;
pub use program::{Call, Input, Limits, LocalProgram, NamedCommand, STDERR_TAIL_BYTES, Source};
pub use sandbox::{CompileLimits, Config, OpenError, Sandbox};
#[cfg(feature = "wasm")]
pub use wasm::{Import, Inspection, Kind, inspect};
