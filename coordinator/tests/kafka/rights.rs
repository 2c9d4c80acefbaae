//! Brokers that authenticate and authorize their clients.

use serde_json::json;

use crate::helpers::*;

/// Grants a right of those that `docs/kafka.md` lists for the client.
fn allow(broker: &Broker, operation: &str, topics: &[String]) {
    let mut arguments = vec!["--add", "--allow-principal", "User:divvy", "--operation", operation];
    arguments.extend(topics.iter().flat_map(|topic| ["--topic", topic.as_str()]));
    broker.tool("org.apache.kafka.tools.AclCommand", &arguments);
}

#[test]
fn the_rights_that_are_documented_suffice_and_without_them_the_parts_say_so() {
    let broker = Broker::start_guarded();
    for topic in ["events", "workers", "submit.dead", "submit.5"] {
        broker.change_topic("--create", topic, &["--partitions", "2"]);
    }
    let coordinator = Coordinator::start(&broker);
    coordinator.post("/v1/jobs", &job(0));
    eventually("events and intake are refused", || {
        let errors = &coordinator.kafka()["errors"];
        (errors["events"].is_string() && errors["intake"].is_string()).then_some(())
    });
    assert_eq!(coordinator.kafka()["published_event"], 0);
    allow(&broker, "Write", &["events", "workers", "submit.dead"].map(|name| broker.topic(name)));
    let read: Vec<_> = (1..=9).map(|priority| broker.topic(&format!("submit.{priority}"))).collect();
    let (allowed, refused) = read.split_at(7);
    broker.produce("submit.8", &jobs(20..22), &[]);
    broker.produce("submit.9", &jobs(22..24), &[]);
    allow(&broker, "Describe", &refused[..1]);
    allow(&broker, "Read", allowed);
    broker.produce("submit.5", &jobs(1..20), &[]);
    broker.produce("submit.5", &["no job".to_owned()], &[]);
    let found = wait_for_jobs(&coordinator, 20);
    assert_eq!((found.len(), numbers(&found)), (20, (0..20).collect()));
    coordinator.wait_until_published();
    assert_eq!(broker.records("events").len(), 20);
    eventually("a dead letter", || broker.records("submit.dead").pop());
    coordinator.work("mine");
    eventually("the workers are published", || broker.records("workers").pop());
    eventually("the intake tells of the topics that it may not read", || {
        let told = coordinator.kafka()["errors"]["intake"].as_str().map(str::to_owned);
        told.filter(|told| told.contains(refused[1].as_str()) && told.contains("the right Read"))
    });
    allow(&broker, "Read", refused);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 24)), (0..24).collect());
    eventually("nothing fails", || (coordinator.kafka()["errors"] == json!({})).then_some(()));
}

#[test]
fn a_password_that_is_not_taken_is_told_by_every_part() {
    let broker = Broker::start_guarded();
    let config = broker.config().replace("divvy-secret", "wrong");
    let coordinator = Coordinator::start_with(&broker, &[("DIVVY_KAFKA_CONFIG", config.as_str())]);
    coordinator.post("/v1/jobs", &job(0));
    for part in ["events", "intake", "workers"] {
        eventually(&format!("{part} cannot go on, and why"), || {
            if part == "workers" {
                // Only a worker that is known is published. Without tasks it gets none.
                let _ = coordinator.claim("mine");
            }
            let told = coordinator.kafka()["errors"][part].as_str().map(str::to_owned);
            told.filter(|told| told.contains("Authentication failed"))
        });
    }
}
