//! Records that a broker has lost, and records that no topic of dead letters takes.

use std::iter::repeat_with;

use crate::helpers::*;

/// Creates a topic of one partition with settings of its own.
fn create(broker: &Broker, topic: &str, settings: &[&str]) {
    let mut options = vec!["--partitions", "1"];
    options.extend(settings.iter().flat_map(|setting| ["--config", setting]));
    broker.change_topic("--create", topic, &options);
}

/// Writes each record in a batch of its own.
fn produce_apart(broker: &Broker, topic: &str, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| broker.produce(topic, &[job(number)], &[]));
}

#[test]
fn a_partition_that_has_lost_its_end_is_read_on_from_there_and_not_from_its_start() {
    const TOPIC: &str = "submit.3";
    let mut broker = Broker::start();
    let mut coordinator = Coordinator::start(&broker);
    create(&broker, TOPIC, &[]);
    produce_apart(&broker, TOPIC, 0..20);
    wait_for_jobs(&coordinator, 20);
    // While it is read. The mark before the end is that of the tenth record: the eleventh is read again.
    broker.kill();
    broker.truncate(TOPIC, 11);
    broker.go();
    eventually("the loss is noticed", || (coordinator.kafka()["partitions_truncated"] == 1).then_some(()));
    produce_apart(&broker, TOPIC, 100..105);
    let found = wait_for_jobs(&coordinator, 26);
    assert_eq!((found.len(), numbers(&found)), (26, (0..20).chain(100..105).collect()));
    assert_eq!(coordinator.kafka()["partitions_made_anew"], 0);
    // While nobody reads it, and it has grown again beyond the position.
    coordinator.stop();
    broker.kill();
    broker.truncate(TOPIC, 14);
    broker.go();
    produce_apart(&broker, TOPIC, 200..205);
    coordinator.start_again();
    let found = wait_for_jobs(&coordinator, 31);
    assert_eq!((found.len(), numbers(&found)), (31, (0..20).chain(100..105).chain(200..205).collect()));
    let kafka = coordinator.kafka();
    assert_eq!((&kafka["partitions_truncated"], &kafka["partitions_made_anew"]), (&1.into(), &0.into()), "{kafka}");
}

#[test]
fn a_record_whose_key_fits_no_dead_letter_does_not_stop_the_intake() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    create(&broker, "submit.4", &[]);
    // Just below a megabyte, which is the most that a topic takes unless it says otherwise. It cannot be compressed.
    let key: String = repeat_with(fastrand::alphanumeric).take(1_048_480).collect();
    broker.produce_key("submit.4", &key);
    broker.produce("submit.4", &jobs(0..3), &[]);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 3)).len(), 3);
    let letter = eventually("a dead letter", || broker.records("submit.dead").pop());
    assert_eq!((letter.key.as_deref().unwrap_or(""), letter.header("divvy-key")), ("", Some("too large")));
    assert_eq!(letter.header("divvy-cause"), Some("the record has no value"));
    eventually("it is counted", || (coordinator.kafka()["records_dead"] == 1).then_some(()));
    // The topic accepts a record of this size, and none of its segments can hold it.
    broker.configure_topic("submit.dead", "max.message.bytes=2097152,segment.bytes=1048576");
    broker.produce_key("submit.4", &key);
    eventually("it is counted", || (coordinator.kafka()["records_dead"] == 2).then_some(()));
    // A topic that takes no dead letter at all.
    broker.configure_topic("submit.dead", "max.message.bytes=80");
    broker.produce("submit.4", &["no job".to_owned()], &[]);
    broker.produce("submit.4", &jobs(3..5), &[]);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 5)).len(), 5);
    eventually("it is counted", || (coordinator.kafka()["dead_letters_refused"] == 1).then_some(()));
    assert_eq!(coordinator.metric("divvy_kafka_refused_dead_letters_total"), 1.0);
    assert!(coordinator.log().contains("no dead letter of this record is small enough"));
}
