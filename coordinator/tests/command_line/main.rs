//! `divvy-coordinator` with arguments of its own.

mod migrate;
mod results_place;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    // A coordinator that does start ends at once: the address cannot be bound.
    command.env("DIVVY_LISTEN_ADDR", "192.0.2.1:1").env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1");
    command.args(arguments).output().expect("run the service")
}

#[test]
fn help_lists_every_variable() {
    for argument in ["--help", "-h"] {
        let output = run(&[argument]);
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{help}");
        for variable in coordinator::config::variables() {
            assert!(help.lines().any(|line| line.trim() == variable.name), "{} in {help}", variable.name);
        }
        for name in ["DIVVY_DATA_DIR", "DIVVY_WORKER_TOKEN", "DIVVY_LOG", "DIVVY_LOG_FORMAT"] {
            assert!(help.contains(name), "{name} in {help}");
        }
        for command in ["front", "migrate"] {
            let usage = format!("       divvy-coordinator {command} ");
            assert!(help.lines().any(|line| line.starts_with(&usage)), "{command} in {help}");
        }
    }
}

#[test]
fn a_configuration_is_checked_without_a_start() {
    let check = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        command.arg("--check-config").env(name, value).output().expect("run the service")
    };
    let valid = check("DIVVY_MAX_INFLIGHT", "7");
    assert_eq!((valid.status.code(), valid.stderr.len()), (Some(0), 0), "{valid:?}");
    for (name, value) in [
        ("DIVVY_MAX_INFLIGHT", "0"),
        ("DIVVY_RESULTS_URL", "s3://"),
        ("DIVVY_RESULTS_URL", "nowhere:"),
        ("DIVVY_RESULTS_URL", "file:results"),
        // Without a port; a build without Kafka takes no broker at all.
        ("DIVVY_KAFKA_BROKERS", "broker"),
    ] {
        let invalid = check(name, value);
        let error = String::from_utf8(invalid.stderr).expect("UTF-8");
        assert!(invalid.status.code() == Some(1) && error.contains(name), "{name}={value}: {error}");
    }
}

#[test]
fn a_check_warns_of_a_variable_that_no_program_reads_as_a_start_does() {
    let warned = "no program reads the variable DIVVY_MAX_INFLIHGT: it has no effect";
    let check = |format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        command.arg("--check-config").env("DIVVY_MAX_INFLIHGT", "7").env("DIVVY_LOG_FORMAT", format);
        let output = command.output().expect("run the service");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    assert_eq!(check("text"), format!("warning: {warned}\n"));
    let line: serde_json::Value = serde_json::from_str(&check("json")).expect("a line of JSON");
    assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("WARN"), Some(warned)));
}

#[test]
fn an_argument_after_an_option_is_named() {
    let output = run(&["--check-config", "x"]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr, "error: divvy-coordinator takes --check-config alone, but \"x\" follows it\n");
}

#[test]
fn a_front_is_configured_by_its_environment_as_the_coordinator_is() {
    let help = run(&["front", "--help"]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0), "{help:?}");
    let lists = |name: &str| String::from_utf8_lossy(&help.stdout).lines().any(|line| line.trim() == name);
    for variable in coordinator::front::command_line().variables {
        assert!(lists(&variable.name), "{} in {help:?}", variable.name);
    }
    assert!(lists("DIVVY_LOG") && !lists("DIVVY_DATA_DIR"), "{help:?}");
    for (arguments, target, code, told) in [
        (&["front", "--check-config"][..], "localhost:1", 0, ""),
        (&["front", "--check-config"], "[::1]:80", 0, ""),
        (&["front", "--check-config"], "", 1, "DIVVY_FRONT_TARGET must be HOST:PORT"),
        (&["front", "--check-config"], ":80", 1, "DIVVY_FRONT_TARGET must be HOST:PORT"),
        (&["front", "--check-config"], "localhost:0", 1, "DIVVY_FRONT_TARGET must be HOST:PORT"),
        (&["front", "--check-config"], "http://localhost:80", 1, "DIVVY_FRONT_TARGET must be HOST:PORT"),
        (&["front"], "localhost", 1, "DIVVY_FRONT_TARGET must be HOST:PORT"),
        (&["front", "--check-config"], "192.0.2.1:1", 1, "192.0.2.1:1 is the front's own (DIVVY_PUBLIC_ADDR)"),
        (&["front", "--check-config"], "192.0.2.1:2", 0, ""),
        (&["front", "--check-config"], "127.0.0.1:1", 0, ""),
        (&["front"], "localhost:1", 1, "listen on 192.0.2.1:1 (DIVVY_PUBLIC_ADDR)"),
        (&["front", "--to", "localhost:1"], "localhost:1", 2, "--help"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        command.env("DIVVY_PUBLIC_ADDR", "192.0.2.1:1").env("DIVVY_FRONT_TARGET", target);
        let output = command.args(arguments).output().expect("run the service");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.code() == Some(code) && stderr.contains(told), "{arguments:?} {target}: {stderr}");
    }
}

/// A coordinator whose database cannot be reached.
fn without_database(results: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    // No process listens on port 1.
    command.env("DIVVY_STORE_URL", "postgres://divvy@127.0.0.1:1/divvy");
    command.env("DIVVY_RESULTS_URL", format!("file://{}", results.path().display()));
    command
}

#[test]
fn start_waits_for_its_database_no_longer_than_it_is_told_to() {
    let output = without_database(&directory()).env("DIVVY_LOCK_TIMEOUT_MS", "0").output().expect("run the service");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!told.contains("waiting for the database"), "{told}");
}

