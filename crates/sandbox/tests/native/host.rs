use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Config, Sandbox};

use crate::helpers::{SLACK, TEST_HOST, hostile_path, in_time, processes_marked, scratch_directories, wait_until};

/// A process that runs a program for the test, and is killed.
fn start_host(directory: &Path, native: bool, args: &[&str]) -> Child {
    let path = hostile_path();
    let mut all = if native { Vec::new() } else { vec![path.to_str().expect("UTF-8")] };
    all.extend(args);
    let scenario = serde_json::json!({
        "directory": directory, "native": native.then_some(path), "args": all, "newest_landlock_abi": null,
    });
    Command::new(TEST_HOST).arg(scenario.to_string()).stdout(Stdio::piped()).spawn().expect("the host runs")
}

#[test]
fn a_killed_hosts_programs_and_files_are_gone_within_a_second() {
    for (native, mode) in [(true, "orphan"), (true, "loop"), (false, "orphan in a session"), (false, "ignore SIGTERM")]
    {
        in_time(SLACK, || ((), time_from_kill_to_end(native, mode)));
    }
}

fn time_from_kill_to_end(native: bool, mode: &str) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let sandbox = directory.path().join("sandbox");
    let marker = format!("killed-host-{}-{native}-{}", std::process::id(), mode.len());
    let mut host = start_host(&sandbox, native, &[mode, "1", &marker]);
    let processes = if mode.starts_with("orphan") { 2 } else { 1 };
    wait_until("the program", || processes_marked(&marker).len() == processes);
    assert_eq!(scratch_directories(&sandbox).len(), 1);
    host.kill().expect("killed");
    let killed_at = Instant::now();
    host.wait().expect("it ended");
    wait_until("the end of its programs", || processes_marked(&marker).is_empty());
    wait_until("the removal of their files", || scratch_directories(&sandbox).is_empty());
    let took = killed_at.elapsed();
    // The next host removes the remains that only a host can remove.
    drop(Sandbox::open(Config::new(&sandbox, 1)).expect("a sandbox"));
    assert_eq!(std::fs::read_dir(sandbox.join("scratch")).expect("read").count(), 0);
    took
}

#[test]
fn a_killed_supervisors_program_ends_with_all_that_it_started() {
    // A named command's grandchild is in another session than its supervisor.
    for (native, mode) in [(true, "orphan"), (false, "orphan in a session")] {
        let directory = tempfile::tempdir().expect("a directory");
        let marker = format!("killed-supervisor-{native}-{}", std::process::id());
        let mut host = start_host(&directory.path().join("sandbox"), native, &[mode, "1", &marker]);
        let mut line = String::new();
        BufReader::new(host.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
        wait_until("the end of the child between", || processes_marked(&marker).len() == 2);
        let own = i32::try_from(host.id()).expect("a pid");
        let supervisor = children(own).into_iter().next().expect("a supervisor");
        kill_process(Pid::from_raw(supervisor).expect("a pid"), Signal::KILL).expect("killed");
        assert!(!host.wait().expect("it ended").success());
        wait_until("the end of the program", || processes_marked(&marker).is_empty());
        assert_eq!(scratch_directories(&directory.path().join("sandbox")).len(), 0);
    }
}

#[test]
fn what_a_host_leaves_that_is_killed_with_its_supervisor_ends_when_the_next_one_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let sandbox = directory.path().join("sandbox");
    let marker = format!("killed-both-{}", std::process::id());
    let mut host = start_host(&sandbox, false, &["orphan in a session", "1", &marker]);
    let mut line = String::new();
    BufReader::new(host.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    wait_until("the end of the child between", || processes_marked(&marker).len() == 2);
    let own = i32::try_from(host.id()).expect("a pid");
    let supervisor = children(own).into_iter().next().expect("a supervisor");
    // A stopped host does nothing about the end of its supervisor.
    for (process, signal) in [(own, Signal::STOP), (supervisor, Signal::KILL), (own, Signal::KILL)] {
        kill_process(Pid::from_raw(process).expect("a pid"), signal).expect("signaled");
    }
    host.wait().expect("it ended");
    wait_until("the end of the program itself", || processes_marked(&marker).len() == 1);
    drop(Sandbox::open(Config::new(&sandbox, 1)).expect("a sandbox"));
    wait_until("the end of its orphan", || processes_marked(&marker).is_empty());
    assert_eq!(std::fs::read_dir(sandbox.join("scratch")).expect("read").count(), 0);
}

fn children(process: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let lists: Vec<_> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}

#[test]
fn a_second_host_leaves_the_files_of_the_first_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let marker = format!("two-hosts-{}", std::process::id());
    let mut host = start_host(&directory.path().join("sandbox"), true, &["loop", &marker]);
    wait_until("the program", || !processes_marked(&marker).is_empty());
    drop(Sandbox::open(Config::new(directory.path().join("sandbox"), 1)).expect("a sandbox"));
    assert_eq!(scratch_directories(&directory.path().join("sandbox")).len(), 1);
    host.kill().expect("killed");
    host.wait().expect("it ended");
    wait_until("the end of its program", || processes_marked(&marker).is_empty());
}

#[test]
fn a_program_that_gets_no_disk_space_is_not_to_blame() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = format!("mount -t tmpfs -o size=1m none {}", directory.path().display());
    let error_of = |script: &str| {
        let scenario = serde_json::json!({
            "directory": directory.path().join("sandbox"), "native": null, "args": ["sh", "-c", script],
            "newest_landlock_abi": null,
        });
        let run = format!("{mount} && exec \"$0\" \"$1\"");
        let mut host = Command::new("unshare");
        host.args(["--mount", "sh", "-c", &run, TEST_HOST, &scenario.to_string()]);
        let output = host.output().expect("unshare runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", &mount]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|tried| tried.success()) {
        eprintln!("not run: nothing can be mounted here");
        return;
    }
    let full = error_of("head -c 4000000 /dev/zero > file");
    assert!(full.contains("the disk of its scratch directory is full, and it exited with code 1"), "{full}");
    let its_own = error_of("exit 1");
    assert!(its_own.contains("Exit { code: 1 }"), "{its_own}");
}
