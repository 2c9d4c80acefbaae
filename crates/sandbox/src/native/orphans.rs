//! The end of programs whose supervisor was killed: they are found by what they were started with.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::tree;

/// Processes that fork while they are killed need another pass each time.
const KILL_PASSES: usize = 1000;

/// Kills all processes that a dead supervisor has left: those of its session, and those that have left the session but
/// work in the scratch directory or were started with it in their environment, as programs are.
pub(crate) fn kill_left(session: i32, scratch: &Path) {
    kill_all(|process| {
        tree::is_in_session(process, session) || works_in(process, scratch) || has_in_environment(process, scratch)
    });
}

/// Kills all programs whose scratch directories are below `directory`. Another process that works there, such as an
/// operator's shell, stays.
pub(crate) fn kill_programs_of(directory: &Path) {
    kill_all(|process| has_in_environment(process, directory));
}

fn kill_all(is_left: impl Fn(i32) -> bool) {
    for _ in 0..KILL_PASSES {
        let left: Vec<_> = tree::numbers_in("/proc").filter(|process| is_left(*process)).collect();
        if left.is_empty() {
            return;
        }
        for process in left {
            let Some(pid) = Pid::from_raw(process) else { continue };
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if is_left(process) {
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
        }
    }
}

/// A zombie has no directory.
fn works_in(process: i32, scratch: &Path) -> bool {
    fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|path| path.starts_with(scratch))
}

/// A zombie has no environment.
fn has_in_environment(process: i32, scratch: &Path) -> bool {
    let names_it = |variable: &[u8]| {
        let path = variable.strip_prefix(b"TMPDIR=").or_else(|| variable.strip_prefix(b"HOME="));
        path.is_some_and(|path| Path::new(OsStr::from_bytes(path)).starts_with(scratch))
    };
    fs::read(format!("/proc/{process}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(names_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_directory_are_killed_and_other_processes_in_it_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = directory.path().canonicalize().expect("there").join("run-1");
        fs::create_dir_all(run.join("task-0")).expect("made");
        let start = |directory: &Path, home: &Path| {
            let mut command = std::process::Command::new("sleep");
            command
                .arg("600")
                .current_dir(directory)
                .env("HOME", home)
                .env_remove("TMPDIR")
                .spawn()
                .expect("sleep runs")
        };
        let mut program = start(Path::new("/"), &run.join("task-0"));
        let mut shell = start(&run, Path::new("/"));
        let mut next = start(Path::new("/"), &run.with_file_name("run-10").join("task-0"));
        kill_programs_of(&run);
        program.wait().expect("it ended");
        for other in [&mut shell, &mut next] {
            assert_eq!(other.try_wait().expect("asked"), None);
            other.kill().expect("killed");
            other.wait().expect("it ended");
        }
    }
}
