//! Jobs come in.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::helpers::*;

#[test]
fn each_record_is_a_job_with_the_priority_of_its_topic_and_its_event_names_the_record() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    for priority in [1, 5, 9] {
        broker.produce(&format!("submit.{priority}"), &jobs(priority * 10..priority * 10 + 4), &[]);
    }
    let jobs = wait_for_jobs(&coordinator, 12);
    for job in &jobs {
        let number: u64 = job["tags"]["number"].as_str().expect("a tag").parse().expect("a number");
        assert_eq!((job["priority"].as_u64(), &job["state"]), (Some(number / 10), &Value::from("queued")), "{job}");
    }
    let numbers_of: HashMap<_, _> = jobs.iter().map(|job| (job["id"].clone(), job["tags"]["number"].clone())).collect();
    coordinator.wait_until_published();
    let submitted: Vec<_> = broker.records("events").iter().map(Record::json).collect();
    assert_eq!(submitted.len(), 12);
    for event in submitted {
        let source = &event["source"];
        let topic = source["topic"].as_str().and_then(|topic| topic.strip_prefix(broker.prefix())?.strip_prefix('.'));
        let found = broker.records(topic.expect("a topic of this test"));
        let record = found.iter().find(|record| {
            (Some(i64::from(record.partition)), Some(record.offset))
                == (source["partition"].as_i64(), source["offset"].as_u64())
        });
        let record = record.unwrap_or_else(|| panic!("no record of {event}"));
        assert_eq!(record.json()["tags"]["number"], numbers_of[&event["job"]], "{event}");
    }
    eventually("each is counted", || (coordinator.kafka()["records_taken"] == 12).then_some(()));
    coordinator.work("mine");
}

#[test]
fn an_idempotency_key_makes_one_job_of_many_records_and_another_job_under_it_is_a_dead_letter() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    for _ in 0..3 {
        broker.produce("submit.5", &[job(1)], &[("idempotency-key", "a key")]);
    }
    // Records of different partitions are read in any order.
    wait_for_jobs(&coordinator, 1);
    broker.produce("submit.5", &[job(2)], &[("idempotency-key", "a key")]);
    broker.produce("submit.5", &[job(3)], &[]);
    let jobs = wait_for_jobs(&coordinator, 2);
    let dead = eventually("a dead letter", || broker.records("submit.dead").pop());
    assert_eq!((jobs.len(), numbers(&jobs)), (2, BTreeSet::from([1, 3])));
    assert_eq!(dead.json()["tags"]["number"], "2");
    let cause = dead.header("divvy-cause").expect("a cause");
    assert!(cause.contains("idempotency key"), "{cause}");
    // A submission by HTTP with the same key names the same job.
    assert_eq!(coordinator.get("/v1/jobs?limit=10")["jobs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_record_that_is_delivered_again_after_an_upgrade_is_the_job_that_an_earlier_release_took() {
    let broker = Broker::shared();
    let mut coordinator = Coordinator::start(&broker);
    broker.change_topic("--create", "submit.5", &["--partitions", "1"]);
    let key = [("idempotency-key", "a key")];
    broker.produce("submit.5", &[job(1)], &key);
    wait_for_jobs(&coordinator, 1);
    coordinator.stop();
    // As the first release stored it.
    let of_body: [u8; 32] = Sha256::digest(job(1)).into();
    let db = rusqlite::Connection::open(coordinator.database()).expect("a database");
    let changed = db.execute("UPDATE jobs SET fingerprint = ?1", [of_body.as_slice()]).expect("a table of jobs");
    assert_eq!(changed, 1);
    db.close().expect("it is whole");
    coordinator.start_again();
    for number in [1, 2, 1] {
        broker.produce("submit.5", &[job(number)], &key);
    }
    broker.produce("submit.5", &[job(3)], &[]);
    let jobs = wait_for_jobs(&coordinator, 2);
    assert_eq!((jobs.len(), numbers(&jobs)), (2, BTreeSet::from([1, 3])));
    eventually("each is counted", || {
        let kafka = coordinator.kafka();
        (kafka["records_taken"] == 3 && kafka["records_dead"] == 1).then_some(())
    });
    let dead = broker.records("submit.dead");
    assert_eq!(dead.iter().map(|letter| letter.json()["tags"]["number"].clone()).collect::<Vec<_>>(), ["2"]);
}

#[test]
fn what_is_no_job_goes_to_the_dead_letters_with_its_cause_and_the_rest_goes_on() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    let poison = [
        ("{", "not valid"),
        ("[]", "not valid"),
        (r#"{"kind":"no-such-kind","params":{}}"#, "kind"),
        (r#"{"kind":"tasks","params":{"list":[]}}"#, "params"),
        (r#"{"kind":"tasks","params":{"list":[1]},"priority":99}"#, "priority"),
    ];
    let mut records = Vec::new();
    for (place, (value, _)) in poison.iter().enumerate() {
        records.extend(jobs(place as u64 * 10..place as u64 * 10 + 10));
        records.push((*value).to_owned());
    }
    broker.produce("submit.7", &records, &[("from", "a test")]);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 50)).len(), 50);
    let dead = eventually("every dead letter", || Some(broker.records("submit.dead")).filter(|dead| dead.len() >= 5));
    assert_eq!(dead.len(), 5);
    for letter in &dead {
        let (_, cause) = poison.iter().find(|(value, _)| *value == letter.value).expect("the value as it was");
        let said = letter.header("divvy-cause").expect("a cause");
        assert!(said.contains(cause), "{said} for {}", letter.value);
        assert_eq!(
            (letter.header("divvy-topic"), letter.header("from")),
            (Some(&*broker.topic("submit.7")), Some("a test"))
        );
        assert!(letter.header("divvy-partition").is_some() && letter.header("divvy-offset").is_some());
    }
    eventually("each is counted", || (coordinator.kafka()["records_dead"] == 5).then_some(()));
}

