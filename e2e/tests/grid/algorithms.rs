//! Sums of all primes up to a number that no sieve reaches, on a grid whose parts die meanwhile.

use std::time::Duration;

use serde_json::json;

use crate::helpers::{Coordinator, Order, Tasks, Worker, eventually, get, heavy, published_sum, within};

/// Short leases, so that every death hits some.
const SETTINGS: [(&str, &str); 3] =
    [("DIVVY_LEASE_TARGET_MS", "20"), ("DIVVY_LEASE_TIMEOUT_MS", "1000"), ("DIVVY_RECOVERY_MS", "200")];

/// Much longer than the sum takes on a busy machine.
const LONGEST: Duration = Duration::from_secs(900);

fn sum_to(exponent: u32) -> Order {
    let (a, b) = (1, 10_u64.pow(exponent));
    Order {
        body: json!({"kind": "sum-of-primes", "params": {"a": a, "b": b}, "max_attempts": 100}).to_string(),
        result: json!({"a": a, "b": b, "sum": published_sum(exponent).to_string()}),
        tasks: Tasks::Pushed,
    }
}

#[test]
fn sum_up_to_10_to_the_15_is_exact_though_coordinators_and_workers_are_killed() {
    let _turn = heavy();
    let mut coordinator = Coordinator::start_to_stay(&SETTINGS);
    let mut workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let (order, client) = (sum_to(15), coordinator.client());
    let id = client.submit(&order, "once");
    assert_eq!(client.job(&id)["algorithm"], "combinatorial");
    let done = |least: f64| {
        let fraction = client.job(&id)["progress"]["fraction"].as_f64().expect("a share");
        (fraction >= least).then_some(())
    };
    for (round, least) in [0.05, 0.2, 0.4].into_iter().enumerate() {
        eventually("the job goes on", || done(least));
        if round % 2 == 0 {
            workers.remove(0).kill();
            workers.push(Worker::start(coordinator.internal, &[]));
        }
        coordinator.kill();
        coordinator.start_again(&SETTINGS);
    }
    assert_eq!(within(LONGEST, "it has a result", || client.result(&id)), order.result);
    let job = client.job(&id);
    assert_eq!((&job["state"], job["progress"]["fraction"].as_f64()), (&"succeeded".into(), Some(1.0)));
}

#[test]
fn sum_up_to_10_to_the_12_is_answered_while_its_client_waits() {
    let coordinator = Coordinator::start(&[]);
    let _workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let sum = |a: u64, b: u64| get(coordinator.public, &format!("/sum-of-primes?a={a}&b={b}"));
    let answer = sum(1, 10_u64.pow(12));
    assert_eq!((answer.sum(), &answer.json()["algorithm"]), (published_sum(12), &"combinatorial".into()));
    let rest = sum(10_u64.pow(11) + 1, 10_u64.pow(12));
    assert_eq!(rest.sum(), published_sum(12) - published_sum(11));
}
