//! `divvy up`, `divvy monitor` and the replay of statistics with a real broker of Apache Kafka.

mod helpers;
mod topics;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use helpers::{Broker, eventually};
use serde_json::{Value, json};

/// A program with none of this environment's settings.
fn command(program: &str, broker: &Broker) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DIVVY_")) {
        command.env_remove(name);
    }
    command.env("DIVVY_KAFKA_BROKERS", broker.address()).env("DIVVY_KAFKA_PREFIX", broker.prefix());
    command.stdin(Stdio::null());
    command
}

/// The command with none of this environment's settings.
fn divvy(arguments: &[&str], broker: &Broker) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_divvy"), broker);
    command.args(arguments);
    command
}

/// A grid; killed when dropped.
struct Grid(Child, String);

impl Grid {
    fn start(broker: &Broker) -> Self {
        let mut command = divvy(&["up", "--workers", "2", "--port", "0"], broker);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("a URL");
        Self(child, url.trim().to_owned())
    }

    /// The standard output of a command that asks this grid.
    fn run(&self, broker: &Broker, arguments: &[&str]) -> Output {
        divvy(arguments, broker).env("DIVVY_URL", &self.1).output().expect("start")
    }

    /// Host and port of the grid's URL.
    fn address(&self) -> &str {
        self.1.trim_start_matches("http://")
    }

    fn work(&self, broker: &Broker) {
        for range in [["1", "1e6"], ["5", "1e7"]] {
            let submit = ["job", "submit", "count-primes", range[0], range[1], "--wait"];
            let done = self.run(broker, &submit);
            assert!(done.status.success(), "{done:?}");
        }
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn monitor_prints_workers_and_events_of_a_grid_that_got_the_brokers_from_its_environment() {
    let broker = Broker::shared();
    let grid = Grid::start(&broker);
    grid.work(&broker);
    eventually("the workers are published", || (broker.records("workers").len() >= 2).then_some(()));
    eventually("the events are published", || (broker.records("events").len() >= 4).then_some(()));
    let arguments = ["monitor", "--from-beginning", "--events", "--output", "json"];
    let mut monitor = divvy(&arguments, &broker).stdout(Stdio::piped()).spawn().expect("start");
    let lines = BufReader::new(monitor.stdout.take().expect("piped")).lines();
    let (mut workers, mut ended) = (std::collections::BTreeSet::new(), 0);
    for line in lines {
        let value: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        workers.extend(value["id"].as_str().map(str::to_owned));
        ended += usize::from(value["type"] == "succeeded");
        if workers.len() == 2 && ended == 2 {
            break;
        }
    }
    monitor.kill().expect("kill the monitor");
    monitor.wait().expect("wait for the monitor");
    assert!(workers.contains("worker-1") && workers.contains("worker-2"), "{workers:?}");
    let without = divvy(&["monitor"], &broker).env_remove("DIVVY_KAFKA_BROKERS").output().expect("start");
    assert_eq!(without.status.code(), Some(2));
    let unnamed = divvy(&["monitor", "--group", ""], &broker).output().expect("start");
    assert_eq!(unnamed.status.code(), Some(2), "a group has a name");
}

/// The state of a worker as a record.
fn worker(id: &str) -> String {
    let at = "2026-03-21T10:00:00Z";
    json!({"id": id, "at": at, "state": "ready", "load": 0.5, "slots": 4, "busy": 3, "tasks_done": 7}).to_string()
}

#[test]
fn monitor_names_a_record_that_divvy_did_not_publish_and_goes_on() {
    let broker = Broker::shared();
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    broker.produce("workers", &[worker("first"), "no worker".to_owned(), worker("second")], &[]);
    let mut command = divvy(&["monitor", "--from-beginning", "--output", "quiet"], &broker);
    let mut monitor = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let lines = BufReader::new(monitor.stdout.take().expect("piped")).lines().take(2);
    let workers: Vec<_> = lines.map(|line| line.expect("text")).collect();
    monitor.kill().expect("kill the monitor");
    let said = monitor.wait_with_output().expect("wait for the monitor").stderr;
    let said = String::from_utf8_lossy(&said);
    assert_eq!(workers, ["first", "second"], "{said}");
    let warning = format!("warning: record 1 of {} is not what divvy publishes: ", broker.topic("workers"));
    assert!(said.contains(&warning), "{said}");
}

#[test]
fn monitor_says_why_no_broker_takes_it() {
    let broker = Broker::start_guarded();
    let config = broker.config().replace("divvy-secret", "wrong");
    let refused = divvy(&["monitor"], &broker).env("DIVVY_KAFKA_CONFIG", config).output().expect("start");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("no broker can be reached: ") && said.contains("Authentication failed"), "{said}");
}

/// The first lines that a command prints. The command is killed then.
fn first_lines(command: &mut Command, count: usize) -> Vec<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().take(count);
    let lines: Vec<_> = lines.map(|line| line.expect("text").trim_end().to_owned()).collect();
    child.kill().expect("kill the command");
    child.wait().expect("wait for the command");
    lines
}

