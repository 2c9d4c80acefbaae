//! Acknowledgements of brokers: events whose answers are lost, and refused events before events that are taken.

use std::time::{Duration, Instant};

use test_postgres::Mode;

use crate::helpers::*;

/// Time for which answers are lost on open connections: longer than the coordinator waits for them.
const OUTAGE: Duration = Duration::from_secs(5);
/// The shortest waits for answers that librdkafka allows; the default is a minute. Without compression the proxy can read events.
const IMPATIENT: &str = "compression.codec=none,socket.timeout.ms=1500,api.version.request.timeout.ms=1000,\
     socket.connection.setup.timeout.ms=1500,reconnect.backoff.max.ms=500,topic.metadata.refresh.interval.ms=500";
/// Bytes of an event that is sent to a broker.
const SUBMITTED: &[u8] = br#""type":"submitted""#;
/// Events of a round.
const EVENTS: u64 = 30;

/// Submits jobs whose acknowledgements are lost from the first one on. The broker has some of their events when this returns.
fn submit_unheard(broker: &Broker, coordinator: &Coordinator, round: u64) {
    let before = broker.written("events");
    broker.proxy().set(Mode::SwallowFrom(SUBMITTED));
    for number in 0..EVENTS {
        coordinator.post("/v1/jobs", &job(round * 1000 + number));
    }
    eventually("the broker has some of them", || (broker.written("events") > before).then_some(()));
}

fn wait_until_published(coordinator: &Coordinator, expected: u64) {
    eventually("all events are published", || (coordinator.kafka()["published_event"] == expected).then_some(()));
}

/// No event is missing, each job's are in order, and none was written twice.
fn check_all(broker: &Broker, coordinator: &Coordinator, expected: u64) {
    wait_until_published(coordinator, expected);
    let records = broker.records("events");
    assert!(read_by_number(&records).into_iter().eq(1..=expected), "a number is missing");
    check_order(&records, &coordinator.events());
    check_statistics(coordinator, &records);
    // The producer is the same one throughout: brokers know its batches again.
    assert_eq!(records.len() as u64, expected, "an event was written twice");
}

#[test]
fn events_whose_acknowledgements_are_lost_with_their_connections_are_there_once_and_in_order() {
    let broker = Broker::start_behind_proxy();
    let coordinator = Coordinator::start_with(&broker, &[("DIVVY_KAFKA_CONFIG", IMPATIENT)]);
    coordinator.post("/v1/jobs", &job(9999));
    coordinator.wait_until_published();
    for round in 0..3 {
        submit_unheard(&broker, &coordinator, round);
        // As a network does that forgets its connections.
        broker.proxy().set(Mode::Refuse);
        broker.proxy().cut();
        broker.proxy().set(Mode::Pass);
        // A connection that is made while answers are lost brings the broker nothing: each round begins with one that is whole.
        wait_until_published(&coordinator, (round + 1) * EVENTS + 1);
    }
    check_all(&broker, &coordinator, 3 * EVENTS + 1);
}

#[test]
fn events_whose_acknowledgements_are_lost_while_their_connections_stay_are_there_once_and_in_order() {
    let broker = Broker::start_behind_proxy();
    let coordinator = Coordinator::start_with(&broker, &[("DIVVY_KAFKA_CONFIG", IMPATIENT)]);
    coordinator.post("/v1/jobs", &job(9999));
    coordinator.wait_until_published();
    let since = Instant::now();
    submit_unheard(&broker, &coordinator, 0);
    eventually("it is told", || coordinator.kafka()["errors"]["events"].as_str().map(str::to_owned));
    // New connections get no answer either.
    eventually("the outage is over", || (since.elapsed() >= OUTAGE).then_some(()));
    broker.proxy().set(Mode::Pass);
    check_all(&broker, &coordinator, EVENTS + 1);
    eventually("nothing fails", || (coordinator.kafka()["errors"]["events"].is_null()).then_some(()));
}

#[test]
fn an_event_that_a_new_partition_refuses_is_not_lost_though_the_next_one_is_on_its_way() {
    let broker = Broker::start_behind_proxy();
    let plain = [("DIVVY_KAFKA_CONFIG", "compression.codec=none,topic.metadata.refresh.interval.ms=500")];
    let coordinator = Coordinator::start_with(&broker, &plain);
    broker.change_topic("--create", "events", &["--partitions", "1"]);
    // The broker knows no producer of the partition yet, and takes whatever number a first batch of it has.
    broker.proxy().set(Mode::Spoil(SUBMITTED));
    coordinator.post("/v1/jobs", &job(1));
    eventually("the first event is on its way", || (broker.proxy().mode() == Mode::Pass).then_some(()));
    coordinator.post("/v1/jobs", &job(1));
    wait_until_published(&coordinator, 2);
    let numbers: Vec<_> = broker.records("events").iter().map(|record| record.json()["seq"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
}
