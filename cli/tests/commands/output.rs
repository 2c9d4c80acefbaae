//! Destinations of output, also closed and full ones.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::thread;

use api::{Job, JobPage};
use model::{JobKind, JobState};
use tempfile::tempdir;

use crate::helpers::{Grid, assert_fails, divvy, eventually, gone, minding_hang_up};

#[test]
fn result_is_added_to_the_log_that_a_descriptor_appends_to() {
    let grid = Grid::start();
    let id = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &id]);
    let folder = tempdir().expect("a folder");
    let (log, link) = (folder.path().join("log"), folder.path().join("link"));
    symlink("/dev/stdout", &link).expect("a link");
    let link = link.to_str().expect("UTF-8");
    for (target, redirection) in [
        ("/dev/stdout", ">>"),
        ("/dev/fd/1", ">>"),
        ("/proc/self/fd/1", ">>"),
        (link, ">>"),
        ("/dev/stderr", "2>>"),
        ("/dev/fd/3", "3>>"),
    ] {
        fs::write(&log, "first line\n").expect("write a file");
        let line = format!("exec \"$0\" job result {id} --file {target} {redirection} {}", log.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_divvy")]).env("DIVVY_URL", &grid.url);
        assert_eq!(shell.status().expect("run a shell").code(), Some(0), "{target}");
        let text = fs::read_to_string(&log).expect("a file");
        assert!(text.starts_with("first line\n{") && text.contains("\"count\""), "{target}: {text}");
    }
}

#[test]
fn result_file_keeps_its_permissions() {
    let grid = Grid::start();
    let id = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &id]);
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("secret.json");
    fs::write(&path, "old").expect("write a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set permissions");
    grid.stdout(&["job", "result", &id, "--file", path.to_str().expect("UTF-8")]);
    assert!(fs::read_to_string(&path).expect("a file").contains("count"));
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn interrupted_result_leaves_no_part_of_a_file_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("result.json");
    let entries = || fs::read_dir(folder.path()).expect("a folder").count();
    let id = "0190a5b0-0000-7000-8000-000000000001";
    let mut command = divvy(&["job", "result", id, "--file", file.to_str().expect("UTF-8"), "--coordinator", &url]);
    let mut process = command.spawn().expect("run the command");
    let (mut client, _) = listener.accept().expect("a client");
    let lines = BufReader::new(client.try_clone().expect("a second handle")).lines().map_while(Result::ok);
    assert!(lines.take_while(|line| !line.is_empty()).count() > 1, "the head of a request");
    // The rest never comes.
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").expect("answer");
    eventually("there is a part of the file", || (entries() == 1).then_some(()));
    assert!(Command::new("kill").args(["-INT", &process.id().to_string()]).status().expect("run kill").success());
    let status = process.wait().expect("wait for the command");
    assert_eq!((status.code(), entries()), (Some(130), 0));
}

#[test]
fn interrupted_wait_has_told_how_to_go_on() {
    let grid = Grid::start();
    for arguments in [
        &["job", "submit", "sleep", "--seconds", "600", "--wait"][..],
        &["simulate", "--tasks", "2", "--seconds", "600", "--workers", "1", "--wait"],
    ] {
        let mut command = grid.command(arguments);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run the command");
        let mut line = String::new();
        BufReader::new(process.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
        let page: JobPage = grid.json(&["job", "list", "--limit", "1"]);
        let id = page.jobs[0].id.to_string();
        assert!(line.contains("divvy job wait ") && line.contains(&id), "{line}");
        let pid = process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("run kill").success());
        process.wait().expect("wait for the command");
        let job: Job = grid.json(&["job", "show", &id]);
        assert!(!job.state.is_over(), "{}", job.state);
    }
}

#[test]
fn byte_order_mark_is_no_part_of_a_job() {
    let grid = Grid::start();
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("file");
    let path = path.to_str().expect("UTF-8");
    let submit = |text: &str, arguments: &[&str]| -> Job {
        fs::write(path, format!("\u{feff}{text}")).expect("write a file");
        grid.json(&[&["job", "submit"], arguments, &[path]].concat())
    };
    assert_eq!(submit("[1, 2]", &["tasks"]).tasks.total, 2);
    assert_eq!(submit("1\n2\n3", &["tasks"]).tasks.total, 3);
    let job = r#"{"kind": "sleep", "params": {"seconds": 0}}"#;
    assert_eq!(submit(job, &["--file"]).kind, JobKind::SLEEP);
    let answer = grid.post("/v1/jobs", format!("\u{feff}{job}").as_bytes());
    let created: Job = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(created.kind, JobKind::SLEEP);
}

