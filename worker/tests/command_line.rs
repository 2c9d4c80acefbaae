//! `divvy-worker` with arguments of its own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn help_lists_every_variable() {
    for argument in ["--help", "-h"] {
        let output = Command::new(env!("CARGO_BIN_EXE_divvy-worker")).arg(argument).output().expect("run the service");
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{help}");
        for variable in worker::config::variables() {
            assert!(help.lines().any(|line| line.trim() == variable.name), "{} in {help}", variable.name);
        }
        for name in ["DIVVY_SLOTS", "DIVVY_WORKER_TOKEN", "DIVVY_LOG", "DIVVY_LOG_FORMAT"] {
            assert!(help.contains(name), "{name} in {help}");
        }
    }
}

#[test]
fn a_configuration_is_checked_without_a_start() {
    let check = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
        command.arg("--check-config").env("DIVVY_SLOTS", value).output().expect("run the service")
    };
    let (valid, invalid) = (check("7"), check("0"));
    assert_eq!((valid.status.code(), valid.stderr.len()), (Some(0), 0), "{valid:?}");
    let error = String::from_utf8(invalid.stderr).expect("UTF-8");
    assert!(invalid.status.code() == Some(1) && error.contains("DIVVY_SLOTS must be"), "{error}");
}

/// The Jobs that try an upgrade have the variables of the pods and none of their volumes.
#[test]
fn check_needs_none_of_the_files_that_variables_name() {
    let mut check = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
    check.arg("--check-config");
    let of_tls = ["CA_FILE", "CLIENT_CERT", "CLIENT_KEY", "TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA"];
    for name in of_tls.into_iter().chain(["PROGRAMS", "WORKER_TOKEN_FILE"]) {
        check.env(format!("DIVVY_{name}"), "/nowhere");
    }
    let output = check.output().expect("run the service");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_program_directory_that_is_named_and_cannot_be_used_is_warned_about() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
    command.env("DIVVY_PROGRAM_DIR", "/dev/null/programs").env("DIVVY_LISTEN_ADDR", "127.0.0.1:0");
    command.env("DIVVY_COORDINATOR", "http://127.0.0.1:1").env("DIVVY_LOG", "warn");
    let mut worker = command.stderr(Stdio::piped()).spawn().expect("start a worker");
    let lines = BufReader::new(worker.stderr.take().expect("piped")).lines().map_while(Result::ok);
    // The first heartbeat comes after everything that a start has to say.
    let mut of_start = lines.take_while(|line| !line.contains("takes no heartbeat"));
    let is_told = of_start.any(|line| line.contains("DIVVY_PROGRAM_DIR cannot be used"));
    worker.kill().and_then(|()| worker.wait()).expect("end the worker");
    assert!(is_told);
}
