//! `divvy monitor` while its topics change.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::helpers::{Broker, eventually};
use super::{divvy, worker};

/// A monitor whose lines are read as they come; killed when dropped.
struct Monitor {
    child: Child,
    lines: mpsc::Receiver<String>,
}

/// Passes the lines of an output on.
fn pass_on(output: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
}

impl Monitor {
    /// Starts a monitor that prints workers' names and soon notices what has changed.
    fn start(broker: &Broker, options: &[&str]) -> Self {
        let mut command = divvy(&["monitor", "--output", "quiet"], broker);
        command.args(options).env("DIVVY_KAFKA_CONFIG", "topic.metadata.refresh.interval.ms=500");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let (sender, lines) = mpsc::channel();
        pass_on(child.stdout.take().expect("piped"), sender.clone());
        pass_on(child.stderr.take().expect("piped"), sender);
        Self { child, lines }
    }

    /// Waits for a line that begins so.
    fn wait_for(&self, start: &str) {
        let is_there = || self.lines.try_iter().any(|line| line.starts_with(start));
        eventually(&format!("it prints {start}"), || is_there().then_some(()));
    }

    /// Waits until it prints new records of the first partition.
    fn wait_until_it_reads(&self, broker: &Broker) {
        eventually("it reads", || {
            broker.produce_in("workers", 0, &[worker("first")]);
            self.lines.try_iter().any(|line| line == "first").then_some(())
        });
    }

    /// SIGTERM, and waits for the end.
    fn interrupt(mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success(), "the monitor is gone");
        assert_eq!(self.child.wait().expect("wait for the monitor").code(), Some(130));
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker with workers' records in this number of partitions.
fn broker(partitions: &str) -> Broker {
    let broker = Broker::shared();
    broker.change_topic("--create", "workers", &["--partitions", partitions]);
    broker
}

/// Adds a partition to the only one, with a record. No reader knows it yet.
fn add_partition(broker: &Broker) {
    broker.change_topic("--alter", "workers", &["--partitions", "2"]);
    eventually("the partition is there", || {
        let (metadata, topic) = (broker.metadata(), broker.topic("workers"));
        let found = metadata["topics"].as_array()?.iter().find(|found| found["topic"] == topic.as_str())?;
        (found["partitions"].as_array()?.len() == 2).then_some(())
    });
    broker.produce_in("workers", 1, &[worker("added")]);
}

#[test]
fn monitor_reads_a_partition_that_is_added_while_it_runs_from_its_first_record() {
    let broker = broker("1");
    let monitor = Monitor::start(&broker, &[]);
    monitor.wait_until_it_reads(&broker);
    add_partition(&broker);
    monitor.wait_for("added");
    // The other one is read on.
    broker.produce_in("workers", 0, &[worker("last")]);
    monitor.wait_for("last");
}

#[test]
fn monitor_tells_that_a_topic_is_gone_and_reads_the_new_one_from_its_start() {
    let broker = broker("1");
    let monitor = Monitor::start(&broker, &[]);
    monitor.wait_until_it_reads(&broker);
    broker.change_topic("--delete", "workers", &[]);
    monitor.wait_for(&format!("warning: topic {} is gone", broker.topic("workers")));
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    broker.produce_in("workers", 0, &[worker("anew")]);
    monitor.wait_for("anew");
    // At once, and with more records than were read of the one before.
    broker.change_topic("--delete", "workers", &[]);
    broker.change_topic("--create", "workers", &["--partitions", "1"]);
    let mut records = vec![worker("again")];
    records.extend((0..200).map(|number| worker(&format!("later-{number}"))));
    broker.produce_in("workers", 0, &records);
    monitor.wait_for("again");
    monitor.wait_for("later-199");
}

#[test]
fn monitor_in_a_group_that_was_to_begin_now_goes_on_in_every_partition() {
    let broker = broker("2");
    broker.produce_in("workers", 1, &[worker("old")]);
    let options = ["--group", broker.prefix()];
    let monitor = Monitor::start(&broker, &options);
    // It reads nothing of the second partition.
    monitor.wait_until_it_reads(&broker);
    monitor.interrupt();
    broker.produce_in("workers", 1, &[worker("meanwhile")]);
    let monitor = Monitor::start(&broker, &options);
    eventually("it prints the record that came meanwhile", || {
        monitor.lines.try_iter().find_map(|line| {
            assert_ne!(line, "old", "the record was there before the group");
            (line == "meanwhile").then_some(())
        })
    });
}

#[test]
fn monitor_in_a_group_reads_a_partition_that_is_added_from_its_first_record() {
    let broker = broker("1");
    let monitor = Monitor::start(&broker, &["--group", broker.prefix()]);
    monitor.wait_until_it_reads(&broker);
    add_partition(&broker);
    monitor.wait_for("added");
}
