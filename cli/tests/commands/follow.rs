//! Waiting for jobs, their events and their results.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use api::Job;
use model::{EventKind, JobEvent, JobState};
use tempfile::tempdir;

use crate::failures::answer_each;
use crate::helpers::{Grid, assert_fails, divvy, eventually, own_port};

#[test]
fn wait_prints_the_jobs_in_the_order_asked_and_succeeds_with_them() {
    let grid = Grid::start();
    let slow = grid.submit(&["sleep", "--seconds", "0.3"]);
    let fast = grid.submit(&["count-primes", "1", "100"]);
    assert_eq!(grid.stdout(&["job", "wait", &slow, &fast, "--output", "quiet"]), format!("{slow}\n{fast}\n"));
    let lines = grid.stdout(&["job", "wait", &slow, &fast, "--output", "json"]);
    let jobs: Vec<Job> = lines.lines().map(|line| serde_json::from_str(line).expect("a job")).collect();
    assert!(jobs.iter().all(|job| job.state == JobState::Succeeded));
}

#[test]
fn exit_code_of_wait_tells_failure_and_cancellation_apart() {
    let grid = Grid::start();
    let failing = ["sleep", "--seconds", "0", "--fail-rate", "1", "--max-attempts", "1"];
    let failed = grid.run(&[&["job", "submit"], &failing[..], &["--wait"]].concat());
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && stderr.contains(" failed: its only task failed"), "{stderr}");
    assert!(String::from_utf8_lossy(&failed.stdout).contains("failed"), "the job is printed all the same");

    let failed = grid.submit(&failing);
    let canceled = grid.submit(&["sleep", "--seconds", "600"]);
    grid.stdout(&["job", "cancel", &canceled]);
    let line = assert_fails(&grid.run(&["job", "wait", &canceled]), 4);
    assert!(line.contains(&format!("job {canceled} was canceled")), "{line}");
    let line = assert_fails(&grid.run(&["job", "wait", &canceled, &failed]), 1);
    // The failed task that follows is one of this job.
    assert!(line.contains(&format!("2 of 2 jobs did not succeed; job {failed} failed: ")), "{line}");
}

#[test]
fn wait_does_not_wait_for_the_others_of_a_job_that_nobody_knows() {
    let grid = Grid::start();
    let endless = grid.submit(&["sleep", "--seconds", "0", "--require", "gpu=yes"]);
    let unknown = "0190a5b0-0000-7000-8000-000000000001";
    let mut command = grid.command(&["job", "wait", &endless, unknown]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run the command");
    eventually("the wait is over", || process.try_wait().expect("a process"));
    let line = assert_fails(&process.wait_with_output().expect("its output"), 2);
    assert!(line.contains(unknown), "{line}");
}

#[test]
fn result_is_printed_or_written_as_a_whole() {
    let grid = Grid::start();
    let id = grid.submit(&["sum-of-primes", "1", "1e6"]);
    let result = grid.stdout(&["job", "result", &id, "--wait", "30s"]);
    let json: serde_json::Value = serde_json::from_str(&result).expect("JSON");
    // The sum of the primes below 10^6: OEIS A046731(6).
    assert_eq!(json["sum"], "37550402023");

    let folder = tempdir().expect("a folder");
    let path = folder.path().join("result.json");
    fs::write(&path, "old").expect("write a file");
    assert_eq!(grid.stdout(&["job", "result", &id, "--file", path.to_str().expect("UTF-8")]), "");
    assert_eq!(fs::read_to_string(&path).expect("a file").trim_end(), result.trim_end());
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o600, 0o600);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left");
    assert_eq!(grid.stdout(&["job", "result", &id, "--file", "/dev/null"]), "");
    assert!(!fs::metadata("/dev/null").expect("still a device").is_file());

    let nowhere = folder.path().join("no/such/folder");
    let told = assert_fails(&grid.run(&["job", "result", &id, "--file", nowhere.to_str().expect("UTF-8")]), 1);
    let expected = format!("error: cannot write {}: No such file or directory", nowhere.display());
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn result_that_is_not_there_tells_why_by_its_exit_code() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600"]);
    assert_fails(&grid.run(&["job", "result", &id]), 5);
    assert_fails(&grid.run(&["job", "result", &id, "--wait", "50ms"]), 5);
    grid.stdout(&["job", "cancel", &id]);
    assert_fails(&grid.run(&["job", "result", &id, "--wait", "30s"]), 4);
    let failing = grid.submit(&["sleep", "--seconds", "0", "--fail-rate", "1", "--max-attempts", "1"]);
    assert_fails(&grid.run(&["job", "result", &failing, "--wait", "30s"]), 1);
}

