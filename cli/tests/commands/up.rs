//! `divvy up`: its ports, its messages, its bounds.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::tempdir;
use test_postgres::Server;

use crate::helpers::{Grid, assert_fails, divvy, eventually, gone, own_port};

#[test]
fn internal_port_is_an_option_and_is_printed() {
    let free = own_port();
    let grid = Grid::up(&["--port", "0", "--internal-port", &free]);
    assert_eq!(grid.internal, format!("127.0.0.1:{free}"));
    let answer = grid.post_internal("/v1/worker/claim", br#"{"worker_id": "a", "kinds": ["tasks"], "max_tasks": 1}"#);
    assert!(answer.is_empty(), "no task is there: {answer}");
}

#[test]
fn start_tells_whether_jobs_are_kept() {
    let folder = tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    for (arguments, variable, told) in [
        (&[][..], None, "jobs and results end with this grid: --data-dir DIRECTORY keeps them".to_owned()),
        (&[], Some(""), "jobs and results end with this grid: --data-dir DIRECTORY keeps them".to_owned()),
        (&["--data-dir", data], None, format!("jobs and results are kept in {data}")),
        (&[], Some(data), format!("jobs and results are kept in {data}")),
    ] {
        let mut command = divvy(&[&["up", "--workers", "1", "--port", "0"], arguments].concat());
        variable.map(|value| command.env("DIVVY_DATA_DIR", value));
        let stderr = run_until_it_serves(command.env("DIVVY_LOG", "error"));
        assert!(stderr.lines().any(|line| line == told), "{told:?} in {stderr}");
    }
}

#[test]
fn start_tells_of_the_database_that_its_variable_names() {
    let (server, results) = (Server::shared(), tempdir().expect("a folder"));
    let database = server.url(&server.create_database());
    let mut command = divvy(&["up", "--workers", "1", "--port", "0"]);
    command.env("DIVVY_STORE_URL", &database).env("DIVVY_LOG", "error");
    command.env("DIVVY_RESULTS_URL", format!("file://{}", results.path().display()));
    let stderr = run_until_it_serves(&mut command);
    assert!(stderr.lines().any(|line| line == "jobs are kept in the database"), "{stderr}");
    let both = divvy(&["up", "--port", "0", "--data-dir", "x", "--store-url", &database]).output().expect("run");
    assert!(both.status.code() == Some(2) && String::from_utf8_lossy(&both.stderr).contains("--data-dir"), "{both:?}");
}

#[test]
fn start_that_waits_for_its_database_ends_well_at_a_signal() {
    let results = tempdir().expect("a folder");
    let mut command = divvy(&["up", "--port", "0", "--store-url", "postgres://divvy@127.0.0.1:1/divvy"]);
    command.env("DIVVY_RESULTS_URL", format!("file://{}", results.path().display()));
    let mut process = command.stderr(Stdio::piped()).spawn().expect("start a grid");
    let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting for the database")));
    assert!(Command::new("kill").arg(process.id().to_string()).status().expect("run kill").success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(process.wait().expect("it ends").code(), Some(0), "{rest:?}");
}

#[test]
fn python_workers_are_told_to_stop_once_by_the_keys_that_stop_the_grid() {
    let folder = tempdir().expect("a folder");
    let (mut grid, told) = grid_with_python_workers(folder.path(), 1);
    let told = || fs::read_to_string(&told).ok();
    // Ctrl-C reaches every process of the terminal's group.
    let group = format!("-{}", grid.0.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().expect("run kill").success());
    assert_eq!(grid.0.wait().expect("it ends").code(), Some(0));
    assert_eq!(told().as_deref(), Some("ready\nTERM\n"));
}

#[test]
fn python_workers_are_told_to_stop_where_the_grid_is_killed() {
    let folder = tempdir().expect("a folder");
    let (mut grid, told) = grid_with_python_workers(folder.path(), 1);
    grid.0.kill().and_then(|()| grid.0.wait()).expect("kill the grid");
    let told = || fs::read_to_string(&told).ok();
    eventually("the worker is told", || told().filter(|told| told == "ready\nTERM\n"));
}

#[test]
fn python_workers_are_told_to_stop_where_another_one_ends_by_itself() {
    let folder = tempdir().expect("a folder");
    let (mut grid, told) = grid_with_python_workers(folder.path(), 2);
    let ids = fs::read_to_string(told.with_extension("ids")).expect("the workers run");
    let one = ids.lines().next().expect("an id");
    assert!(Command::new("kill").args(["-KILL", one]).status().expect("run kill").success());
    assert_eq!(grid.0.wait().expect("it ends").code(), Some(1));
    assert_eq!(fs::read_to_string(&told).ok().as_deref(), Some("ready\nready\nTERM\n"));
}

#[test]
fn python_workers_that_are_not_installed_are_missed_before_a_grid_is_built() {
    let folder = tempdir().expect("a folder");
    let data = folder.path().join("data");
    let arguments = ["up", "--port", "0", "--python-workers", "1", "--data-dir", data.to_str().expect("UTF-8")];
    let output = divvy(&arguments).env("PATH", folder.path()).output().expect("run the command");
    assert!(assert_fails(&output, 1).contains("there is none on the path"));
    assert!(!data.exists(), "a grid has been built");
}

#[test]
fn coordinator_does_not_run_where_a_worker_cannot_be_built() {
    let mut command = divvy(&["up", "--workers", "1", "--port", "0"]);
    let output = command.env("DIVVY_MAX_HELD_BYTES", "0").output().expect("run the command");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("DIVVY_MAX_HELD_BYTES") && !stderr.contains("serving"), "{stderr}");
}

/// Starts a grid in a process group of its own, with a script in `folder` as its Python workers, and waits until these run. The
/// script writes its signals to the returned file and its process id to a file beside it, and ends by itself after some minutes.
fn grid_with_python_workers(folder: &Path, count: usize) -> (Running, PathBuf) {
    let (program, told) = (folder.join("divvy-python-worker"), folder.join("told"));
    let script = "#!/bin/sh\ntrap 'echo INT >> TOLD' INT\ntrap 'echo TERM >> TOLD; exit 0' TERM\n\
        echo $$ >> TOLD.ids\necho ready >> TOLD\n\
        for i in $(seq 3000); do sleep 0.1; done\n";
    fs::write(&program, script.replace("TOLD", told.to_str().expect("UTF-8"))).expect("write a program");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("make it a program");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    let count_of_workers = count.to_string();
    let mut command = divvy(&["up", "--workers", "1", "--port", "0", "--python-workers", &count_of_workers]);
    command.env("PATH", path).process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    let grid = Running(command.spawn().expect("start a grid"));
    eventually("the workers run", || fs::read_to_string(&told).ok().filter(|told| told.lines().count() == count));
    (grid, told)
}

#[test]
fn misspelt_variables_are_warned_about_and_those_of_any_program_are_not() {
    let mut command = divvy(&["up", "--workers", "1", "--port", "0"]);
    command.envs([("DIVVY_FOO", "1"), ("DIVVY_URL", "http://h"), ("DIVVY_SLOTS", "2"), ("DIVVY_CHUNK_SIZE", "1000")]);
    command.env("DIVVY_COORDINATOR_SERVICE_HOST", "10.0.0.1").env("NO_COLOR", "1");
    let stderr = run_until_it_serves(&mut command);
    let warned: Vec<&str> = stderr.lines().filter(|line| line.contains("has no effect")).collect();
    assert!(warned.len() == 1 && warned[0].contains("DIVVY_FOO"), "{stderr}");
}

#[test]
fn misspelt_variables_are_warned_about_by_a_grid_for_one_question_too() {
    let mut command = divvy(&["sum-of-primes", "1", "10", "--workers", "1"]);
    command.envs([("DIVVY_CHUNKSIZE", "1"), ("DIVVY_STORE_URL", ""), ("DIVVY_PROGRAM_DIR", "/tmp"), ("NO_COLOR", "1")]);
    let output = command.output().expect("run the command");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "17\n");
    let warned: Vec<&str> = stderr.lines().filter(|line| line.contains("has no effect")).collect();
    assert!(warned.len() == 1 && warned[0].contains("DIVVY_CHUNKSIZE"), "{stderr}");
}

