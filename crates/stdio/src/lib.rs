//! Standard output, unless it was closed when the process began.
//!
//! Before `main`, Rust's runtime opens `/dev/null` in the place of a closed descriptor 0, 1 or 2, so that no file takes it. What
//! is printed then disappears without an error. Whether stdout was closed can be seen only before that: by a function of the ELF
//! section `.init_array`, which the C library calls first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The stdout of this process.
///
/// # Errors
/// It was closed when the process began, as by `>&-` of a shell: nothing that is printed would arrive.
pub fn stdout() -> io::Result<io::Stdout> {
    if WAS_CLOSED.load(Ordering::Relaxed) { Err(io::Error::other("it is closed")) } else { Ok(io::stdout()) }
}

#[cfg(target_os = "linux")]
mod before_main {
    #![expect(unsafe_code, reason = "the section is the C library's interface, and so is the system call")]

    use std::sync::atomic::Ordering;

    use super::WAS_CLOSED;

    // The C library calls the functions of this section with the arguments of `main`, which this one leaves alone.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: F_GETFD takes any number for a descriptor, and reads nothing but its flags.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
    }
}
