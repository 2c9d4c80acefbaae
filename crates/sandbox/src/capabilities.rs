//! Abilities of the kernel to contain native programs.

use std::fmt;
use std::path::Path;

use crate::native::{has_seccomp_filters, landlock_abi};

/// The abilities that the kernel and the container give this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Version of Landlock's interface; 0 where there is none. From 1 on files are contained, from 6 on (Linux 6.12)
    /// signals, too; below that a program may signal only itself and its process group.
    pub landlock_abi: u32,
    /// Filters of system calls.
    pub seccomp: bool,
    /// `/proc` lists the children of each process, which every watch over a native or named program needs.
    pub process_tree: bool,
}

/// Something that native programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// Linux 5.13 or later with Landlock turned on.
    Landlock,
    /// Filters of system calls.
    Seccomp,
    /// `/proc/PID/task/TID/children`.
    ProcessTree,
    /// Rules and a list of system calls for this processor.
    Architecture,
}

impl Capabilities {
    /// Asks the kernel.
    pub fn probe() -> Self {
        Self {
            landlock_abi: landlock_abi(),
            seccomp: has_seccomp_filters(),
            process_tree: Path::new("/proc/thread-self/children").exists(),
        }
    }

    /// The missing abilities for uploaded executables; empty when they can be contained.
    pub fn missing_for_native(&self) -> Vec<Missing> {
        let mut missing = self.missing_for_named();
        if self.landlock_abi == 0 {
            missing.push(Missing::Landlock);
        }
        if !self.seccomp {
            missing.push(Missing::Seccomp);
        }
        if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            missing.push(Missing::Architecture);
        }
        missing
    }

    /// The missing abilities for named commands.
    pub fn missing_for_named(&self) -> Vec<Missing> {
        if self.process_tree { Vec::new() } else { vec![Missing::ProcessTree] }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Landlock => "Landlock (Linux 5.13 or later, and `landlock` among the kernel's security modules)",
            Self::Seccomp => "seccomp filters",
            Self::ProcessTree => "/proc with lists of children (CONFIG_PROC_CHILDREN)",
            Self::Architecture => "a list of system calls for this processor",
        })
    }
}
