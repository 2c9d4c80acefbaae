//! Records, as `kcat` reads and writes them.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::Broker;

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
    /// Every record of a topic of this test, each partition in order; none where there is no topic, or the broker is away.
    pub(crate) fn records(&self, topic: &str) -> Vec<Record> {
        let mut command = Command::new("kcat");
        command.args(self.client()).args(["-C", "-t", &self.topic(topic), "-o", "beginning", "-e", "-q", "-J"]);
        let output = command.args(["-X", "allow.auto.create.topics=false"]).output().expect("kcat");
        if !output.status.success() {
            return Vec::new();
        }
        String::from_utf8(output.stdout).expect("JSON").lines().map(Record::parse).collect()
    }

    /// Writes a record for each value, with these headers; all of them are there when it returns.
    pub(crate) fn produce(&self, topic: &str, values: &[String], headers: &[(&str, &str)]) {
        assert!(self.try_produce(topic, values, headers), "kcat could not write to {topic}");
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
        command.args(self.client()).args(["-P", "-t", &topic, "-p", &partition, "-K|", "-l"]);
        let output = command.arg(file.path()).output().expect("kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Every record of a partition, in order.
    pub(crate) fn records_in(&self, topic: &str, partition: i32) -> Vec<Record> {
        let (topic, partition) = (self.topic(topic), partition.to_string());
        let mut command = Command::new("kcat");
        command.args(self.client()).args(["-C", "-t", &topic, "-p", &partition, "-o", "beginning", "-e", "-q", "-J"]);
        let output = command.args(["-X", "allow.auto.create.topics=false"]).output().expect("kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("JSON").lines().map(Record::parse).collect()
    }

    /// The brokers' metadata of topics and partitions.
    pub(crate) fn metadata(&self) -> Value {
        let output = Command::new("kcat").args(self.client()).args(["-L", "-J"]).output().expect("kcat");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// [`Self::produce`] for a broker that may end meanwhile.
    pub(crate) fn try_produce(&self, topic: &str, values: &[String], headers: &[(&str, &str)]) -> bool {
        let file = tempfile::NamedTempFile::new().expect("room");
        fs::write(file.path(), values.join("\n") + "\n").expect("room");
        let mut command = Command::new("kcat");
        command.args(self.client()).args([
            "-P",
            "-t",
            &self.topic(topic),
            "-X",
            "enable.idempotence=true",
            "-X",
            "max.in.flight=1",
        ]);
        for (name, value) in headers {
            command.args(["-H", &format!("{name}={value}")]);
        }
        // Each line is a record.
        let output = command.arg("-l").arg(file.path()).output().expect("kcat");
        output.status.success()
    }
}