#[test]
fn events_of_a_job_end_with_it() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "0.1", "--tasks", "3"]);
    let events = parse(&grid.stdout(&["job", "events", &id, "--follow", "--output", "json"]));
    assert_eq!(events.first().map(|event| event.kind), Some(EventKind::Submitted));
    assert_eq!(events.last().map(|event| event.kind), Some(EventKind::Succeeded));
    let after = events[0].seq.to_string();
    let later = parse(&grid.stdout(&["job", "events", &id, "--after", &after, "--output", "json"]));
    assert_eq!(later, events[1..]);
    let table = grid.stdout(&["job", "events", &id]);
    assert_eq!(table.lines().count(), events.len());
    assert!(table.lines().all(|line| line.contains(&id)), "{table}");
}

#[test]
fn events_without_follow_tell_what_there_is_and_end() {
    let grid = Grid::start();
    let ids = [grid.submit(&["sleep", "--seconds", "600"]), grid.submit(&["count-primes", "1", "10"])];
    grid.stdout(&["job", "wait", &ids[1]]);
    let of_one = parse(&grid.stdout(&["job", "events", &ids[0], "--output", "json"]));
    assert!(of_one.iter().all(|event| event.job.to_string() == ids[0]));
    let of_all = parse(&grid.stdout(&["job", "events", "--output", "json"]));
    for id in &ids {
        assert!(of_all.iter().any(|event| event.job.to_string() == *id), "{id}");
    }
}

#[test]
fn a_place_beyond_the_end_is_warned_about_and_the_events_follow() {
    let grid = Grid::start();
    let id = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &id]);
    let output = grid.run(&["job", "events", &id, "--after", "9000000", "--output", "json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.starts_with("warning: there is no event 9000000: the newest one is "),
        "{stderr}"
    );
    assert!(parse(std::str::from_utf8(&output.stdout).expect("UTF-8")).len() >= 3, "its whole life");
}

#[test]
fn events_of_all_are_followed_from_now_on() {
    let grid = Grid::start();
    let before = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &before]);
    let mut follower = grid.command(&["job", "events", "--follow", "--output", "json"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run the command");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    // Nothing tells when it listens, so jobs come until it has heard of one.
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(lines.next()));
    let event = eventually("an event comes", || {
        grid.submit(&["count-primes", "1", "10"]);
        told.try_recv().ok().flatten()
    });
    let event: JobEvent = serde_json::from_str(&event.expect("a line")).expect("an event");
    assert_ne!(event.job.to_string(), before);
    follower.kill().expect("kill the command");
    follower.wait().expect("wait for the command");
}

#[test]
fn following_outlasts_a_restart_of_the_grid_without_gap_or_repetition() {
    let data = tempdir().expect("a folder");
    let port = own_port();
    let mut grid = Grid::start_with_data(data.path(), &port);
    let id = grid.submit(&["sleep", "--seconds", "0.5", "--tasks", "6"]);
    let mut waiter = grid.command(&["job", "events", &id, "--follow", "--output", "json"]);
    let mut waiter = waiter.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the command");
    let mut lines = BufReader::new(waiter.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    grid.kill();
    let again = Grid::start_with_data(data.path(), &port);
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    let output = waiter.wait_with_output().expect("wait for the command");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let events = parse(&[vec![first], rest].concat().join("\n"));
    assert!(events.is_sorted_by(|one, next| one.seq < next.seq), "{events:?}");
    assert_eq!(events.last().map(|event| event.kind), Some(EventKind::Succeeded));
    assert_eq!(parse(&again.stdout(&["job", "events", &id, "--output", "json"])), events);
}

#[test]
fn progress_is_not_drawn_where_there_is_no_terminal() {
    let output = divvy(&["sum-of-primes", "1", "1e9"]).output().expect("run the command");
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("", Some(0)));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "24739512092254535\n");
}

#[test]
fn follower_of_logs_gets_the_last_lines_of_a_program_that_the_end_of_its_job_has_stopped() {
    let id = "0190a5b0-0000-7000-8000-000000000001";
    let answer = |text: &str, end: &str| {
        let log = format!(r#"{{"task":0,"attempt":"{id}","worker":"w","omitted_bytes":0,"text":"{text}"{end}}}"#);
        let page = format!(r#"{{"logs":[{log}],"cursor":"1-1","is_over":true}}"#);
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{page}", page.len())
    };
    let ended = r#","ended_at":"2026-03-21T10:00:00Z""#;
    let (url, server) = answer_each(vec![answer(r"begun\n", ""), answer(r"begun\nthe end\n", ended)]);
    let output = divvy(&["job", "logs", id, "--follow"]).env("DIVVY_URL", &url).output().expect("run the command");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[task 0] begun\n[task 0] the end\n", "{output:?}");
    assert!(output.status.success() && server.join().expect("no panic").len() == 2, "{output:?}");
}

fn parse(lines: &str) -> Vec<JobEvent> {
    lines.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}