#[test]
fn a_header_with_a_name_of_any_bytes_hides_neither_the_record_nor_its_other_headers() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    broker.change_topic("--create", "submit.5", &["--partitions", "1"]);
    for _ in 0..2 {
        let headers: [&[u8]; 3] = [b"caf\xe9=1", b"idempotency-key=a key", b"\xff\xfe=2"];
        broker.produce_bytes("submit.5", job(1).as_bytes(), &headers);
    }
    broker.produce_bytes("submit.5", b"no job", &[b"caf\xe9=1", b"from=a test"]);
    broker.produce("submit.5", &[job(2)], &[]);
    let found = wait_for_jobs(&coordinator, 2);
    assert_eq!((found.len(), numbers(&found)), (2, BTreeSet::from([1, 2])));
    let dead = eventually("a dead letter", || broker.records("submit.dead").pop());
    assert_eq!((dead.value.as_str(), dead.header("from")), ("no job", Some("a test")));
    let log = coordinator.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_record_of_wrong_bytes_or_with_a_wrong_key_for_idempotency_is_a_dead_letter() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start_with(&broker, &[("DIVVY_MAX_JOB_BYTES", "2000")]);
    broker.change_topic("--create", "submit.6", &["--partitions", "1"]);
    let (long, named) = ("x".repeat(2001), job(7));
    let cases: [(&str, &[&[u8]], &str); 4] = [
        (&long, &[], "longer than 2000 bytes"),
        ("no text", &[b"idempotency-key=caf\xe9"], "idempotency-key must be readable text"),
        (&named, &[b"idempotency-key="], "1 to 256 bytes"),
        ("two", &[b"idempotency-key=one", b"Idempotency-Key=one"], "idempotency-key is given more than once"),
    ];
    for (value, headers, _) in cases {
        broker.produce_bytes("submit.6", value.as_bytes(), headers);
    }
    let kafka = eventually("each is a dead letter", || {
        Some(coordinator.kafka()).filter(|kafka| kafka["records_dead"] == cases.len())
    });
    assert_eq!(kafka["records_taken"], 0, "{kafka}");
    let causes = broker.headers("submit.dead");
    for (value, _, cause) in cases {
        assert!(causes.contains(cause), "{cause} for {value}: {causes}");
    }
    broker.produce_bytes("submit.6", b"{\"kind\":\"caf\xe9\"}", &[]);
    broker.produce("submit.6", &[job(1)], &[]);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 1)), BTreeSet::from([1]));
    eventually("it is a dead letter", || (coordinator.kafka()["records_dead"] == cases.len() + 1).then_some(()));
    assert_eq!(broker.headers("submit.dead").lines().count(), cases.len() + 1);
}

