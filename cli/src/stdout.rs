//! Whether stdout can be written to.
//!
//! Before `main` the standard library opens `/dev/null` in the place of a closed stdout, and it takes a write to a descriptor that
//! is open for reading only for a success: either way a command would lose its output and succeed. So the loader has this module
//! look at the descriptor as the process was given it.

#![expect(unsafe_code, reason = "only a function in the loader's list runs before the standard library opens anything")]

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl};

static IS_WRITABLE: AtomicBool = AtomicBool::new(true);

// SAFETY: the section is a list of functions in the C calling convention, which the loader calls one by one before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look;

/// Makes one system call, which a closed descriptor only fails, and uses nothing that needs the standard library's start.
extern "C" fn look() {
    let flags = fcntl_getfl(rustix::stdio::stdout());
    let is_writable = flags.is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
    IS_WRITABLE.store(is_writable, Ordering::Relaxed);
}

/// Whether this process was started with a stdout that can be written to.
pub(crate) fn is_writable() -> bool {
    IS_WRITABLE.load(Ordering::Relaxed)
}
