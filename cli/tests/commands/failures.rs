//! Failures are one line on stderr and a stable exit code.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use tempfile::tempdir;

use crate::helpers::{Grid, NOWHERE, assert_fails, divvy, own_port};

const ID: &str = "0190a5b0-0000-7000-8000-000000000001";

#[test]
fn wrong_usage_is_exit_code_2() {
    for line in [
        "job",
        "job submit",
        "job submit sum-of-primes 3 2",
        "job submit sum-of-primes 1.5 2",
        "job submit count-primes 1",
        "job submit sleep",
        "job submit sleep --seconds inf",
        "job submit tasks /no/such/file",
        "job submit --file /no/such/file",
        "job submit sleep --seconds 1 --priority 10",
        "job submit sleep --seconds 1 --tag x",
        "job submit sleep --seconds 1 --task-timeout 0s",
        "job submit sleep --seconds 1 --require-memory much",
        "job submit sleep --seconds 1 --max-attempts 0",
        "job submit sleep --seconds 1 --id 7",
        "job submit sleep --seconds 1 --output yaml",
        "job list --state done",
        "job list --kind prime",
        "job list --limit 0",
        "job show",
        "job show 0190",
        "job wait",
        "job tasks x",
        "job cancel",
        "job events --after -1",
        "worker",
        "worker show",
        "worker drain",
        "simulate --tasks 5",
        "simulate --tasks 5 --seconds 1 --workers 1 --priority 0",
        "stats --coordinator ftp://127.0.0.1",
        "completions tcsh",
        "watch",
    ] {
        let output = divvy(&line.split(' ').collect::<Vec<_>>()).output().expect("run the command");
        assert_fails(&output, 2);
        assert!(output.stdout.is_empty(), "{line}");
    }
    let grid = Grid::start();
    for line in [
        format!("job show {ID}"),
        format!("job wait {ID}"),
        format!("job result {ID}"),
        format!("job tasks {ID}"),
        format!("job events {ID}"),
        format!("job explain {ID}"),
        format!("job cancel {ID}"),
        "job submit sleep --seconds 100000".to_owned(),
        "simulate --tasks 5 --seconds 1 --workers 0".to_owned(),
    ] {
        assert_fails(&grid.run(&line.split(' ').collect::<Vec<_>>()), 2);
    }
}

#[test]
fn unreachable_grid_is_exit_code_3() {
    for line in [
        "job submit sleep --seconds 1".to_owned(),
        "job list".to_owned(),
        format!("job wait {ID}"),
        format!("job result {ID} --wait 30s"),
        format!("job events {ID} --follow"),
        format!("job cancel {ID}"),
        "worker list".to_owned(),
        "stats --output json".to_owned(),
    ] {
        let output = divvy(&line.split(' ').collect::<Vec<_>>()).env("DIVVY_URL", NOWHERE).output().expect("run");
        assert!(assert_fails(&output, 3).contains(NOWHERE), "{line}");
    }
}

#[test]
fn password_in_a_url_is_refused_and_in_no_output() {
    let secret = "http://me:hush@127.0.0.1:1";
    for line in ["job list", "stats", "sum-of-primes 1 2"] {
        let arguments: Vec<_> = line.split(' ').collect();
        let by_variable = divvy(&arguments).env("DIVVY_URL", secret).output().expect("run the command");
        let by_option =
            divvy(&[&arguments[..], &["--coordinator", secret]].concat()).output().expect("run the command");
        for output in [by_variable, by_option] {
            let told = assert_fails(&output, 2);
            assert!(told.contains("must not have a user or a password") && !told.contains("hush"), "{line}: {told}");
        }
    }
}

#[test]
fn answers_that_are_no_grids_are_one_line() {
    for (answer, code) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", 1),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nno\nno", 1),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 2),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", 1),
    ] {
        let (url, server) = answer_once(answer.to_owned());
        let output = divvy(&["stats", "--coordinator", &url]).output().expect("run the command");
        server.join().expect("no panic");
        assert!(assert_fails(&output, code).contains(&url), "{answer}");
    }
}