#[test]
fn monitor_prints_a_table_with_a_head_on_a_terminal_and_without_one_elsewhere() {
    let broker = Broker::shared();
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    broker.produce("workers", &[worker("worker-1")], &[]);
    let head = "AT                    WORKER                    STATE         BUSY   LOAD        DONE";
    let line = "2026-03-21T10:00:00Z  worker-1                  ready          3/4    50%           7";
    // A pseudo terminal of the kernel, opened by `script` of util-linux. A monitor that ignored SIGHUP, as below
    // `nohup`, would outlive it.
    let monitor = format!("exec {} monitor --from-beginning", env!("CARGO_BIN_EXE_divvy"));
    let mut terminal = command("env", &broker);
    terminal.args(["--default-signal=HUP", "script", "--quiet", "--flush", "--command", &monitor, "/dev/null"]);
    terminal.env("SHELL", "/bin/sh").env("TERM", "xterm-256color").stdin(Stdio::piped());
    assert_eq!(first_lines(&mut terminal, 2), [head, line]);
    assert_eq!(first_lines(&mut divvy(&["monitor", "--from-beginning"], &broker), 1), [line]);
}

/// The workers that a monitor in a group prints, which is interrupted once it has printed this one.
fn read_in_group(broker: &Broker, last: &str) -> Vec<String> {
    let arguments = ["monitor", "--from-beginning", "--group", broker.prefix(), "--output", "quiet"];
    let mut monitor = divvy(&arguments, broker).stdout(Stdio::piped()).spawn().expect("start");
    let lines = BufReader::new(monitor.stdout.take().expect("piped")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let mut workers: Vec<String> = Vec::new();
    while workers.last().is_none_or(|worker| worker != last) {
        workers.push(lines.next().expect("the monitor goes on"));
    }
    let sent = Command::new("kill").args(["-TERM", &monitor.id().to_string()]).status().expect("kill");
    assert!(sent.success(), "the monitor is gone");
    workers.extend(lines);
    assert_eq!(monitor.wait().expect("wait for the monitor").code(), Some(130));
    workers
}

#[test]
fn monitor_in_a_group_goes_on_where_it_was_interrupted() {
    let broker = Broker::shared();
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    let mut names: Vec<_> = (0..20_000).map(|number| format!("worker-{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| worker(name)).collect();
    broker.produce("workers", &records, &[]);
    // More lines than a pipe holds: most are not printed when the signal comes.
    let mut read = read_in_group(&broker, "worker-9");
    broker.produce("workers", &[worker("last")], &[]);
    names.push("last".to_owned());
    read.extend(read_in_group(&broker, "last"));
    let wrong = read.iter().zip(&names).position(|(read, name)| read != name);
    assert_eq!((read.len(), wrong), (names.len(), None));
}

#[test]
fn monitor_in_a_group_reads_a_record_again_that_it_could_not_print() {
    let broker = Broker::shared();
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    broker.produce("workers", &["first", "second"].map(worker), &[]);
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let arguments = ["monitor", "--from-beginning", "--group", broker.prefix(), "--output", "quiet"];
    let ended = divvy(&arguments, &broker).stdout(writer).status().expect("start");
    assert_eq!(ended.code(), Some(141), "nobody reads what it prints");
    assert_eq!(read_in_group(&broker, "second"), ["first", "second"]);
}

#[test]
fn replay_finds_the_stored_statistics_in_the_events_and_says_where_they_are_not() {
    let broker = Broker::shared();
    let grid = Grid::start(&broker);
    grid.work(&broker);
    let replay = || grid.run(&broker, &["statistics", "--replay-from-kafka"]);
    let same = replay();
    let said = String::from_utf8_lossy(&same.stdout).into_owned();
    assert!(same.status.success(), "{same:?}");
    for grain in ["minute", "hour", "day"] {
        let line = said.lines().find(|line| line.starts_with(grain)).expect("a line");
        assert!(!line.contains(" 0 equal") && line.contains(" 0 different"), "{said}");
    }
    // The oldest records of each partition go.
    let partitions: std::collections::BTreeSet<_> =
        broker.records("events").iter().map(|record| record.partition).collect();
    broker.produce("events", &["no event".to_owned()], &[]);
    let places =
        partitions.iter().map(|number| json!({"topic": broker.topic("events"), "partition": number, "offset": 1}));
    let file = broker.path("delete.json");
    let places = json!({"partitions": places.collect::<Vec<_>>(), "version": 1});
    std::fs::write(&file, places.to_string()).expect("room");
    broker.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file.to_str().expect("a path")]);
    let other = replay();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let warned = String::from_utf8_lossy(&other.stderr).into_owned();
    let lost = match partitions.len() {
        1 => "1 event is".to_owned(),
        lost => format!("{lost} events are"),
    };
    assert!(warned.contains(&format!("warning: {lost} not in Kafka")), "{warned}");
    assert!(warned.contains("is not what divvy publishes"), "{warned}");
    assert!(!String::from_utf8_lossy(&other.stdout).contains(" 0 different"), "{other:?}");
}

/// Asks a grid with an empty POST.
fn post(address: &str, target: &str) {
    let mut stream = TcpStream::connect(address).expect("connect");
    let head = format!("POST {target} HTTP/1.0\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Pauses and resumes the jobs of a grid.
fn change_jobs(address: &str) {
    post(address, "/v1/jobs/all/pause?kind=sleep");
    post(address, "/v1/jobs/all/resume?kind=sleep");
}

/// Passes a client's requests on to a grid, whose jobs change before each request for statistics.
fn pass_on(mut client: TcpStream, address: &str) {
    let Ok(mut grid) = TcpStream::connect(address) else { return };
    let (mut answers, mut asking) = (grid.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
    thread::spawn(move || io::copy(&mut answers, &mut asking));
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        if String::from_utf8_lossy(&bytes[..count]).contains("/v1/statistics") {
            change_jobs(address);
        }
        if grid.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// Starts a server that passes requests on to a grid as [`pass_on`] does. Returns its URL.
fn start_between(grid: &Grid) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let address = grid.address().to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let address = address.clone();
            thread::spawn(move || pass_on(client, &address));
        }
    });
    url
}

#[test]
fn replay_compares_to_the_last_number_while_events_go_on() {
    let broker = Broker::shared();
    let grid = Grid::start(&broker);
    grid.work(&broker);
    for _ in 0..20 {
        let submit = ["job", "submit", "sleep", "--seconds", "0.01", "--tasks", "1000000", "--output", "quiet"];
        let done = grid.run(&broker, &submit);
        assert!(done.status.success(), "{done:?}");
    }
    let (url, is_over) = (start_between(&grid), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                change_jobs(grid.address());
            }
        });
        let replay = || divvy(&["statistics", "--replay-from-kafka"], &broker).env("DIVVY_URL", &url).output();
        let outputs: Vec<_> = (0..3).map(|_| replay().expect("start")).collect();
        is_over.store(true, Ordering::Relaxed);
        for output in outputs {
            assert!(output.status.success(), "{output:?}");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(told.contains("of them while the figures were read"), "the grid was not busy: {told}");
        }
    });
}