#[test]
fn closed_stderr_changes_no_exit_code() {
    let grid = Grid::start();
    for _ in 0..2 {
        grid.submit(&["sleep", "--seconds", "600", "--require", "gpu=yes"]);
    }
    for (arguments, code) in [
        (&["job", "list", "--limit", "1"][..], 0),
        (&["job", "submit", "sleep", "--seconds", "0", "--wait"], 0),
        (&["job", "show", "x"], 2),
        (&["job", "cancel"], 2),
        (&["stats", "--coordinator", crate::helpers::NOWHERE], 3),
    ] {
        for full in [false, true] {
            let stderr =
                if full { fs::File::options().write(true).open("/dev/full").expect("open").into() } else { gone() };
            let status =
                grid.command(arguments).stdout(Stdio::null()).stderr(stderr).status().expect("run the command");
            assert_eq!(status.code(), Some(code), "{arguments:?}, full: {full}");
        }
    }
}

#[test]
fn reader_that_has_seen_enough_is_no_error() {
    let grid = Grid::start();
    let id = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &id]);
    for arguments in [
        &["job", "list"][..],
        &["job", "show", &id],
        &["job", "result", &id],
        &["job", "result", &id, "--file", "/dev/stdout"],
        &["job", "events", &id],
        &["stats", "--output", "json"],
        &["completions", "bash"],
        &["--help"],
        &["job", "--help"],
        &["--version"],
    ] {
        let output = grid.command(arguments).stdout(gone()).output().expect("run the command");
        let stderr = String::from_utf8_lossy(&output.stderr);
        // A shell reports this code of `cat` when SIGPIPE ends it.
        assert_eq!((output.status.code(), stderr.as_ref()), (Some(141), ""), "{arguments:?}");
    }
    for arguments in [&["job", "list"][..], &["--help"], &["--version"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("open");
        let output = grid.command(arguments).stdout(full).output().expect("run the command");
        assert!(assert_fails(&output, 1).contains("cannot write to stdout"), "{arguments:?}");
    }
}

#[test]
fn failed_tasks_are_told_with_a_cause_and_what_to_do() {
    let grid = Grid::start();
    let failing =
        ["job", "submit", "sleep", "--seconds", "0", "--tasks", "4", "--fail-rate", "1", "--max-attempts", "1"];
    let line = assert_fails(&grid.run(&[&failing[..], &["--output", "quiet", "--wait"]].concat()).last_line(), 1);
    for part in ["4 of 4 tasks failed; task 0: ", "divvy job tasks ", "--state failed", "divvy job retry "] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // A job can fail without a task that has failed.
    let late = ["job", "submit", "sleep", "--seconds", "0", "--require", "gpu=yes", "--job-timeout", "1s"];
    let line = assert_fails(&grid.run(&[&late[..], &["--output", "quiet", "--wait"]].concat()).last_line(), 1);
    assert!(line.contains("within its timeout. To run what failed again: divvy job retry "), "{line}");
}

