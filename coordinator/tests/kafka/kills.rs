//! Coordinator and broker are killed while events go out and jobs come in. Longer runs by the environment.

use std::collections::HashSet;

use serde_json::json;

use crate::helpers::*;

#[test]
fn no_event_is_missing_or_out_of_order_however_often_coordinator_and_broker_are_killed() {
    let wanted = setting("DIVVY_TEST_KAFKA_EVENTS", 3_000);
    let kills = setting("DIVVY_TEST_KAFKA_KILLS", 6);
    let mut broker = Broker::start();
    let mut coordinator = Coordinator::start(&broker);
    let body = json!({"kind": "tasks", "params": {"list": [1]}}).to_string();
    let jobs = 100.min(wanted / 10);
    for _ in 0..jobs {
        coordinator.post("/v1/jobs", &body);
    }
    for kill in 0..kills {
        // Events in every round, some of them on their way when the kill comes.
        for _ in 0..wanted.div_ceil(kills * jobs * 2) {
            coordinator.post("/v1/jobs/all/pause?kind=tasks", "");
            coordinator.post("/v1/jobs/all/resume?kind=tasks", "");
        }
        if kill % 2 == 0 {
            coordinator.kill_and_start_again();
        } else {
            broker.kill();
            broker.go();
        }
    }
    coordinator.wait_until_published();
    let newest = coordinator.kafka()["published_event"].as_u64().expect("a number");
    assert!(newest >= wanted, "{newest} events");
    let (records, events) = (broker.records("events"), coordinator.events());
    assert!(read_by_number(&records).into_iter().eq(1..=newest), "a number is missing");
    assert_eq!(events.len() as u64, newest);
    check_order(&records, &events);
    check_statistics(&coordinator, &records);
    let doubles = records.len() as u64 - newest;
    eprintln!("{newest} events under {kills} kills: {doubles} doubles");
}

#[test]
fn each_record_is_one_job_however_often_coordinator_and_broker_are_killed() {
    let wanted = setting("DIVVY_TEST_KAFKA_RECORDS", 1_500);
    let kills = setting("DIVVY_TEST_KAFKA_KILLS", 6);
    let mut broker = Broker::start();
    let mut coordinator = Coordinator::start(&broker);
    let job =
        |number: u64| json!({"kind": "tasks", "params": {"list": [number]}, "tags": {"number": number.to_string()}});
    let rounds = kills + 1;
    for round in 0..rounds {
        let numbers = wanted * round / rounds..wanted * (round + 1) / rounds;
        let values: Vec<_> = numbers.map(|number| job(number).to_string()).collect();
        broker.produce(&format!("submit.{}", round % 3 + 1), &values, &[]);
        if round == kills {
            break;
        }
        // While they are being taken.
        if round % 2 == 0 {
            coordinator.kill_and_start_again();
        } else {
            broker.kill();
            broker.go();
        }
    }
    let is_done = || coordinator.events().len() as u64 >= wanted;
    eventually("every record is a job", || is_done().then_some(()));
    coordinator.wait_until_published();
    let submitted = coordinator.events();
    assert!(submitted.iter().all(|event| event["type"] == "submitted"));
    assert_eq!(submitted.len() as u64, wanted);
    let mut sources = HashSet::new();
    assert!(submitted.iter().all(|event| sources.insert(event["source"].to_string())), "a record is two jobs");
    let mut found = HashSet::new();
    let mut next = String::new();
    loop {
        let page = coordinator.get(&format!("/v1/jobs?limit=1000{next}"));
        for job in page["jobs"].as_array().expect("jobs") {
            assert!(found.insert(job["tags"]["number"].to_string()), "{job} is there twice");
        }
        let Some(token) = page["next_page_token"].as_str() else { break };
        next = format!("&page_token={token}");
    }
    assert_eq!(found.len() as u64, wanted);
    assert!(broker.records("submit.dead").is_empty());
    check_statistics(&coordinator, &broker.records("events"));
}
