//! The worker token, in both directions.

use crate::helpers::{Answer, Coordinator, Signal, Worker, published_sum, request};

const SECRET: &str = "correct-horse-battery-staple";
const TOKEN: (&str, &str) = ("DIVVY_WORKER_TOKEN", SECRET);
const OTHER_TOKEN: (&str, &str) = ("DIVVY_WORKER_TOKEN", "correct-horse-battery-stapler");
const VERBOSE: (&str, &str) = ("DIVVY_LOG", "trace");

const HEARTBEAT: &str = r#"{"port":1,"boot_id":"00000000-0000-4000-8000-000000000001","slots":1,"running":0,
    "cpu_load":0.0,"free_memory_bytes":0,"version":"0"}"#;

const LEASE: &str = r#"{"job":"00000000-0000-4000-8000-000000000001",
    "attempt":"00000000-0000-4000-8000-000000000001",
    "boot_id":"00000000-0000-4000-8000-000000000001","slot":0,"kind":"sum-of-primes",
    "work":{"a":1,"b":2,"horizon":2},"first":0,"beyond":1}"#;

#[test]
fn grid_with_a_token_answers_and_logs_it_nowhere() {
    let coordinator = Coordinator::start(&[TOKEN, VERBOSE]);
    let worker = Worker::join(&coordinator, &[TOKEN, VERBOSE]);
    assert_eq!(coordinator.sum(1, 10_u64.pow(7)).sum(), published_sum(7));
    let refused = Worker::start(coordinator.internal, &[OTHER_TOKEN, VERBOSE]);
    refused.logged("the coordinator takes no heartbeat");
    for (name, process) in [("coordinator", &*coordinator), ("worker", &*worker), ("refused worker", &*refused)] {
        let log = process.log();
        assert!(log.iter().any(|line| line.contains(r#""level":"TRACE""#)), "{name}: the log is verbose");
        assert_eq!(log.iter().find(|line| line.contains(SECRET)), None, "{name}");
    }
}

#[test]
fn coordinator_takes_no_worker_with_a_wrong_token_or_none() {
    let coordinator = Coordinator::start(&[TOKEN]);
    for variables in [&[OTHER_TOKEN][..], &[]] {
        let worker = Worker::start(coordinator.internal, variables);
        let warning = worker.logged("the coordinator takes no heartbeat");
        let error = warning["error"].as_str().expect("text");
        assert!(error.starts_with("it answered 401 Unauthorized"), "{error}");
        worker.signal(Signal::TERM);
        worker.logged("could not deregister; the coordinator will notice the silence");
    }
    let path = "/worker/register/mine";
    for headers in wrong_headers() {
        assert_unauthorized(&request(coordinator.internal, "PUT", path, &headers, HEARTBEAT));
        let goodbye = format!("{path}?boot_id=00000000-0000-4000-8000-000000000001");
        assert_unauthorized(&request(coordinator.internal, "DELETE", &goodbye, &headers, ""));
    }
    assert!(coordinator.workers().is_empty());
    let refusal = coordinator.logged("a worker was refused");
    let (level, address) = (refusal["level"].as_str(), refusal["address"].as_str());
    assert_eq!((level, address), (Some("WARN"), Some("127.0.0.1")), "{refusal}");
    let right = format!("Bearer {SECRET}");
    let taken = request(coordinator.internal, "PUT", path, &[("authorization", &right)], HEARTBEAT);
    assert_eq!(taken.status, 200, "{taken:?}");
}

#[test]
fn worker_takes_no_lease_with_a_wrong_token_or_none() {
    let coordinator = Coordinator::start(&[("DIVVY_MAX_ATTEMPTS", "1"), ("DIVVY_NO_WORKER_TIMEOUT_MS", "60000")]);
    let worker = Worker::join(&coordinator, &[TOKEN]);
    for headers in wrong_headers() {
        assert_unauthorized(&request(worker.address, "POST", "/lease", &headers, LEASE));
    }
    let right = format!("Bearer {SECRET}");
    let for_another_run = request(worker.address, "POST", "/lease", &[("authorization", &right)], LEASE);
    assert_eq!(for_another_run.status, 409, "{for_another_run:?}");
    let sum = coordinator.ask_sum(1, 1000);
    let refusal = coordinator.logged("a worker refuses this coordinator's token or certificate");
    let cause = refusal["cause"].as_str().expect("text");
    assert!(cause.starts_with("its worker answered 401 Unauthorized: "), "{cause}");
    let _good = Worker::join(&coordinator, &[]);
    assert_eq!(sum.answer().sum(), published_sum(3), "no attempt is counted");
}

#[test]
fn missing_token_is_a_warning_on_a_port_that_others_reach() {
    let everywhere = [("DIVVY_INTERNAL_ADDR", "0.0.0.0:0"), ("DIVVY_LISTEN_ADDR", "0.0.0.0:0")];
    let warns = |log: &[String]| log.iter().any(|line| line.contains("DIVVY_WORKER_TOKEN is not set"));
    for (variables, is_open) in [(&everywhere[..], true), (&[everywhere[0], everywhere[1], TOKEN], false), (&[], false)]
    {
        let coordinator = Coordinator::start(variables);
        let worker = Worker::start(coordinator.internal, variables);
        assert_eq!((warns(&coordinator.log()), warns(&worker.log())), (is_open, is_open), "{variables:?}");
    }
}

fn wrong_headers() -> Vec<Vec<(&'static str, &'static str)>> {
    vec![
        vec![],
        vec![("authorization", "Bearer ")],
        vec![("authorization", "Bearer correct-horse-battery-stapler")],
        vec![("authorization", "Bearer correct-horse-battery-stapl")],
        vec![("authorization", "Basic correct-horse-battery-staple")],
        vec![("authorization", SECRET)],
    ]
}

fn assert_unauthorized(answer: &Answer) {
    answer.problem(401);
    assert!(answer.head.contains("\r\nwww-authenticate: bearer"), "{answer:?}");
}
