//! Several coordinators over one PostgreSQL: whoever leads, events go out and jobs come in as from one.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::helpers::*;

/// Waits until every event is published and the store knows it, and returns their number.
fn wait_until_published(group: &Group) -> u64 {
    eventually("every event is published", || {
        let newest = group.any().events().len() as u64;
        (group.leading().kafka()["published_event"] == newest).then_some(newest)
    })
}

#[test]
fn events_records_and_statistics_stay_exact_while_leaders_are_killed_and_paused() {
    let kills = setting("DIVVY_TEST_KAFKA_KILLS", 6);
    let wanted = setting("DIVVY_TEST_KAFKA_RECORDS", 500);
    let broker = Broker::shared();
    let mut group = Group::start(&broker, 3);
    for strike in 0..kills {
        // Some jobs are on their way when the leader ends.
        let numbers = wanted * strike / kills..wanted * (strike + 1) / kills;
        broker.produce(&format!("submit.{}", strike % 3 + 1), &jobs(numbers), &[]);
        for _ in 0..5 {
            group.post("/v1/jobs/all/pause?kind=tasks", "");
            group.post("/v1/jobs/all/resume?kind=tasks", "");
        }
        // Nothing is left to do, or nobody leads.
        let _ = group.any().try_work("puller");
        let leader = group.leader();
        if strike % 2 == 0 {
            group.kill_and_start_again(leader);
            group.leader();
        } else {
            group.pause(leader);
            let next = group.leader();
            assert_ne!(leader, next);
            group.post("/v1/jobs/all/pause?kind=tasks", "");
            group.post("/v1/jobs/all/resume?kind=tasks", "");
            group.wake(leader);
            group.wait_until_follows(leader);
        }
    }
    let submitted = || -> Vec<Value> {
        let mut events = group.any().events();
        events.retain(|event| event["type"] == "submitted");
        events
    };
    let submitted = eventually("every record is a job", || {
        let submitted = submitted();
        (submitted.len() as u64 >= wanted).then_some(submitted)
    });
    assert_eq!(submitted.len() as u64, wanted);
    let mut sources = HashSet::new();
    assert!(submitted.iter().all(|event| sources.insert(event["source"].to_string())), "a record is two jobs");
    assert!(broker.records("submit.dead").is_empty());
    eventually("some of it is done", || group.any().try_work("puller").ok());
    let succeeded = |event: &Value| event["type"] == "succeeded";
    eventually("a job is over", || group.any().events().iter().any(succeeded).then_some(()));
    let newest = wait_until_published(&group);
    let (records, events) = (broker.records("events"), group.any().events());
    assert_eq!(events.len() as u64, newest);
    assert!(read_by_number(&records).into_iter().eq(1..=newest), "a number is missing");
    check_order(&records, &events);
    check_statistics(group.any(), &records);
    eprintln!("{newest} events under {kills} strikes: {} doubles", records.len() as u64 - newest);
}

#[test]
fn a_leader_that_was_paused_publishes_nothing_when_it_wakes_up() {
    let broker = Broker::shared();
    let mut group = Group::start(&broker, 2);
    group.post("/v1/jobs", &job(0));
    assert_eq!(wait_until_published(&group), 1);
    let leader = group.leader();
    group.pause(leader);
    let next = group.leader();
    for number in 1..=40 {
        group.post("/v1/jobs", &job(number));
    }
    broker.produce("submit.5", &jobs(41..50), &[]);
    eventually("they are jobs", || (group.any().events().len() == 50).then_some(()));
    assert_eq!(wait_until_published(&group), 50);
    group.wake(leader);
    group.wait_until_follows(leader);
    // An event that the coordinator had published by then would stand before this.
    group.post("/v1/jobs", &job(50));
    assert_eq!(wait_until_published(&group), 51);
    let records = broker.records("events");
    let numbers: BTreeSet<_> = records.iter().map(|record| record.json()["seq"].as_u64()).collect();
    assert_eq!(numbers.len(), 51, "an event is missing");
    // If a busy machine has changed the lead once more, the next leader may repeat events of its predecessor.
    if group.takeovers() == 2.0 {
        assert_eq!((records.len(), group.leader()), (51, next), "some event was published twice");
    }
}
