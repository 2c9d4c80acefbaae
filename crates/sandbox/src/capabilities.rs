//! Abilities of the kernel to run and contain native programs.

use std::fmt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

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
    /// Files in the sandbox's directory can be executed: its file system is not mounted `noexec`.
    pub executable_files: bool,
}

/// A property of the machine that native programs need.
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
    /// A directory whose file system is not mounted `noexec`.
    ExecutableFiles,
}

impl Capabilities {
    /// Asks the kernel, also about the directory that has the executables.
    pub(crate) fn probe(directory: &Path) -> Self {
        Self {
            landlock_abi: landlock_abi(),
            seccomp: has_seccomp_filters(),
            process_tree: Path::new("/proc/thread-self/children").exists(),
            // Where it does not say, running one tells.
            executable_files: statvfs(directory).map_or(true, |stat| !stat.f_flag.contains(StatVfsMountFlags::NOEXEC)),
        }
    }

    /// The missing abilities for uploaded executables; empty when they can be contained.
    pub fn missing_for_native(&self) -> Vec<Missing> {
        let mut missing = self.missing_for_cage();
        if !self.executable_files {
            missing.push(Missing::ExecutableFiles);
        }
        missing
    }

    /// The missing abilities to contain a process.
    pub(crate) fn missing_for_cage(&self) -> Vec<Missing> {
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
            Self::ExecutableFiles => "a directory for programs whose file system is not mounted `noexec`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_executes_no_files_refuses_native_programs_and_keeps_the_cage() {
        let temporary = tempfile::tempdir().expect("a directory");
        let found = Capabilities::probe(temporary.path());
        let without = Capabilities { executable_files: false, ..found };
        assert_eq!(without.missing_for_native().last(), Some(&Missing::ExecutableFiles));
        assert_eq!(without.missing_for_cage(), found.missing_for_cage());
        assert_eq!(without.missing_for_named(), found.missing_for_named());
        let with = Capabilities { executable_files: true, ..found };
        assert_eq!(with.missing_for_native(), found.missing_for_cage());
    }
}
