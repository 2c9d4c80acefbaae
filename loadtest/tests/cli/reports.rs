//! Reports, written and printed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::helpers::{Behavior, Bench, Server};

#[test]
fn json_on_stdout_is_the_report_file() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(100, 0.2, &[]).with(&["--output", "json"]).run(&[&server.url()]);
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON alone");
    assert_eq!(printed, ended.json());
    assert_eq!(printed["passed"], true);
    // There is one slice for each send, and more if the last answers came late.
    assert!(printed["measured"]["slices"].as_array().is_some_and(|slices| slices.len() >= 20), "{printed}");
    for name in ["p50", "p90", "p99", "p99_9", "max"] {
        assert!(printed["measured"]["latency_ms"][name].as_f64().is_some_and(|ms| ms > 0.0), "{name}");
    }
}

#[test]
fn the_page_stands_alone() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(100, 0.2, &[]).run(&[&server.url()]);
    let html = ended.html();
    assert_eq!(html.matches("<svg").count(), 3);
    for foreign in ["<script", "<link", "<img", " src=", " href=", "url(", "@import"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn names_of_files_need_not_be_text() {
    let server = Server::start(Behavior::Correct);
    let bench = Bench::steady(100, 0.1, &[]);
    let (directory, scenario) = (bench.directory.path(), OsStr::from_bytes(b"sc\xff.toml"));
    fs::rename(directory.join("scenario.toml"), directory.join(scenario)).expect("rename the scenario");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.current_dir(directory).arg(scenario).args(["--report", "report", "--output", "json", "--url"]);
    let output = command.arg(server.url()).output().expect("start the binary");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert!(report["command"].as_str().is_some_and(|command| command.contains("sc\u{fffd}.toml")), "{report}");
}

#[test]
fn labels_are_escaped_in_the_page() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(100, 0.1, &[]).with(&["--label", "<b>&"]).run(&[&server.url()]);
    let html = ended.html();
    assert!(html.contains("&lt;b&gt;&amp;") && !html.contains("<b>"));
}

#[test]
fn a_baseline_stands_beside_the_run_in_table_and_charts() {
    let slow = Server::start(Behavior::Slow(Duration::from_secs(3)));
    let bench = Bench::steady(50, 0.4, &[]).with(&["--seed", "7", "--label", "replicated"]);
    bench.run(&[&slow.url()]);
    let earlier = bench.directory.path().join("earlier.json");
    fs::copy(bench.directory.path().join("report/report.json"), &earlier).expect("copy");

    let fast = Server::start(Behavior::Correct);
    let earlier = earlier.to_str().expect("UTF-8");
    let compare = |seed| {
        let arguments = ["--seed", seed, "--label", "coordinator", "--baseline", earlier];
        Bench::steady(50, 0.4, &[]).with(&arguments).run(&[&fast.url()])
    };
    let ended = compare("7");
    assert!(ended.stdout.contains("the baseline is replicated\n"), "{}", ended.stdout);
    let title = ended.stdout.lines().find(|line| line.contains("this run")).expect("titles");
    assert_eq!(title.split_whitespace().collect::<Vec<_>>(), ["this", "run", "baseline"], "a title for each column");
    let html = ended.html();
    for part in ["replicated", "coordinator", "line run", "line base", "band base", "class=\"good\">−"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("compare with care"));
    assert!(compare("8").html().contains("compare with care"));
}
