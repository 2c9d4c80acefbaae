//! The commands of the services: their common answers to arguments, wrong variables, and a closed stderr.

use std::process::{Command, Output, Stdio};

use crate::helpers::command;

const SERVICES: [&str; 2] = ["divvy-coordinator", "divvy-worker"];

/// The programs of the services, each as the beginning of a command line.
const PROGRAMS: [&[&str]; 3] = [&["divvy-coordinator"], &["divvy-coordinator", "front"], &["divvy-worker"]];

/// A service that ends at once where it does start: its address cannot be bound.
fn service(name: &str, arguments: &[&str]) -> Command {
    let mut service = command(name);
    service.env("DIVVY_LISTEN_ADDR", "192.0.2.1:1").env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1").args(arguments);
    service
}

fn run(mut service: Command) -> (Output, String) {
    let output = service.output().expect("run the service");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

#[test]
fn version_is_printed() {
    for name in SERVICES {
        let (output, _) = run(service(name, &["--version"]));
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), &*expected));
    }
}

#[test]
fn every_other_argument_is_refused_in_one_line() {
    for name in SERVICES {
        for arguments in [&["--port", "1"][..], &["serve"], &[""], &["--help", "x"], &["--version=1"]] {
            let (output, stderr) = run(service(name, arguments));
            let shape = (output.status.code(), output.stdout.len(), stderr.lines().count());
            assert_eq!(shape, (Some(2), 0, 1), "{name}: {stderr}");
            assert!(stderr.starts_with("error: ") && stderr.contains("--help"), "{name}: {stderr}");
        }
    }
}

#[test]
fn failure_to_start_is_an_exit_code_even_without_a_stderr() {
    for name in SERVICES {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = service(name, &[]).stdout(Stdio::null()).stderr(writer).status().expect("run the service");
        assert_eq!(status.code(), Some(1), "{name}");
    }
}

#[test]
fn failure_to_start_is_a_line_of_json_where_the_log_is() {
    for name in SERVICES {
        // The second cannot even start its log.
        for log in ["off", "a=b=c"] {
            let mut failing = service(name, &[]);
            failing.env("DIVVY_LOG_FORMAT", "json").env("DIVVY_LOG", log);
            let (_, stderr) = run(failing);
            let error: serde_json::Value = serde_json::from_str(&stderr).expect("one line of JSON");
            assert_eq!(error["level"], "ERROR", "{name}: {stderr}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(message.contains("DIVVY_L") || message.contains("DIVVY_P"), "{name}: {stderr}");
            assert!(error["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{name}: {stderr}");
        }
    }
}

#[test]
fn a_wrong_value_of_any_variable_is_one_line_with_its_name() {
    let program = |arguments: &[&str]| {
        let mut program = command(arguments[0]);
        // Of the front alone, which has no default for it.
        program.args(&arguments[1..]).env("DIVVY_FRONT_TARGET", "localhost:1");
        program
    };
    for arguments in PROGRAMS {
        let help = program(arguments).arg("--help").output().expect("run the service");
        let help = String::from_utf8(help.stdout).expect("UTF-8");
        let variables: Vec<_> = help.lines().map(str::trim).filter(|line| is_variable(line)).collect();
        assert!(variables.len() > 3, "{help}");
        for variable in variables {
            for value in ["word", "-1"] {
                let mut check = program(arguments);
                check.arg("--check-config").env(variable, value);
                let (output, stderr) = run(check);
                let is_refused = stderr.starts_with("error: ") && stderr.contains(variable);
                let is_as_expected = match output.status.code() {
                    Some(0) => stderr.is_empty(),
                    Some(1) => is_refused && stderr.lines().count() == 1,
                    _ => false,
                };
                assert!(is_as_expected, "{arguments:?} {variable}={value:?}: {:?} {stderr}", output.status);
            }
        }
    }
}

/// Whether a line of the help names a variable.
fn is_variable(line: &str) -> bool {
    line.starts_with("DIVVY_") && line.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}
