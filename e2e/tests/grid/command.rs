//! The `divvy` command, as scripts and people see it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::helpers::{Coordinator, Process, Signal, Worker, divvy, get, heavy, published_sum};

#[test]
fn sum_of_primes_prints_the_sum_and_nothing_else() {
    let _turn = heavy();
    let output = run(&["sum-of-primes", "1", "1000000000"]);
    assert_eq!(text(&output.stdout), "24739512092254535\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn json_output_is_the_whole_answer() {
    let output = run(&["sum-of-primes", "10", "3700000", "--output", "json", "--workers", "1"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&answer["a"], &answer["b"], &answer["tasks"]), (&10.into(), &3_700_000.into(), &2.into()));
    assert_eq!(answer["sum"], "468476582935");
    assert!(answer["elapsed_ms"].is_u64());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn running_grid_is_asked_by_option_or_variable() {
    let coordinator = Coordinator::start(&[]);
    let _worker = Worker::join(&coordinator, &[]);
    let url = format!("http://{}", coordinator.public);
    let by_option = run(&["sum-of-primes", "1", "1000", "--coordinator", &url]);
    let by_variable = divvy(&["sum-of-primes", "1", "1000"]).env("DIVVY_URL", &url).output().expect("run");
    for output in [by_option, by_variable] {
        assert_eq!(text(&output.stdout), format!("{}\n", published_sum(3)));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    }
    coordinator.wait_for_metric(r#"divvy_leases_total{outcome="completed"}"#, 2.0);
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for arguments in [
        &["sum-of-primes", "3", "2"][..],
        &["sum-of-primes", "one", "2"],
        &["sum-of-primes", "-1", "2"],
        &["sum-of-primes", "1", "18446744073709551616"],
        &["sum-of-primes", "1"],
        &["sum-of-primes", "1", "2", "--output", "xml"],
        &["sum-of-primes", "1", "2", "--coordinator", "ftp://x"],
        &["sum-of-primes", "1", "2", "--coordinator", "http://127.0.0.1:1", "--workers", "2"],
        &["sum-of-prime", "1", "2"],
        &["up", "--workers", "0"],
        &["up", "--port", "65536"],
        &[],
    ] {
        assert_fails(run(arguments), 2, &format!("{arguments:?}"));
    }
}

#[test]
fn unreachable_grid_is_one_line_and_exit_code_3() {
    // At a port that no other process takes.
    let mut gone = Coordinator::start_to_stay(&[]);
    gone.kill();
    let url = format!("http://{}", gone.public);
    let line = assert_fails(run(&["sum-of-primes", "1", "2", "--coordinator", &url]), 3, "unreachable");
    assert!(line.contains(&gone.public.to_string()), "{line}");
}

#[test]
fn failed_job_is_one_line_and_exit_code_1() {
    let coordinator = Coordinator::start(&[("DIVVY_NO_WORKER_TIMEOUT_MS", "100")]);
    let url = format!("http://{}", coordinator.public);
    let line = assert_fails(run(&["sum-of-primes", "1", "2", "--coordinator", &url]), 1, "no worker");
    assert!(line.contains("no worker was ready for 100 ms"), "{line}");
}

#[test]
fn help_names_every_default() {
    for (arguments, defaults) in [
        (&["up", "--help"][..], &["[default: one per core]", "[default: 8080]", "[default: 127.0.0.1]"][..]),
        (&["sum-of-primes", "--help"], &["[default: one per core]", "[default: text]", "DIVVY_URL"]),
        (&["--help"], &["sum-of-primes", "up", "Exit codes", "DIVVY_URL", "DIVVY_TOKEN", "DIVVY_CA_FILE"]),
    ] {
        let output = run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        for default in defaults {
            assert!(text(&output.stdout).contains(default), "{default} in {}", text(&output.stdout));
        }
    }
}

#[test]
fn grid_that_stays_prints_its_url_answers_and_stops_without_a_trace() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut up = Process::spawn(divvy(&["up", "--workers", "2", "--port", "0"]).stdout(Stdio::piped()));
        let mut stdout = BufReader::new(up.take_stdout());
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let address: SocketAddr =
            line.trim_end().strip_prefix("http://").and_then(|address| address.parse().ok()).expect("a URL");
        assert_eq!(get(address, "/sum-of-primes?a=1&b=100000000").sum(), published_sum(8));
        up.signal(signal);
        assert_eq!(up.exit_status().code(), Some(0));
        line.clear();
        assert_eq!(stdout.read_line(&mut line).expect("the end"), 0, "{line}");
        assert!(TcpStream::connect(address).is_err(), "somebody still listens");
    }
}

#[test]
fn taken_port_is_one_line_and_exit_code_1() {
    let coordinator = Coordinator::start(&[]);
    let line = assert_fails(run(&["up", "--port", &coordinator.public.port().to_string()]), 1, "taken");
    assert!(line.contains(&coordinator.public.to_string()), "{line}");
}

fn run(arguments: &[&str]) -> Output {
    divvy(arguments).output().expect("run the command")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Asserts a failure with this exit code and exactly one line on stderr, which is the answer.
fn assert_fails(output: Output, code: i32, case: &str) -> String {
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{case}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{case}: {stderr}");
    assert!(stderr.ends_with('\n') && stderr.len() > 20, "{case}: {stderr}");
    stderr
}
