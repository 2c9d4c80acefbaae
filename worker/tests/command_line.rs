//! `divvy-worker` with arguments, and with no one to read its log.

use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
    // Where it does start, it ends at once: the address cannot be bound.
    command.env("DIVVY_LISTEN_ADDR", "192.0.2.1:1").env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1");
    command.args(arguments).output().expect("run the service")
}

#[test]
fn help_lists_every_variable() {
    for argument in ["--help", "-h"] {
        let output = run(&[argument]);
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
fn version_is_printed() {
    let output = run(&["--version"]);
    let expected = concat!("divvy-worker ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), expected));
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

#[test]
fn every_other_argument_is_refused_in_one_line() {
    for arguments in [&["--port", "1"][..], &["serve"], &[""], &["--help", "x"], &["--version=1"]] {
        let output = run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.len(), stderr.lines().count()), (Some(2), 0, 1), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains("--help"), "{stderr}");
    }
}

#[test]
fn failure_to_start_is_an_exit_code_even_without_a_stderr() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
    command.env("DIVVY_LISTEN_ADDR", "192.0.2.1:1").env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1");
    let status = command.stdout(Stdio::null()).stderr(writer).status().expect("run the service");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn failure_to_start_is_a_line_of_json_where_the_log_is() {
    // The second cannot even start its log.
    for variables in [&[("DIVVY_LOG", "off")][..], &[("DIVVY_LOG", "a=b=c")]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
        command.env("DIVVY_LISTEN_ADDR", "192.0.2.1:1").env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1");
        command.env("DIVVY_LOG_FORMAT", "json").envs(variables.iter().copied());
        let stderr = String::from_utf8(command.output().expect("run the service").stderr).expect("UTF-8");
        let error: serde_json::Value = serde_json::from_str(&stderr).expect("one line of JSON");
        assert_eq!(error["level"], "ERROR", "{stderr}");
        assert!(
            error["message"].as_str().is_some_and(|message| message.contains("DIVVY_L") || message.contains("DIVVY_P")),
            "{stderr}"
        );
        assert!(error["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{stderr}");
    }
}

#[test]
fn a_wrong_value_of_any_variable_is_one_line_with_its_name() {
    for variable in worker::config::variables() {
        for value in ["word", "-1"] {
            let mut check = Command::new(env!("CARGO_BIN_EXE_divvy-worker"));
            check.arg("--check-config").env(&variable.name, value);
            let output = check.output().expect("run the service");
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            let is_refused = stderr.starts_with("error: ") && stderr.contains(&variable.name);
            let is_as_expected = match output.status.code() {
                Some(0) => stderr.is_empty(),
                Some(1) => is_refused && stderr.lines().count() == 1,
                _ => false,
            };
            assert!(is_as_expected, "{}={value:?}: {:?} {stderr}", variable.name, output.status);
        }
    }
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
