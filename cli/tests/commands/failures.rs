//! What goes wrong is one line on stderr and a stable exit code.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::helpers::{Grid, assert_fails, divvy};

#[test]
fn wrong_usage_is_exit_code_2() {
    let id = "0190a5b0-0000-7000-8000-000000000001";
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
        "simulate --tasks 5",
        "simulate --tasks 5 --seconds 1 --workers 1 --priority 0",
        "stats --coordinator https://127.0.0.1",
        "completions tcsh",
        "watch",
    ] {
        let output = divvy(&line.split(' ').collect::<Vec<_>>()).output().expect("run the command");
        assert_fails(&output, 2);
        assert!(output.stdout.is_empty(), "{line}");
    }
    let grid = Grid::start();
    for line in [
        format!("job show {id}"),
        format!("job wait {id}"),
        format!("job result {id}"),
        format!("job tasks {id}"),
        format!("job events {id}"),
        format!("job explain {id}"),
        format!("job cancel {id}"),
        "job submit sleep --seconds 100000".to_owned(),
        "simulate --tasks 5 --seconds 1 --workers 0".to_owned(),
    ] {
        assert_fails(&grid.run(&line.split(' ').collect::<Vec<_>>()), 2);
    }
}

#[test]
fn unreachable_grid_is_exit_code_3() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let url = format!("http://{free}");
    let id = "0190a5b0-0000-7000-8000-000000000001";
    for line in [
        "job submit sleep --seconds 1".to_owned(),
        "job list".to_owned(),
        format!("job wait {id}"),
        format!("job result {id} --wait 30s"),
        format!("job events {id} --follow"),
        format!("job cancel {id}"),
        "worker list".to_owned(),
        "stats --output json".to_owned(),
    ] {
        let output = divvy(&line.split(' ').collect::<Vec<_>>()).env("DIVVY_URL", &url).output().expect("run");
        assert!(assert_fails(&output, 3).contains(&free.to_string()), "{line}");
    }
}

#[test]
fn answers_that_are_no_grids_are_one_line() {
    for (answer, code) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", 1),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nno\nno", 1),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 2),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", 1),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let _ = client.read(&mut [0; 4096]);
            client.write_all(answer.as_bytes()).expect("answer");
        });
        let output = divvy(&["stats", "--coordinator", &url]).output().expect("run the command");
        server.join().expect("no panic");
        assert!(assert_fails(&output, code).contains(&url), "{answer}");
    }
}

#[test]
fn what_others_wrote_cannot_control_the_terminal() {
    let grid = Grid::start();
    let job = r#"{"kind":"sleep","params":{"seconds":600},"affinity":{"key":"a\u001b[2Jb\nc"},"output":null}"#;
    let output = crate::helpers::run_with_input(&mut grid.command(&["job", "submit", "--file", "-"]), job);
    let shown = match output.status.code() {
        Some(0) => grid.stdout(&["job", "list"]) + &grid.stdout(&["job", "show", list_first(&grid).trim_end()]),
        _ => assert_fails(&output, 2),
    };
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

fn list_first(grid: &Grid) -> String {
    grid.stdout(&["job", "list", "--output", "quiet", "--limit", "1"])
}