#[test]
fn start_that_waits_for_its_database_ends_well_at_a_signal() {
    let results = directory();
    for signal in ["-TERM", "-INT"] {
        let mut command = without_database(&results);
        command.env("DIVVY_LOCK_TIMEOUT_MS", "600000");
        let mut process = command.stderr(Stdio::piped()).spawn().expect("run the service");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for the database")));
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("run kill");
        assert!(sent.success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(process.wait().expect("it ends").code(), Some(0), "{signal}: {rest:?}");
    }
}

#[test]
fn files_of_a_service_account_are_told_with_the_variable_of_their_directory() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
    command.env("DIVVY_KUBERNETES_ACCOUNT_DIR", "/nowhere").env("DIVVY_WORKER_SERVICE_ACCOUNTS", "divvy:worker");
    let data = directory();
    let output = command.env("DIVVY_DATA_DIR", data.path()).output().expect("run the service");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let told = "use the service account's files in /nowhere (DIVVY_KUBERNETES_ACCOUNT_DIR)";
    assert!(output.status.code() == Some(1) && stderr.contains(told), "{stderr}");
}

/// The name of a large result's object, as the row in the database has it.
const OBJECT: &str = "00000000-0000-0000-0000-000000000001.tag.1.json";

/// A data directory without jobs.
fn directory_with_a_store() -> tempfile::TempDir {
    let data = directory();
    let settings = store_sqlite::StoreSettings {
        data_dir: data.path().to_owned(),
        results_url: None,
        retention: store::Retention::KEEP_ALL,
    };
    drop(store_sqlite::open(settings).expect("it is empty"));
    data
}

#[test]
fn start_without_kafka_warns_where_events_were_published() {
    let data = directory_with_a_store();
    let db = rusqlite::Connection::open(data.path().join("divvy.db")).expect("a database");
    db.execute("INSERT INTO positions (stream, next, mark) VALUES (?1, 1, 0)", [store::OUTBOX]).expect("room");
    db.close().expect("it is whole");
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    let warning = line_with(command.env("DIVVY_DATA_DIR", data.path()), "DIVVY_KAFKA_BROKERS");
    assert!(warning.contains("WARN") && warning.contains("no event is published"), "{warning}");
}

/// The first line of the service's log that contains `mark`. Ends the service.
fn line_with(command: &mut Command, mark: &str) -> String {
    let mut process = command.stderr(Stdio::piped()).spawn().expect("run the service");
    let lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            // The caller may have what it waits for.
            let _ = sender.send(line);
        }
    });
    let (mut told, mut found) = (Vec::new(), None);
    while found.is_none() {
        match receiver.recv_timeout(std::time::Duration::from_secs(60)) {
            Ok(line) if line.contains(mark) => found = Some(line),
            Ok(line) => told.push(line),
            Err(_) => break,
        }
    }
    process.kill().expect("it is not waited for yet");
    process.wait().expect("it ends");
    reader.join().expect("it ends with the process");
    found.unwrap_or_else(|| panic!("{mark} is in none of {told:?}"))
}

fn directory() -> tempfile::TempDir {
    tempfile::TempDir::new().expect("there is room")
}

#[test]
fn a_file_of_tls_that_cannot_be_used_is_told_with_its_variable_before_anything_is_served() {
    for (variables, told) in [
        (&[("DIVVY_CA_FILE", "/nowhere")][..], "DIVVY_CA_FILE cannot be used: read /nowhere as PEM: "),
        (
            &[("DIVVY_CLIENT_CERT", "/nowhere"), ("DIVVY_CLIENT_KEY", "/nowhere")],
            "DIVVY_CLIENT_CERT with DIVVY_CLIENT_KEY cannot be used: read /nowhere as PEM: ",
        ),
        (&[("DIVVY_TLS_SERVER_NAME", "two words")], "DIVVY_TLS_SERVER_NAME cannot be used: \"two words\" is no name"),
        (&[("DIVVY_WORKER_TLS_NAME", "two words")], "DIVVY_WORKER_TLS_NAME cannot be used: \"two words\" is no name"),
    ] {
        let mut start = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        let data_dir = directory();
        start.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
        start.env("DIVVY_DATA_DIR", data_dir.path()).envs(variables.iter().copied());
        let output = start.output().expect("run the service");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.code() == Some(1) && stderr.starts_with(&format!("error: {told}")), "{stderr}");
    }
}

/// The Jobs that try an upgrade have the variables of the pods and none of their volumes.
#[test]
fn check_needs_none_of_the_files_that_variables_name() {
    let files = ["API_TOKENS_FILE", "CA_FILE", "CLIENT_CERT", "CLIENT_KEY", "TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA"];
    let output = check(&files.map(|name| (format!("DIVVY_{name}"), "/nowhere")));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for (variables, told) in [
        (&[("DIVVY_TLS_CERT", "/nowhere")][..], "set both DIVVY_TLS_CERT and DIVVY_TLS_KEY, or neither"),
        (&[("DIVVY_CLIENT_KEY", "/nowhere")], "set both DIVVY_CLIENT_CERT and DIVVY_CLIENT_KEY, or neither"),
        (&[("DIVVY_TLS_SERVER_NAME", "two words")], "DIVVY_TLS_SERVER_NAME cannot be used: \"two words\" is no name"),
    ] {
        let output = check(variables);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.starts_with(&format!("error: {told}")), "{stderr}");
    }
}

fn check<N: AsRef<std::ffi::OsStr>>(variables: &[(N, &str)]) -> Output {
    let mut check = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    let variables = variables.iter().map(|(name, value)| (name, value));
    check.arg("--check-config").envs(variables).output().expect("run the service")
}
