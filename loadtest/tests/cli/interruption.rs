//! A run that ends before its time, and the limits of its own process.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{Behavior, Bench, Server};

#[test]
fn interrupted_run_writes_a_report_that_says_so() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        an_interrupted_run_writes_a_report(signal);
    }
}

fn an_interrupted_run_writes_a_report(signal: &str) {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 60.0, &[]);
    let output = interrupted(&bench, &server, signal);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("PARTIAL") && !stdout.contains("p99_limit_ms"), "no verdict on a limit: {stdout}");
    let read = |name: &str| fs::read_to_string(bench.directory.path().join("report").join(name)).expect(name);
    let report: Value = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!((&report["partial"], &report["passed"]), (&true.into(), &false.into()));
    let planned = report["measured"]["planned"].as_u64().expect("a number");
    assert!((10..3000).contains(&planned) && report["measured"]["correct"] == planned, "{report}");
    let html = read("report.html");
    assert!(html.contains("Partial: interrupted before its end") && !html.contains("p99_limit_ms"), "{html}");
}

#[test]
fn interrupted_ramp_gives_no_verdict_on_its_first_rate() {
    let server = Server::start(Behavior::Correct);
    let ramp = "[ramp]\nfirst_rate_qps = 50\nrate_factor = 2\nlast_rate_qps = 1000\nhalvings = 2\n\
                step_duration_s = 60.0\nrate_floor_qps = 50";
    let bench = Bench::scenario(ramp, &[]);
    let output = interrupted(&bench, &server, "-INT");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("no rate was measured to its end") && !stdout.contains("rate_floor_qps"), "{stdout}");
    assert!(!stdout.contains("limits missed"), "{stdout}");
    let html = fs::read_to_string(bench.directory.path().join("report/report.html")).expect("a page");
    assert!(html.contains("No rate was measured to its end") && !html.contains(">missed<"), "{html}");
}

#[test]
fn comparison_with_an_interrupted_run_says_so() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 60.0, &[]);
    interrupted(&bench, &server, "-INT");
    let earlier = bench.directory.path().join("report/report.json");
    let earlier = earlier.to_str().expect("UTF-8");
    let ended = Bench::steady(50, 0.1, &[]).with(&["--baseline", earlier]).run(&[&server.url()]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let warning = "The baseline was interrupted";
    assert!(ended.stdout.contains(warning) && ended.html().contains(warning), "{}", ended.stdout);
}

/// The output of a run that gets a signal when it has sent some requests.
fn interrupted(bench: &Bench, server: &Server, signal: &str) -> Output {
    // It minds the end of its terminal also where this test ignores it, as below `nohup`.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_loadtest")]);
    command.current_dir(bench.directory.path()).args(["scenario.toml", "--report", "report", "--url", &server.url()]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start the binary");
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.requests().len() < 10 {
        assert!(Instant::now() < deadline, "no request came");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().expect("run kill").success());
    let output = process.wait_with_output().expect("wait for the binary");
    assert_eq!(output.status.code(), Some(130), "{signal}");
    output
}

#[test]
fn run_of_nohup_goes_on_at_the_end_of_its_terminal() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 2.0, &[]);
    let mut command = Command::new("nohup");
    command.current_dir(bench.directory.path()).arg(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["scenario.toml", "--report", "report", "--url", &server.url()]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start nohup");
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.requests().is_empty() {
        assert!(Instant::now() < deadline, "no request came");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-HUP", &process.id().to_string()]).status().expect("run kill").success());
    assert!(matches!(process.wait().expect("wait for nohup").code(), Some(0 | 1)));
    let report = fs::read(bench.directory.path().join("report/report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!((&report["partial"], &report["measured"]["planned"]), (&false.into(), &100.into()));
}

#[test]
fn result_is_printed_although_it_cannot_be_written() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 0.2, &[]);
    // A directory where the page should be.
    fs::create_dir_all(bench.directory.path().join("report/report.html")).expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.current_dir(bench.directory.path()).args(["scenario.toml", "--report", "report", "--url", &server.url()]);
    let output = command.output().expect("run the binary");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("p50, ms"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write report/report.html"));
}

#[test]
fn open_files_are_raised_to_what_a_run_needs_or_it_does_not_start() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 0.2, &[]);
    // The scenario's 200 requests at once need 264 files.
    for (limits, code) in [("ulimit -Sn 64", 0), ("ulimit -n 128", 2)] {
        let mut shell = Command::new("sh");
        let line = format!("{limits}; exec \"$0\" scenario.toml --report report --url {}", server.url());
        shell.current_dir(bench.directory.path()).args(["-c", &line, env!("CARGO_BIN_EXE_loadtest")]);
        let output = shell.output().expect("run a shell");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{limits}: {stderr}");
        assert!(code == 0 || stderr.contains("ulimit -n 264"), "{stderr}");
    }
}

#[test]
fn closed_streams_change_no_exit_code() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(50, 0.1, &[]);
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    for (url, code) in [(server.url(), 0), ("http://127.0.0.1:1".to_owned(), 3)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.current_dir(bench.directory.path()).args(["scenario.toml", "--report", "report", "--url", &url]);
        let status = command.stdout(gone()).stderr(gone()).status().expect("run the binary");
        assert_eq!(status.code(), Some(code), "{url}");
    }
}

#[test]
fn page_fits_the_width_of_a_phone() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(100, 0.1, &[]).run(&[&server.url()]);
    // Without a least width of 0 the grid's column is as wide as the widest chart, and the page is cut.
    assert!(ended.html().contains("grid-template-columns: minmax(0, 1fr)"));
}