#[test]
fn bad_log_filter_is_named() {
    let output = divvy(&["up", "--port", "0"]).env("DIVVY_LOG", "info,=x=").output().expect("run the command");
    assert!(assert_fails(&output, 1).contains("DIVVY_LOG is not valid"));
}

#[test]
fn grid_without_a_reader_of_its_log_goes_on() {
    let mut command = divvy(&["up", "--workers", "1", "--port", "0"]);
    let process = command.stdout(Stdio::piped()).stderr(gone()).spawn().expect("start a grid");
    let mut grid = Running(process);
    let url = url_of(&mut grid.0);
    eventually("the worker is there", || {
        let output = divvy(&["worker", "list", "--output", "quiet", "--coordinator", &url]).output().expect("run");
        (output.stdout == b"worker-1\n").then_some(())
    });
    assert!(grid.0.try_wait().expect("ask").is_none());
}

/// The JSON that a command prints which asks a coordinator.
fn asked(url: &str, arguments: &[&str]) -> Value {
    let output = divvy(&[arguments, &["--output", "json", "--coordinator", url]].concat()).output().expect("run");
    assert!(output.status.success(), "{arguments:?} at {url}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn several_coordinators_share_a_database_and_each_of_their_ports_answers_everything() {
    let (server, results) = (Server::shared(), tempdir().expect("a folder"));
    let database = server.url(&server.create_database());
    let mut command = divvy(&["up", "--coordinators", "3", "--workers", "1", "--port", "0", "--store-url", &database]);
    command.env("DIVVY_RESULTS_URL", format!("file://{}", results.path().display())).env("DIVVY_LOG", "error");
    let mut grid = Running(command.stdout(Stdio::piped()).spawn().expect("start a grid"));
    let lines = BufReader::new(grid.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let urls: Vec<String> = lines.take(3).collect();
    assert_eq!(urls.len(), 3, "each coordinator has a URL: {urls:?}");
    eventually("one leads and all are listed", || {
        let output = divvy(&["coordinator", "list", "--output", "json", "--coordinator", &urls[0]]).output().ok()?;
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        let list = list.as_array().or_else(|| list["coordinators"].as_array())?;
        let leaders = list.iter().filter(|one| one["role"] == "leader").count();
        (list.len() == 3 && leaders == 1).then_some(())
    });
    let submitted = divvy(&["job", "submit", "count-primes", "1", "1e6", "--wait", "--coordinator", &urls[1]]).output();
    assert!(submitted.expect("run").status.success());
    for url in &urls {
        assert_eq!(asked(url, &["sum-of-primes", "1", "1e6"])["sum"], "37550402023", "{url}");
        let jobs = asked(url, &["job", "list"]);
        let jobs = jobs.as_array().or_else(|| jobs["jobs"].as_array()).expect("a list").clone();
        assert_eq!((jobs.len(), &jobs[0]["state"]), (1, &Value::from("succeeded")), "{url}");
        let list = asked(url, &["coordinator", "list"]);
        let list = list.as_array().or_else(|| list["coordinators"].as_array()).expect("a list").clone();
        let addresses: Vec<_> = list.iter().filter_map(|one| one["public_address"].as_str()).collect();
        assert!(urls.iter().all(|url| addresses.contains(&url.trim_start_matches("http://"))), "{addresses:?}");
    }
    assert!(grid.0.try_wait().expect("ask").is_none());
}

#[test]
fn several_coordinators_without_a_database_are_refused() {
    let output = divvy(&["up", "--coordinators", "3", "--port", "0"]).output().expect("run the command");
    assert!(assert_fails(&output, 1).contains("--store-url"));
    let nowhere = divvy(&["up", "--store-url", "mysql://host/database"]).output().expect("run the command");
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("postgres://"), "{nowhere:?}");
}

#[test]
fn stopped_grid_stores_what_its_workers_still_finish() {
    let folder = tempdir().expect("a folder");
    let arguments = ["up", "--workers", "1", "--port", "0", "--data-dir", folder.path().to_str().expect("UTF-8")];
    let start = |variables: &[(&str, &str)]| {
        let mut command = divvy(&arguments);
        command.env("DIVVY_LOG", "error").envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut grid = Running(command.spawn().expect("start a grid"));
        let url = url_of(&mut grid.0);
        (grid, url)
    };
    // Only the first grid's worker can run the job: what it does not finish stays open.
    let patient = [("DIVVY_WORKER_LABELS", "grid=first"), ("DIVVY_DRAIN_TIMEOUT_MS", "120000")];
    let (mut first, url) = start(&patient);
    let submission = ["job", "submit", "sleep", "--seconds", "2", "--require", "grid=first"];
    let id = asked(&url, &submission)["id"].as_str().expect("an id").to_owned();
    eventually("the task runs", || (asked(&url, &["job", "show", &id])["tasks"]["running"] == 1).then_some(()));
    terminate(&first.0);
    assert_eq!(first.0.wait().expect("it ends").code(), Some(0));
    let (_second, url) = start(&[]);
    let job = asked(&url, &["job", "show", &id]);
    assert_eq!((&job["state"], &job["attempts"]), (&Value::from("succeeded"), &Value::from(1)), "{job}");
}

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a grid until it has printed its URL, stops it, and returns its stderr.
fn run_until_it_serves(command: &mut Command) -> String {
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start a grid");
    url_of(&mut process);
    terminate(&process);
    let output = process.wait_with_output().expect("wait for the grid");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The URL that a grid prints once it serves.
fn url_of(process: &mut Child) -> String {
    let (mut url, stdout) = (String::new(), process.stdout.take().expect("piped"));
    BufReader::new(stdout).read_line(&mut url).expect("a URL");
    url.trim_end().to_owned()
}

/// SIGTERM.
fn terminate(process: &Child) {
    assert!(Command::new("kill").arg(process.id().to_string()).status().expect("run kill").success());
}
