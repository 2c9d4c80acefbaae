//! Events and workers go out.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::helpers::*;

const JOB: &str = r#"{"kind":"tasks","params":{"list":[1,2,3]}}"#;

#[test]
fn events_go_out_as_they_stand_in_the_stream_keyed_by_job_with_the_headers_of_cloudevents() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    for _ in 0..5 {
        let id = coordinator.post("/v1/jobs", JOB)["id"].as_str().expect("an id").to_owned();
        for action in ["pause", "resume", "cancel"] {
            coordinator.post(&format!("/v1/jobs/{id}/{action}"), "");
        }
    }
    coordinator.wait_until_published();
    let events = coordinator.events();
    assert_eq!(events.len(), 20);
    let records = broker.records("events");
    let mut by_number: Vec<_> = records.iter().collect();
    by_number.sort_by_key(|record| record.json()["seq"].as_u64());
    let places: Vec<_> =
        by_number.iter().map(|record| (record.json()["seq"].as_u64(), record.partition, record.offset)).collect();
    assert_eq!(by_number.iter().map(|record| record.json()).collect::<Vec<_>>(), events, "{places:?}");
    for record in &records {
        let event = record.json();
        let number = event["seq"].as_u64().expect("a number");
        assert_eq!(record.key.as_deref(), event["job"].as_str());
        let kind = format!("divvy.job.{}", event["type"].as_str().expect("a type"));
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", &number.to_string()),
            ("ce_type", &kind),
            ("ce_source", "/v1/jobs"),
            ("ce_subject", event["job"].as_str().expect("a job")),
            ("ce_time", event["at"].as_str().expect("a time")),
            ("ce_sequence", &format!("{number:020}")),
            ("content-type", "application/json"),
        ] {
            assert_eq!(record.header(name), Some(value), "{name} of {record:?}");
        }
    }
    let mut partitions = BTreeMap::new();
    for record in &records {
        assert_eq!(*partitions.entry(record.key.clone()).or_insert(record.partition), record.partition);
        assert!(record.partition >= 0 && record.topic == broker.topic("events"));
    }
}

#[test]
fn events_go_on_in_a_topic_that_is_made_anew() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    for _ in 0..3 {
        coordinator.post("/v1/jobs", JOB);
    }
    coordinator.wait_until_published();
    // The broker makes it again when an event comes.
    broker.change_topic("--delete", "events", &[]);
    for _ in 0..3 {
        coordinator.post("/v1/jobs", JOB);
    }
    coordinator.wait_until_published();
    assert_eq!(read_by_number(&broker.records("events")), [4, 5, 6]);
}

#[test]
fn without_brokers_all_else_goes_on_and_once_they_are_there_nothing_is_missing() {
    let mut broker = Broker::prepare();
    let coordinator = Coordinator::start(&broker);
    let since = Instant::now();
    for _ in 0..50 {
        coordinator.post("/v1/jobs", JOB);
    }
    assert!(since.elapsed() < PATIENCE, "jobs wait for Kafka: {:?}", since.elapsed());
    let kafka = eventually("the part says why", || {
        Some(coordinator.kafka()).filter(|kafka| kafka["errors"]["events"].is_string())
    });
    assert_eq!((&kafka["unpublished_events"], &kafka["published_event"]), (&Value::from(50), &Value::from(0)));
    assert_eq!(coordinator.metric("divvy_kafka_unpublished_events"), 50.0);
    assert_eq!(coordinator.metric(r#"divvy_kafka_failing{part="events"}"#), 1.0);
    broker.go();
    coordinator.wait_until_published();
    eventually("every part goes on", || (coordinator.kafka()["errors"] == serde_json::json!({})).then_some(()));
    assert_eq!(coordinator.metric(r#"divvy_kafka_failing{part="events"}"#), 0.0);
    let mut numbers: Vec<_> = broker.records("events").iter().map(|record| record.json()["seq"].as_u64()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().flatten().eq(1..=50));
}

#[test]
fn workers_go_out_each_second() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    coordinator.post("/v1/jobs", JOB);
    coordinator.work("mine");
    let records = eventually("the worker is seen twice with what it has done", || {
        let mut records = broker.records("workers");
        records.retain(|record| record.json()["tasks_done"] == 3);
        (records.len() >= 2).then_some(records)
    });
    for record in records {
        let status = record.json();
        assert_eq!((record.key.as_deref(), status["id"].as_str()), (Some("mine"), Some("mine")));
        assert_eq!((status["state"].as_str(), status["slots"].as_u64()), (Some("ready"), Some(1)), "{status}");
        assert!(status["load"].is_number() && status["busy"].is_u64() && status["at"].is_string(), "{status}");
    }
    eventually("nothing fails", || (coordinator.kafka()["errors"] == serde_json::json!({})).then_some(()));
}

#[test]
fn a_broker_with_tls_is_used_and_one_that_is_not_trusted_is_not() {
    let broker = Broker::start_secure();
    let coordinator = Coordinator::start(&broker);
    coordinator.post("/v1/jobs", JOB);
    coordinator.wait_until_published();
    assert_eq!(broker.records("events").len(), 1);
    let distrusting = Coordinator::start_with(&broker, &[("DIVVY_KAFKA_CONFIG", "security.protocol=ssl")]);
    distrusting.post("/v1/jobs", JOB);
    let error = eventually("it says why", || distrusting.kafka()["errors"]["events"].as_str().map(str::to_owned));
    assert!(!error.is_empty());
    assert_eq!(distrusting.kafka()["published_event"], 0);
}