#[test]
fn result_that_is_null_is_shown_as_null() {
    let grid = Grid::start();
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("tasks");
    fs::write(&path, "[1]").expect("write a file");
    let id = grid.submit(&["tasks", path.to_str().expect("UTF-8")]);
    let claim = br#"{"worker_id": "mine", "kinds": ["tasks"], "max_tasks": 1, "wait_seconds": 30}"#;
    let claimed: serde_json::Value =
        serde_json::from_str(&grid.post_internal("/v1/worker/claim", claim)).expect("a claim");
    let attempt = claimed["attempt"].as_str().expect("an attempt");
    grid.post_internal(&format!("/v1/worker/tasks/{attempt}/complete"), br#"{"results": [null]}"#);
    let job: Job = grid.json(&["job", "wait", &id]);
    assert_eq!(job.state, JobState::Succeeded);
    let table = grid.stdout(&["job", "tasks", &id]);
    let (head, row) = table.trim_end().split_once('\n').expect("a head and a row");
    assert!(head.contains("RESULT") && row.split_whitespace().any(|word| word == "null"), "{table}");
}

#[test]
fn fields_of_a_job_have_the_names_of_the_options_that_set_them() {
    let grid = Grid::start();
    let options = [
        ("--priority", "9"),
        ("--tag", "team=a"),
        ("--affinity-key", "shard-1"),
        ("--affinity-label", "disk=ssd"),
        ("--require", "zone=b"),
        ("--require-cpus", "2"),
        ("--require-memory", "1GiB"),
        ("--max-attempts", "7"),
        ("--task-timeout", "30s"),
        ("--job-timeout", "1h"),
        ("--output-name", "report"),
    ];
    let words = options.iter().flat_map(|&(option, value)| [option, value]);
    let id = grid.submit(&["sleep", "--seconds", "0"].into_iter().chain(words).collect::<Vec<_>>());
    let table = grid.stdout(&["job", "show", &id]);
    for (option, _) in options {
        let label = format!("{} ", option.trim_start_matches("--").replace('-', " "));
        assert!(table.lines().any(|line| line.starts_with(&label)), "{label} in\n{table}");
    }
}

#[test]
fn tags_are_written_with_an_equals_sign_or_a_colon() {
    let grid = Grid::start();
    let one = grid.submit(&["sleep", "--seconds", "600", "--tag", "team=a"]);
    let other = grid.submit(&["sleep", "--seconds", "600", "--tag", "team:b"]);
    let list = |tag: &str| grid.stdout(&["job", "list", "--tag", tag, "--output", "quiet"]);
    assert_eq!((list("team:a"), list("team=a")), (format!("{one}\n"), format!("{one}\n")));
    assert_eq!((list("team:b"), list("team=b")), (format!("{other}\n"), format!("{other}\n")));
}

#[test]
fn token_of_the_environment_is_sent_and_never_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let head: Vec<String> = BufReader::new(client.try_clone().expect("a copy"))
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        client.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").expect("answer");
        head
    });
    let output =
        divvy(&["stats"]).env("DIVVY_URL", &url).env("DIVVY_TOKEN", "s3cret").output().expect("run the command");
    let head = server.join().expect("no panic");
    assert!(head.iter().any(|line| line.eq_ignore_ascii_case("authorization: Bearer s3cret")), "{head:?}");
    assert!(!assert_fails(&output, 2).contains("s3cret"));
    let output = divvy(&["stats"]).env("DIVVY_TOKEN", "s3 cret").output().expect("run the command");
    let line = assert_fails(&output, 2);
    assert!(line.contains("DIVVY_TOKEN") && !line.contains("s3 cret"), "{line}");
}

#[test]
fn empty_variables_count_as_unset() {
    let mut command = divvy(&["job", "list"]);
    let output = command.env("DIVVY_URL", "").env("DIVVY_TOKEN", "").output().expect("run the command");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || stderr.contains("http://127.0.0.1:8080"), "{stderr}");
    let mut command = divvy(&["sum-of-primes", "1", "10", "--workers", "1"]);
    for name in ["DIVVY_URL", "DIVVY_LOG", "DIVVY_LOG_FORMAT", "DIVVY_DATA_DIR", "DIVVY_CHUNK_SIZE", "DIVVY_SLOTS"] {
        command.env(name, "");
    }
    let output = command.output().expect("run the command");
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()),
        ("17\n", Some(0)),
        "{output:?}"
    );
}

#[test]
fn asking_for_workers_starts_a_grid_though_the_environment_names_one() {
    let mut command = divvy(&["sum-of-primes", "1", "10", "--workers", "1"]);
    let output = command.env("DIVVY_URL", crate::helpers::NOWHERE).output().expect("run the command");
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()),
        ("17\n", Some(0)),
        "{output:?}"
    );
}

#[test]
fn own_grid_leaves_no_directory_behind_when_it_is_interrupted() {
    let folder = tempdir().expect("a folder");
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut command = divvy(&["sum-of-primes", "1", "1e18", "--workers", "1"]);
        let mut process = minding_hang_up(command.env("TMPDIR", folder.path())).spawn().expect("run the command");
        let entries = || fs::read_dir(folder.path()).expect("a folder").count();
        eventually("the grid has its directory", || (entries() == 1).then_some(()));
        // The handlers are there before the directory.
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().expect("run kill").success());
        process.wait().expect("wait for the command");
        assert_eq!(entries(), 0, "{signal}");
    }
}

/// Asserts on the last of several lines of stderr.
trait LastLine {
    fn last_line(self) -> Self;
}

impl LastLine for std::process::Output {
    fn last_line(mut self) -> Self {
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        self.stderr = stderr.lines().last().map(|line| format!("{line}\n")).unwrap_or_default().into_bytes();
        self
    }
}