#[test]
fn what_others_wrote_cannot_control_the_terminal() {
    let job = r#"{"id":"0190a5b0-0000-7000-8000-000000000001","kind":"sleep","params":{},"state":"failed","priority":5,
        "tags":{"\u001b[2Ja":"b\u009b2J"},"affinity":{"key":"\u001b]0;title\u0007"},"requires":{},"max_attempts":4,
        "timeout":{},"tasks":{"total":1,"pending":0,"running":0,"succeeded":0,"failed":1},"progress":{"fraction":0},
        "attempts":4,"submitted_at":"2026-03-21T10:00:00Z","error":"first\r\nsecond\u001b[31m"}"#;
    for (arguments, answer, code) in [
        (&["job", "show", ID][..], job.to_owned(), Some(0)),
        (&["job", "wait", ID], job.to_owned(), Some(1)),
        (&["job", "list"], format!(r#"{{"jobs":[{job}]}}"#), Some(0)),
        (&["job", "explain", ID], r#"{"state":"queued","reasons":["a\u001b[2J\nb"]}"#.to_owned(), Some(0)),
    ] {
        let length = answer.len();
        let (url, server) = answer_once(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"));
        let output = divvy(arguments).env("DIVVY_URL", &url).output().expect("run the command");
        server.join().expect("no panic");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert_eq!(output.status.code(), code, "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

#[test]
fn what_may_be_asked_twice_is_asked_again_of_a_grid_that_is_about_to_have_a_leader() {
    const AWAY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    const BROKEN: &str = "";
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("program.wasm");
    std::fs::write(&file, b"\0asm\x01\0\0\0").expect("write a file");
    let (hash, job) = ("0".repeat(64), job("queued"));
    let program = program(&hash);
    for (arguments, answer) in [
        (&["program", "put", file.to_str().expect("UTF-8")][..], &program),
        (&["program", "delete", &hash], &String::new()),
        (&["job", "cancel", ID], &job),
        (&["job", "cancel", "--all"], &r#"{"matched":1,"changed":1}"#.to_owned()),
        (&["job", "submit", "sleep", "--seconds", "1"], &job),
    ] {
        let (length, close) = (answer.len(), "Connection: close\r\n");
        let last = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {length}\r\n\r\n{answer}");
        let (url, server) = answer_each(vec![AWAY.to_owned(), BROKEN.to_owned(), AWAY.to_owned(), last]);
        let output = divvy(arguments).env("DIVVY_URL", &url).output().expect("run the command");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let requests = server.join().expect("no panic");
        let named = |request: &String| {
            let mut lines = request.lines().map(str::to_ascii_lowercase);
            let first = lines.next();
            (first, lines.find(|line| line.starts_with("idempotency-key: ")))
        };
        assert!(requests.iter().all(|request| named(request) == named(&requests[0])), "{requests:?}");
        assert_eq!(named(&requests[0]).1.is_some(), arguments.contains(&"submit"), "{requests:?}");
    }
}

#[test]
fn reads_are_asked_again_of_a_grid_that_is_away_for_a_moment() {
    let (hash, job) = ("0".repeat(64), job("queued"));
    let program = program(&hash);
    for (arguments, body) in [
        (&["job", "show", ID][..], job.as_str()),
        (&["job", "list"], r#"{"jobs":[]}"#),
        (&["job", "tasks", ID], r#"{"tasks":[]}"#),
        (&["job", "result", ID], r#"{"sum":"5"}"#),
        (&["job", "result", ID, "--task", "0"], "5"),
        (&["job", "logs", ID], r#"{"logs":[],"cursor":"1-0","is_over":true}"#),
        (&["worker", "list"], "[]"),
        (&["coordinator", "list"], r#"{"coordinators":[]}"#),
        (&["program", "list"], r#"{"programs":[]}"#),
        (&["program", "show", &hash], program.as_str()),
        (&["program", "names"], r#"{"names":[],"wasm_workers":0,"native_workers":0}"#),
        (&["statistics"], r#"{"grain":"hour","periods":[]}"#),
        (&["statistics", "--tasks"], r#"{"grain":"hour","tasks":[]}"#),
    ] {
        let answer = |status: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let (away, whole) = (answer("503 Service Unavailable", ""), answer("200 OK", body));
        let cut_off = whole[..whole.len() - 1].to_owned();
        // The beginning of a result is printed before the rest is there.
        let answers = if arguments.contains(&"result") { vec![away, whole] } else { vec![away, cut_off, whole] };
        let (url, server) = answer_each(answers);
        let output = divvy(arguments).env("DIVVY_URL", &url).output().expect("run the command");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        server.join().expect("no panic");
    }
}

#[test]
fn wait_for_a_job_goes_on_while_the_grid_is_about_to_have_a_leader() {
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let away = answer("503 Service Unavailable", "");
    // Two requests for the job, two for its events, of which the second is told that the job is over, and one for the job.
    let over = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned();
    let shown = |state| answer("200 OK", &job(state));
    let (url, server) = answer_each(vec![away.clone(), shown("queued"), away, over, shown("succeeded")]);
    let output = divvy(&["job", "wait", ID]).env("DIVVY_URL", &url).output().expect("run the command");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = server.join().expect("no panic").into_iter();
    let is_of_events: Vec<_> = paths.map(|request| request.contains("/events")).collect();
    assert_eq!(is_of_events, [false, false, true, true, false]);
}

#[test]
fn result_of_a_job_that_ends_just_after_it_had_none_is_asked_for_once_more() {
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let problem = r#"{"title":"Conflict","status":409,"detail":"there is no result: the job is running"}"#;
    let (none, shown) = (answer("409 Conflict", problem), answer("200 OK", &job("succeeded")));
    let (url, server) = answer_each(vec![none, shown, answer("200 OK", r#"{"sum":"5"}"#)]);
    let output = divvy(&["job", "result", ID]).env("DIVVY_URL", &url).output().expect("run the command");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"sum\":\"5\"}\n");
    server.join().expect("no panic");
}

#[test]
fn figures_that_are_not_all_printed_are_told_of() {
    // As many rows as the command keeps.
    let row = r#"{"start":"2026-03-21T10:00:00Z","end":"2026-03-21T11:00:00Z","kind":"tasks","task":"a","starts":1}"#;
    let body = format!(r#"{{"grain":"hour","tasks":[{}],"next_page_token":"x"}}"#, vec![row; 100_000].join(","));
    for format in ["csv", "table"] {
        let length = body.len();
        let (url, server) = answer_once(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        let output = divvy(&["statistics", "--tasks", "--output", format]).env("DIVVY_URL", &url).output();
        server.join().expect("no panic");
        let output = output.expect("run the command");
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 100_001, "a head and the rows");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.starts_with("there are more: ") && told.lines().count() == 1, "{format}: {told}");
    }
}

#[test]
fn program_that_is_gone_when_its_deletion_is_repeated_is_deleted() {
    let hash = "0".repeat(64);
    let gone = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned();
    let deleted = |answers: Vec<String>| {
        let (url, server) = answer_each(answers);
        let output = divvy(&["program", "delete", &hash]).env("DIVVY_URL", &url).output().expect("run the command");
        server.join().expect("no panic");
        output
    };
    // The connection breaks before the answer.
    let output = deleted(vec![String::new(), gone.clone()]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    assert_fails(&deleted(vec![gone]), 2);
}

#[test]
fn events_of_all_jobs_go_on_where_they_were_when_the_first_connection_breaks_before_any() {
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let reset = r#"{"asked_after":18446744073709551615,"oldest":1,"newest":7,"resumes_after":7}"#;
    let first = format!("{stream}event: reset\nid: 7\ndata: {reset}\n\n");
    let last = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (url, server) = answer_each(vec![first, last]);
    let output = divvy(&["job", "events", "--follow"]).env("DIVVY_URL", &url).output().expect("run the command");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "no event is missing: {output:?}");
    let requests = server.join().expect("no panic");
    let after = |request: &String| {
        let request = request.to_ascii_lowercase();
        request.lines().find_map(|line| Some(line.strip_prefix("last-event-id: ")?.to_owned()))
    };
    assert_eq!(requests.iter().map(after).collect::<Vec<_>>(), [Some(u64::MAX.to_string()), Some("7".to_owned())]);
}

#[test]
fn workers_that_were_drained_before_the_grid_went_away_are_named() {
    for (names, format, printed) in [
        (&["first", "second"][..], "table", ""),
        (&["first", "second"], "json", ""),
        (&["first", "second"], "quiet", "first\n"),
        (&["first"], "quiet", "first\n"),
    ] {
        let (url, server) = drain_and_leave();
        let arguments = [&["worker", "drain", "--output", format], names].concat();
        let output = divvy(&arguments).env("DIVVY_URL", &url).output().expect("run the command");
        server.join().expect("no panic");
        let told = assert_fails(&output, 3);
        assert!(told.contains(&url) && told.ends_with("; drained: first\n"), "{arguments:?}: {told}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{arguments:?}");
    }
}

/// A server that drains one worker and takes no other connection.
fn drain_and_leave() -> (String, JoinHandle<()>) {
    let address = format!("127.0.0.1:{}", own_port());
    let listener = TcpListener::bind(&address).expect("a port");
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        drop(listener);
        read_request(&mut client);
        client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").expect("answer");
    });
    (format!("http://{address}"), server)
}

/// The answer with a job of one task.
fn job(state: &str) -> String {
    format!(
        r#"{{"id":"{ID}","kind":"sleep","params":{{}},"state":"{state}","priority":5,"tags":{{}},"affinity":{{}},
        "requires":{{}},"max_attempts":4,"timeout":{{}},"progress":{{"fraction":0}},"attempts":0,
        "tasks":{{"total":1,"pending":1,"running":0,"succeeded":0,"failed":0}},"submitted_at":"2026-03-21T10:00:00Z"}}"#
    )
}

/// The answer with a program.
fn program(hash: &str) -> String {
    format!(r#"{{"sha256":"{hash}","kind":"wasm","bytes":8,"uploaded_at":"2026-03-21T10:00:00Z"}}"#)
}

/// A server that takes one request and answers this.
fn answer_once(answer: String) -> (String, JoinHandle<Vec<String>>) {
    answer_each(vec![answer])
}

/// A server that takes one connection with one request for each answer. Returns its URL and the requests.
pub(crate) fn answer_each(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let answer = |answer: String| {
            let (mut client, _) = listener.accept().expect("a client");
            let request = read_request(&mut client);
            client.write_all(answer.as_bytes()).expect("answer");
            request
        };
        answers.into_iter().map(answer).collect()
    });
    (url, server)
}

/// Reads a request up to the end of its body: an answer behind which bytes are unread may be lost.
fn read_request(client: &mut TcpStream) -> String {
    let (mut request, mut bytes) = (String::new(), [0; 4096]);
    while !is_whole(&request) {
        match client.read(&mut bytes) {
            Ok(count @ 1..) => request.push_str(&String::from_utf8_lossy(&bytes[..count])),
            _ => break,
        }
    }
    request
}

/// Whether a request has come up to the end of its body.
fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

#[test]
fn up_names_the_package_that_brings_the_python_worker() {
    let shown = divvy(&["up", "--port", "0", "--workers", "1", "--python-workers", "1"]).env("PATH", "").output();
    let shown = shown.expect("run divvy");
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    let error = String::from_utf8_lossy(&shown.stderr);
    // The message names the checkout's package: the `divvy` on PyPI is another program.
    assert!(error.contains("divvy-python-worker") && error.contains("pip install './sdk/python[executor]'"), "{error}");
}
