//! Events to Kafka that have waited for it, and jobs out of it. The broker is one of Apache Kafka on this machine, with the
//! cores that it shares with the coordinator.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::{KafkaStats, Stats};
use tempfile::TempDir;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row};
use crate::http::Connection;
use crate::process::{Binaries, Process};

/// Records in a round.
const RECORDS: usize = 100_000;
/// Jobs that are paused and resumed, an event each.
const JOBS: usize = 1_000;
/// Events in a round.
const EVENTS: usize = 200_000;
/// Goals, a second.
const RECORDS_GOAL: f64 = 20_000.0;
const EVENTS_GOAL: f64 = 50_000.0;
/// Longest wait for any step.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

const JOB: &str = r#"{"kind":"tasks","params":{"list":[0]}}"#;

/// A broker; killed when dropped.
struct Broker {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a broker to be started.
pub(crate) fn is_there() -> bool {
    repository().join("target/kafka/libs/.complete").exists()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Broker {
    fn start(binaries: &Binaries) -> anyhow::Result<Self> {
        let directory = TempDir::new_in(binaries.cache()).context("make a directory for data")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(repository().join("scripts/kafka/broker.sh"));
        command.arg(port.to_string()).arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().context("start a broker")?;
        let broker = Self { child, address: format!("127.0.0.1:{port}"), _directory: directory };
        let answers = || {
            let mut list = Command::new("kcat");
            list.args(["-b", &broker.address, "-L", "-m", "2"]).stdout(Stdio::null()).stderr(Stdio::null());
            Ok(list.status().context("start kcat")?.success().then_some(()))
        };
        until(answers).context("wait for the broker")?;
        Ok(broker)
    }

    fn produce(&self, topic: &str, records: usize) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), format!("{JOB}\n").repeat(records))?;
        let mut command = Command::new("kcat");
        command.args(["-b", &self.address, "-P", "-t", topic, "-l"]).arg(file.path());
        ensure!(command.status().context("start kcat")?.success(), "kcat has not written");
        Ok(())
    }
}

fn until<T>(mut probe: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        ensure!(since.elapsed() < PATIENCE, "it takes longer than {PATIENCE:?}");
        thread::sleep(POLL_INTERVAL);
    }
}

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    if !is_there() {
        println!("Kafka: left out, there is no broker in target/kafka/libs (scripts/kafka/fetch.sh)");
        return Ok(());
    }
    print_head("Kafka, on the same machine", &["what", "per second (min–max)", "goal", "met"])?;
    let [mut records, mut events] = [(); 2].map(|()| Samples::default());
    for _ in 0..setting.rounds {
        let broker = Broker::start(&setting.binaries)?;
        records.add(intake(&setting.binaries, &broker)?);
        events.add(relay(&setting.binaries, &broker)?);
    }
    for (what, samples, goal) in [
        ("records that become stored jobs", &records, RECORDS_GOAL),
        ("events that have waited for the brokers", &events, EVENTS_GOAL),
    ] {
        let met = if samples.median() >= goal { "yes" } else { "**no**" };
        print_row(&[what, &samples.spread(0), &format!("≥ {goal}"), met])?;
    }
    Ok(())
}

fn coordinator(binaries: &Binaries, data: &TempDir, brokers: &str) -> anyhow::Result<(Process, Connection)> {
    let settings = [
        ("DIVVY_PUBLIC_ADDR", "127.0.0.1:0"),
        ("DIVVY_INTERNAL_ADDR", "127.0.0.1:0"),
        ("DIVVY_DATA_DIR", data.path().to_str().context("a path that is text")?),
        ("DIVVY_KAFKA_BROKERS", brokers),
    ];
    let process = Process::start(binaries, "divvy-coordinator", &settings)?;
    let address: SocketAddr = process.serving("public")?.parse().context("the public address")?;
    Ok((process, Connection::open(address)?))
}

fn kafka(public: &mut Connection) -> anyhow::Result<KafkaStats> {
    let stats: Stats = serde_json::from_slice(&public.get("/v1/stats")?).context("read the figures")?;
    stats.kafka.context("a coordinator with Kafka")
}

/// Rate per second, from the first counted records to the last.
fn rate(public: &mut Connection, all: usize, count: impl Fn(&KafkaStats) -> u64) -> anyhow::Result<f64> {
    let first = until(|| Ok(Some(count(&kafka(public)?)).filter(|&count| count > 0)))?;
    let since = Instant::now();
    let last = until(|| Ok(Some(count(&kafka(public)?)).filter(|&count| count >= all as u64)))?;
    #[expect(clippy::cast_precision_loss, reason = "a count in memory")]
    Ok((last - first) as f64 / since.elapsed().as_secs_f64())
}

fn intake(binaries: &Binaries, broker: &Broker) -> anyhow::Result<f64> {
    broker.produce("divvy.submit.5", RECORDS)?;
    let data = TempDir::new_in(binaries.cache()).context("make a directory for data")?;
    let (_process, mut public) = coordinator(binaries, &data, &broker.address)?;
    rate(&mut public, RECORDS, |stats| stats.records_taken)
}

fn relay(binaries: &Binaries, broker: &Broker) -> anyhow::Result<f64> {
    let data = TempDir::new_in(binaries.cache()).context("make a directory for data")?;
    let (process, mut public) = coordinator(binaries, &data, "")?;
    for _ in 0..JOBS {
        ensure!(public.post("/v1/jobs", JOB)?.0 == 201, "the job is not accepted");
    }
    for round in 0..EVENTS / JOBS - 1 {
        let action = if round % 2 == 0 { "pause" } else { "resume" };
        ensure!(public.post(&format!("/v1/jobs/all/{action}?kind=tasks"), "")?.0 == 200, "nothing is changed");
    }
    drop((process, public));
    let (_process, mut public) = coordinator(binaries, &data, &broker.address)?;
    rate(&mut public, EVENTS, |stats| stats.published_event)
}