#[test]
fn a_topic_that_is_made_anew_is_read_from_its_start_whether_it_is_shorter_or_longer_than_before() {
    let broker = Broker::shared();
    let mut coordinator = Coordinator::start(&broker);
    let anew = || {
        broker.change_topic("--delete", "submit.3", &[]);
        broker.change_topic("--create", "submit.3", &["--partitions", "1"]);
    };
    broker.change_topic("--create", "submit.3", &["--partitions", "1"]);
    broker.produce("submit.3", &jobs(0..20), &[]);
    wait_for_jobs(&coordinator, 20);
    // Shorter, while it is read.
    anew();
    broker.produce("submit.3", &jobs(100..105), &[]);
    wait_for_jobs(&coordinator, 25);
    // Longer, while it is read.
    anew();
    broker.produce("submit.3", &jobs(200..230), &[]);
    wait_for_jobs(&coordinator, 55);
    // Longer, while nobody reads it.
    coordinator.stop();
    anew();
    broker.produce("submit.3", &jobs(300..340), &[]);
    coordinator.start_again();
    let jobs = wait_for_jobs(&coordinator, 95);
    let expected = (0..20).chain(100..105).chain(200..230).chain(300..340);
    assert_eq!((jobs.len(), numbers(&jobs)), (95, expected.collect()));
}

#[test]
fn records_that_carry_code_are_dead_letters() {
    let broker = Broker::shared();
    let coordinator = Coordinator::start(&broker);
    let with_code = [
        r#"{"kind":"tasks","params":{"list":[{"divvy":1,"python":"3.13","call":"gASV"}]}}"#,
        r#"{"kind":"tasks","params":{"list":[1]},"requires":{"labels":{"python-calls":"single-1"}}}"#,
    ];
    let mut records = jobs(0..2);
    records.extend(with_code.map(str::to_owned));
    broker.produce("submit.5", &records, &[]);
    assert_eq!(numbers(&wait_for_jobs(&coordinator, 2)), BTreeSet::from([0, 1]));
    let dead = eventually("both dead letters", || Some(broker.records("submit.dead")).filter(|dead| dead.len() >= 2));
    for letter in &dead {
        assert!(with_code.contains(&letter.value.as_str()), "{}", letter.value);
        let cause = letter.header("divvy-cause").expect("a cause");
        assert!(cause.contains("carry code need a token with the right \"programs\""), "{cause}");
    }
}

#[test]
fn a_record_that_names_a_span_makes_a_job_of_its_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (broker, collector) = (Broker::shared(), Collector::start());
    let coordinator = Coordinator::start_with(&broker, &collector.variables());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    broker.produce("submit.5", &[job(1)], &headers);
    let id = wait_for_jobs(&coordinator, 1)[0]["id"].clone();
    let topic = format!("{}.submit.5", broker.prefix());
    let taken = collector.wait_for(TRACE, &format!("process {topic}"));
    assert_eq!((taken.parent.as_str(), taken.state.as_str(), taken.is_error), ("00f067aa0ba902b7", "vendor=1", false));
    // SPAN_KIND_CONSUMER
    assert_eq!((taken.kind, taken.attribute("divvy.job.id")), (5, id.as_str().expect("an id")));
    assert_eq!((taken.attribute("messaging.system"), taken.attribute("messaging.kafka.offset")), ("kafka", "0"));
    assert_eq!(taken.attribute("messaging.destination.name"), topic);
    let claimed = coordinator.claim("mine").expect("a task");
    let traceparent = claimed["traceparent"].as_str().expect("a span");
    assert!(traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-01"), "{claimed}");
    assert_eq!(claimed["tracestate"], "vendor=1");
    let canceled = coordinator.post(&format!("/v1/jobs/{}/cancel", id.as_str().expect("an id")), "");
    assert_eq!(canceled["state"], "canceled", "{canceled}");
    let of_job = collector.wait_for(TRACE, "job tasks");
    assert_eq!(of_job.parent, taken.id, "the job is below its record");
    // A record that is no job ends its span with the cause.
    broker.produce("submit.6", &["{}".to_owned()], &headers);
    let refused = collector.wait_for(TRACE, &format!("process {}.submit.6", broker.prefix()));
    assert!(refused.is_error && !refused.attributes.contains_key("divvy.job.id"), "{refused:?}");
    // An invalid `traceparent` is ignored.
    broker.produce("submit.5", &[job(2)], &[("traceparent", "00-0-0-01")]);
    wait_for_jobs(&coordinator, 2);
    let claimed = coordinator.claim("other").expect("a task");
    assert!(claimed["traceparent"].is_null(), "{claimed}");
}
