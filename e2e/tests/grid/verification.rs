//! A worker that lies, on a grid that compares a share of the workers' reports.

use serde_json::json;

use crate::helpers::{Coordinator, FakeWorker, Fault, Order, Signal, Tasks, Worker, eventually, heavy, published_sum};

/// Short leases, so that many are compared.
const SETTINGS: [(&str, &str); 1] = [("DIVVY_LEASE_TARGET_MS", "5")];

#[test]
fn job_that_is_verified_is_exact_though_a_worker_lies_and_the_liar_is_set_aside() {
    let _turn = heavy();
    let mut coordinator = Coordinator::start_to_stay(&SETTINGS);
    let mut liar = FakeWorker::join(&coordinator, Fault::WrongSum);
    let _workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let (a, b) = (1, 10_u64.pow(10));
    let params = json!({"a": a, "b": b, "algorithm": "sieve"});
    let order = Order {
        body: json!({"kind": "sum-of-primes", "params": params, "verify": 0.2}).to_string(),
        result: json!({"a": a, "b": b, "sum": published_sum(10).to_string()}),
        tasks: Tasks::Pushed,
    };
    let id = coordinator.submit(&order);
    let client = coordinator.client();
    assert_eq!(eventually("it has a result", || client.result(&id)), order.result);
    let job = client.job(&id);
    let notice = job["notice"].as_str().expect("it says what went wrong");
    assert!(notice.starts_with("the worker fake-") && notice.contains("was set aside"), "{notice}");
    assert_eq!((&job["verification"]["share"], &job["error"]), (&0.2.into(), &serde_json::Value::Null));
    let seen = liar.seen_by(&coordinator);
    assert_eq!((&seen["state"], &seen["busy"]), (&"suspended".into(), &0.into()));
    let verification = &job["verification"];
    assert_eq!(verification["workers_set_aside"], json!([seen["id"]]), "after the end as well");
    for figure in ["compared_leases", "mismatches"] {
        assert!(verification[figure].as_u64().is_some_and(|figure| figure > 0), "{verification}");
    }
    assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3), "what is not verified does not come to it either");

    coordinator.signal(Signal::KILL);
    coordinator.exit_status();
    coordinator.start_again(&SETTINGS);
    assert_eq!(&coordinator.client().job(&id)["verification"], verification, "and after a crash");
    let before = liar.leases();
    liar.join_again(&coordinator);
    assert_eq!(liar.seen_by(&coordinator)["state"], "suspended", "it is the same process");
    assert_eq!(coordinator.sum(1, 10_000_000).sum(), 3_203_324_994_356);
    assert_eq!(liar.leases(), before);
}
