//! Records, as `kcat` reads and writes them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use serde_json::Value;

use super::{Broker, eventually};

/// Seconds within which `kcat` has the metadata of the brokers: its own five are few on a busy machine.
const METADATA_TIMEOUT: [&str; 2] = ["-m", "60"];
/// Settings by which `kcat` writes each record once, whatever answers of the brokers are lost, and waits for a topic that is being
/// made.
const SURELY: [&str; 6] =
    ["-X", "enable.idempotence=true", "-X", "max.in.flight=1", "-X", "topic.metadata.propagation.max.ms=120000"];
/// Part of the message of `kcat` about a topic that is not there.
const NO_TOPIC: &str = "Unknown topic";

/// A record.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: String,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn parse(line: &str) -> Self {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let headers = record["headers"].as_array().cloned().unwrap_or_default();
        let headers = headers.chunks(2).filter_map(|pair| Some((text(&pair[0])?, text(pair.get(1)?)?)));
        Self {
            topic: text(&record["topic"]).expect("a topic"),
            partition: i32::try_from(record["partition"].as_i64().expect("a number")).expect("small"),
            offset: record["offset"].as_u64().expect("a number"),
            key: text(&record["key"]),
            headers: headers.collect(),
            value: text(&record["payload"]).unwrap_or_default(),
        }
    }
}

impl Broker {
    /// Every record of a topic of this test, each partition in order; none where there is no topic. Waits for the broker.
    pub(crate) fn records(&self, topic: &str) -> Vec<Record> {
        let (topic, mut last) = (self.topic(topic), String::new());
        eventually(&format!("kcat reads {topic}"), || match self.read(&["-t", &topic]) {
            Ok(records) => Some(records),
            Err(said) if said.contains(NO_TOPIC) => Some(Vec::new()),
            Err(said) => {
                if said != last {
                    eprintln!("kcat could not read {topic}: {said}");
                    last = said;
                }
                None
            }
        })
    }

    /// A line of headers for each record of a topic of this test, whatever bytes its value has.
    pub(crate) fn headers(&self, topic: &str) -> String {
        let topic = self.topic(topic);
        eventually(&format!("kcat reads {topic}"), || {
            let mut command = Command::new("timeout");
            command.args(["120", "kcat"]).args(self.client()).args(METADATA_TIMEOUT).args(["-C", "-t", &topic]);
            command.args(["-o", "beginning", "-e", "-q", "-f", "%h\n", "-X", "allow.auto.create.topics=false"]);
            let output = command.output().expect("kcat");
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    /// The records that `kcat` finds up to the end; its message if it fails.
    fn read(&self, place: &[&str]) -> Result<Vec<Record>, String> {
        // A partition without a leader would hold it up for ever.
        let mut command = Command::new("timeout");
        command.args(["120", "kcat"]).args(self.client()).args(METADATA_TIMEOUT).arg("-C").args(place);
        command.args(["-o", "beginning", "-e", "-q", "-J", "-X", "allow.auto.create.topics=false"]);
        let output = command.output().expect("kcat");
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8(output.stdout).expect("JSON").lines().map(Record::parse).collect())
    }

    /// Writes a record for each value, with these headers; all of them are there when it returns.
    pub(crate) fn produce(&self, topic: &str, values: &[String], headers: &[(&str, &str)]) {
        let file = tempfile::NamedTempFile::new().expect("room");
        fs::write(file.path(), values.join("\n") + "\n").expect("room");
        let mut command = Command::new("kcat");
        command.args(self.client()).args(["-P", "-t", &self.topic(topic)]).args(SURELY);
        for (name, value) in headers {
            command.args(["-H", &format!("{name}={value}")]);
        }
        // Each line is a record.
        let output = command.arg("-l").arg(file.path()).output().expect("kcat");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kcat could not write to {topic}: {said}");
    }

    /// Writes a record of any bytes with headers of any bytes, each as `name=value`.
    pub(crate) fn produce_bytes(&self, topic: &str, value: &[u8], headers: &[&[u8]]) {
        let file = tempfile::NamedTempFile::new().expect("room");
        fs::write(file.path(), value).expect("room");
        let mut command = Command::new("kcat");
        command.args(self.client()).args(["-P", "-t", &self.topic(topic)]).args(SURELY);
        for header in headers {
            command.arg("-H").arg(OsStr::from_bytes(header));
        }
        // Without `-l` the file is one record.
        let output = command.arg(file.path()).output().expect("kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a record with this key and no value.
    pub(crate) fn produce_key(&self, topic: &str, key: &str) {
        let file = tempfile::NamedTempFile::new().expect("room");
        fs::write(file.path(), format!("{key}:\n")).expect("room");
        let mut command = Command::new("kcat");
        command.args(self.client()).args([
            "-P",
            "-t",
            &self.topic(topic),
            "-K:",
            "-Z",
            "-X",
            "message.max.bytes=2000000",
            "-l",
        ]);
        let output = command.arg(file.path()).output().expect("kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a record for each value into a partition, each with a key of its own.
    pub(crate) fn produce_in(&self, topic: &str, partition: i32, values: &[String]) {
        let file = tempfile::NamedTempFile::new().expect("room");
        let lines = values.iter().enumerate().map(|(place, value)| format!("key-{place}|{value}\n"));
        fs::write(file.path(), lines.collect::<String>()).expect("room");
        let (topic, partition) = (self.topic(topic), partition.to_string());
        let mut command = Command::new("kcat");
        command.args(self.client()).args(["-P", "-t", &topic, "-p", &partition, "-K|"]).args(SURELY).arg("-l");
        let output = command.arg(file.path()).output().expect("kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Every record of a partition, in order.
    pub(crate) fn records_in(&self, topic: &str, partition: i32) -> Vec<Record> {
        let (topic, partition) = (self.topic(topic), partition.to_string());
        let read = self.read(&["-t", &topic, "-p", &partition]);
        read.unwrap_or_else(|said| panic!("kcat could not read {topic}/{partition}: {said}"))
    }

    /// The brokers' metadata of topics and partitions.
    pub(crate) fn metadata(&self) -> Value {
        let output = Command::new("kcat").args(self.client()).args(["-L", "-J"]).output().expect("kcat");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// [`Self::metadata`] for people, or the reason why there is none.
    pub(crate) fn described(&self) -> String {
        match Command::new("kcat").args(self.client()).args(["-L", "-m", "10"]).output() {
            Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            Err(error) => error.to_string(),
        }
    }
}
