//! The alerts about Kafka on a real coordinator's answers to `GET /metrics`: see the grid's alerts in `e2e`.

#[path = "../../../e2e/tests/grid/alerts/promtool.rs"]
#[expect(dead_code, reason = "the dashboard's queries are tried there")]
mod promtool;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::helpers::*;
use promtool::Promtool;

mod scrapes {
    /// The samples of one moment by their series.
    pub(super) type Scrape = std::collections::BTreeMap<String, String>;
}

/// The coordinator's metrics, as one series across its restarts.
fn scrape(coordinator: &Coordinator) -> scrapes::Scrape {
    let own = r#"namespace="divvy",job="coordinator""#;
    let metrics = coordinator.metrics();
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let series = match series.split_once('{') {
            Some((name, labels)) => format!("{name}{{{own},{labels}"),
            None => format!("{series}{{{own}}}"),
        };
        (series, value.to_owned())
    });
    samples.collect()
}

/// The names of firing alerts about Kafka.
fn alerts(scrapes: &[scrapes::Scrape]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/monitoring/rules.yaml");
    let object: Value = serde_saphyr::from_str(&fs::read_to_string(path).expect("rules")).expect("YAML");
    let mut alerts = Promtool::new(&object["spec"]).alerts(scrapes);
    alerts.retain(|alert| alert.starts_with("DivvyKafka"));
    alerts
}

#[test]
fn alert_tells_that_brokers_are_away() {
    let mut broker = Broker::prepare();
    let coordinator = Coordinator::start(&broker);
    coordinator.post("/v1/jobs", &job(1));
    eventually("it fails", || (coordinator.metric(r#"divvy_kafka_failing{part="events"}"#) == 1.0).then_some(()));
    assert_eq!(alerts(&[scrape(&coordinator)]), ["DivvyKafkaBehind"]);
    broker.go();
    coordinator.wait_until_published();
    eventually("every part goes on", || (coordinator.kafka()["errors"] == json!({})).then_some(()));
    assert_eq!(alerts(&[scrape(&coordinator)]), [""; 0]);
}

#[test]
fn records_that_are_deleted_before_they_are_read_are_counted_and_told_and_the_rest_is_read() {
    let broker = Broker::shared();
    let mut coordinator = Coordinator::start(&broker);
    broker.change_topic("--create", "submit.9", &["--partitions", "1"]);
    broker.produce("submit.9", &jobs(0..10), &[]);
    wait_for_jobs(&coordinator, 10);
    let before = scrape(&coordinator);
    coordinator.stop();
    broker.produce("submit.9", &jobs(10..30), &[]);
    let file = broker.path("delete.json");
    let place =
        json!({"partitions": [{"topic": broker.topic("submit.9"), "partition": 0, "offset": 25}], "version": 1});
    fs::write(&file, place.to_string()).expect("room");
    broker.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file.to_str().expect("a path")]);
    coordinator.start_again();
    let found = wait_for_jobs(&coordinator, 15);
    assert_eq!((found.len(), numbers(&found)), (15, (0..10).chain(25..30).collect()));
    assert_eq!(coordinator.kafka()["records_missed"], 15);
    assert_eq!(alerts(&[before, scrape(&coordinator)]), ["DivvyKafkaLost"]);
}

#[test]
fn events_that_retention_deletes_before_they_are_published_are_counted_and_told_and_the_rest_goes_out() {
    let broker = Broker::shared();
    let mut coordinator = Coordinator::start(&broker);
    coordinator.post("/v1/jobs", &job(0));
    coordinator.wait_until_published();
    let before = scrape(&coordinator);
    coordinator.stop();
    // Nothing is published for a while, and nothing that is over is kept.
    coordinator.start_again_with(&[("DIVVY_KAFKA_BROKERS", ""), ("DIVVY_RETENTION_BYTES", "1")]);
    for number in 1..4 {
        let id = coordinator.post("/v1/jobs", &job(number))["id"].as_str().expect("an id").to_owned();
        coordinator.post(&format!("/v1/jobs/{id}/cancel"), "");
    }
    coordinator.kill_and_start_again();
    eventually("only the open job is left", || (wait_for_jobs(&coordinator, 1).len() == 1).then_some(()));
    coordinator.stop();
    coordinator.start_again_with(&[("DIVVY_KAFKA_BROKERS", broker.address().as_str())]);
    coordinator.wait_until_published();
    let kafka = coordinator.kafka();
    assert_eq!((&kafka["published_event"], &kafka["lost_events"]), (&json!(7), &json!(6)));
    assert_eq!(alerts(&[before, scrape(&coordinator)]), ["DivvyKafkaLost"]);
    coordinator.post("/v1/jobs", &job(4));
    coordinator.wait_until_published();
    assert_eq!(read_by_number(&broker.records("events")), [1, 8]);
    // It was told of: no later start tells of it as new.
    let metric = "divvy_kafka_lost_events_total";
    assert_eq!(coordinator.metric(metric), 6.0);
    coordinator.kill_and_start_again();
    coordinator.wait_until_published();
    assert_eq!((coordinator.metric(metric), &coordinator.kafka()["lost_events"]), (0.0, &json!(6)));
}
