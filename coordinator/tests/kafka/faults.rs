//! Brokers that change, or whose disk is full.

use crate::helpers::*;

#[test]
fn partitions_that_are_added_while_a_topic_is_read_are_read_too() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    broker.change_topic("--create", "submit.2", &["--partitions", "1"]);
    broker.produce("submit.2", &jobs(0..5), &[]);
    wait_for_jobs(&coordinator, 5);
    broker.change_topic("--alter", "submit.2", &["--partitions", "5"]);
    // The records of each call go to one partition or a few.
    for round in 0..12 {
        broker.produce("submit.2", &jobs(10 * round + 10..10 * round + 20), &[]);
    }
    assert!(broker.records("submit.2").iter().any(|record| record.partition > 0), "none came to a new one");
    let found = wait_for_jobs(&coordinator, 125);
    assert_eq!((found.len(), numbers(&found)), (125, (0..5).chain(10..130).collect()));
}

#[test]
fn a_broker_without_room_loses_no_event_and_no_record_once_there_is_room() {
    let Some(mut broker) = Broker::start_on_small_disk(48) else {
        eprintln!("not run: nothing can be mounted here");
        return;
    };
    let coordinator = Coordinator::start(&broker);
    broker.produce("submit.5", &jobs(0..10), &[]);
    wait_for_jobs(&coordinator, 10);
    coordinator.wait_until_published();
    let filler = broker.fill();
    // A broker ends when it cannot write: that may need some events.
    let mut number = 10;
    eventually("the broker ends", || {
        coordinator.post("/v1/jobs", &job(number));
        number += 1;
        broker.has_ended().then_some(())
    });
    eventually("it is told", || coordinator.kafka()["errors"]["events"].as_str().map(str::to_owned));
    std::fs::remove_file(filler).expect("it is there");
    broker.go();
    coordinator.wait_until_published();
    broker.produce("submit.5", &jobs(1000..1010), &[]);
    let all = usize::try_from(number).expect("few") + 10;
    eventually("every record is a job", || (coordinator.events().len() >= all).then_some(()));
    coordinator.wait_until_published();
    let (records, events) = (broker.records("events"), coordinator.events());
    assert_eq!(events.len(), all);
    assert!(read_by_number(&records).into_iter().eq(1..=events.len() as u64), "a number is missing");
    check_order(&records, &events);
}
