//! A cluster of brokers of which one is away.

use std::collections::BTreeSet;

use serde_json::json;

use crate::helpers::*;

/// Pauses and resumes all jobs, which makes events.
fn pause_and_resume(coordinator: &Coordinator) {
    for action in ["pause", "resume"] {
        coordinator.post(&format!("/v1/jobs/all/{action}?kind=tasks"), "");
    }
}

/// Checks that each record is one job, and that no event is missing, out of order or counted otherwise.
fn check_all(cluster: &Cluster, coordinator: &Coordinator, expected: u64) {
    let found = wait_for_jobs(coordinator, usize::try_from(expected).expect("few"));
    assert_eq!((found.len() as u64, numbers(&found)), (expected, (0..expected).collect()));
    coordinator.wait_until_published();
    let (records, events) = (cluster.tools().records("events"), coordinator.events());
    let read = read_by_number(&records);
    let missing: Vec<_> = (1..=events.len() as u64).filter(|number| read.binary_search(number).is_err()).collect();
    assert_eq!((read.len(), missing), (events.len(), Vec::new()), "some numbers are missing");
    check_order(&records, &events);
    check_statistics(coordinator, &records);
    eprintln!("{} events: {} doubles", events.len(), records.len() - events.len());
}

#[test]
fn records_come_in_and_events_go_out_while_a_broker_of_several_is_killed_and_comes_back() {
    let mut cluster = Cluster::start();
    let coordinator = cluster.coordinator();
    let produce = |cluster: &Cluster, numbers| cluster.tools().produce("submit.5", &jobs(numbers), &[]);
    let wait = |count| {
        wait_for_jobs(&coordinator, count);
        coordinator.wait_until_published();
    };
    produce(&cluster, 0..100);
    wait(100);
    for topic in ["submit.5", "events"] {
        cluster.wait_until_in_sync(topic);
    }
    // Some of these records are on their way when the broker ends.
    produce(&cluster, 100..200);
    pause_and_resume(&coordinator);
    cluster.kill(2);
    produce(&cluster, 200..300);
    pause_and_resume(&coordinator);
    for topic in ["submit.5", "events"] {
        cluster.wait_until_led_by_others(2, topic);
    }
    // All records come in and all events go out while the broker is away.
    wait(300);
    cluster.go(2);
    produce(&cluster, 300..400);
    pause_and_resume(&coordinator);
    check_all(&cluster, &coordinator, 400);
    eventually("nothing fails", || (coordinator.kafka()["errors"] == json!({})).then_some(()));
}

#[test]
fn a_partition_without_a_leader_holds_up_no_other_one() {
    let mut cluster = Cluster::start();
    // The third partition of each topic is on the third broker alone.
    for topic in ["submit.5", "submit.dead", "events"] {
        cluster.tools().change_topic("--create", topic, &["--replica-assignment", "1,2,3"]);
    }
    let mut coordinator = cluster.coordinator();
    for partition in 0..3_i32 {
        let first = u64::from(partition.unsigned_abs()) * 10;
        cluster.tools().produce_in("submit.5", partition, &jobs(first..first + 10));
    }
    wait_for_jobs(&coordinator, 30);
    coordinator.wait_until_published();
    cluster.kill(3);
    for topic in ["submit.5", "submit.dead", "events"] {
        cluster.wait_until_led_without(3, topic);
    }
    // The intake reads the other partitions, also after a start without the third broker.
    cluster.tools().produce_in("submit.5", 0, &jobs(30..60));
    wait_for_jobs(&coordinator, 60);
    coordinator.kill_and_start_again();
    cluster.tools().produce_in("submit.5", 1, &jobs(60..90));
    wait_for_jobs(&coordinator, 90);
    // By their keys some of the dead letters would wait for the third partition.
    let poison: Vec<_> = (0..30).map(|number| format!("no job {number}")).collect();
    cluster.tools().produce_in("submit.5", 0, &poison);
    cluster.tools().produce_in("submit.5", 0, &jobs(90..100));
    wait_for_jobs(&coordinator, 100);
    eventually("each is a dead letter", || (coordinator.kafka()["records_dead"].as_u64() >= Some(30)).then_some(()));
    // Each partition has events of some of the forty jobs since the start. The events of the third partition wait.
    let newest = |partition| {
        let records = cluster.tools().records_in("events", partition);
        records.iter().filter_map(|record| record.json()["seq"].as_u64()).max().unwrap_or(0)
    };
    for partition in 0..2 {
        eventually("events go out", || (newest(partition) > 60).then_some(()));
    }
    let waiting = cluster.tools().topic("submit.5/2");
    eventually("it is told", || {
        let errors = &coordinator.kafka()["errors"];
        let tells = |part: &str, text: &str| errors[part].as_str().is_some_and(|error| error.contains(text));
        (tells("intake", &waiting) && tells("events", "not acknowledged")).then_some(())
    });
    assert!(coordinator.kafka()["unpublished_events"].as_u64() > Some(0));
    cluster.go(3);
    cluster.tools().produce_in("submit.5", 2, &jobs(100..110));
    check_all(&cluster, &coordinator, 110);
    eventually("nothing fails", || (coordinator.kafka()["errors"] == json!({})).then_some(()));
    let dead = cluster.tools().records("submit.dead");
    assert_eq!(dead.into_iter().map(|letter| letter.value).collect::<BTreeSet<_>>(), poison.into_iter().collect());
}
