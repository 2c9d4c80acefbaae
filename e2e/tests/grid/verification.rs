//! A worker that lies, on a grid that compares a share of the workers' reports.

use serde_json::{Value, json};

use crate::helpers::{
    Coordinator, FakeWorker, Fault, JobClient, Order, Signal, Tasks, Worker, eventually, heavy, published_sum,
};

/// Short leases, so that many are compared.
const SETTINGS: [(&str, &str); 1] = [("DIVVY_LEASE_TARGET_MS", "5")];

fn verified(order: Order, share: f64) -> Order {
    let mut body: Value = serde_json::from_str(&order.body).expect("JSON");
    body["verify"] = share.into();
    Order { body: body.to_string(), ..order }
}

fn wait_until_a_lease_waits_for_another_worker(client: JobClient, id: &str) {
    let waiting = || client.job(id)["verification"]["waiting_leases"].as_u64();
    eventually("a report waits for another worker's", || (waiting() > Some(0)).then_some(()));
}

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
    assert_eq!((&job["verification"]["share"], &job["error"]), (&0.2.into(), &Value::Null));
    let seen = liar.seen_by(&coordinator);
    assert_eq!((&seen["state"], &seen["busy"]), (&"suspended".into(), &0.into()));
    assert_eq!(seen["suspension"], json!({"reason": "an outcome of it was wrong"}), "for as long as its process lives");
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

#[test]
fn combinatorial_job_that_is_verified_is_exact_though_its_first_worker_lies() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&SETTINGS);
    let (client, liar) = (coordinator.client(), FakeWorker::join(&coordinator, Fault::WrongSum));
    let order = verified(Order::sum_by("combinatorial", 11, 12), 1.0);
    let id = coordinator.submit(&order);
    // The liar is alone until a wrong part has come from it.
    wait_until_a_lease_waits_for_another_worker(client, &id);
    let asks_for_another = |notice: &str| notice.ends_with("wait for another worker to compute the same");
    eventually("the job says so", || client.job(&id)["notice"].as_str().is_some_and(asks_for_another).then_some(()));
    let _workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    assert_eq!(eventually("it has a result", || client.result(&id)), order.result);
    let (job, seen) = (client.job(&id), liar.seen_by(&coordinator));
    assert_eq!(job["algorithm"], "combinatorial");
    assert_eq!((&seen["state"], &seen["busy"]), (&"suspended".into(), &0.into()));
    let notice = job["notice"].as_str().expect("it says what went wrong");
    assert!(notice.starts_with("the worker fake-") && notice.contains("was set aside"), "{notice}");
    let verification = &job["verification"];
    assert_eq!(verification["workers_set_aside"], json!([seen["id"]]));
    for figure in ["compared_leases", "mismatches"] {
        assert!(verification[figure].as_u64() > Some(0), "{verification}");
    }
}

#[test]
fn uncompared_parts_of_a_liar_are_computed_anew_when_another_job_shows_the_lie() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[]);
    let (client, liar) = (coordinator.client(), FakeWorker::join(&coordinator, Fault::TwoWrongSums));
    // A single task, of which the liar gets one lease.
    let short = verified(Order::sum_by("sieve", 1, 3), 1.0);
    let short_id = coordinator.submit(&short);
    wait_until_a_lease_waits_for_another_worker(client, &short_id);
    // So small a share that no lease is compared.
    let long = verified(Order::sum_by("combinatorial", 11, 12), 0.000_001);
    let long_id = coordinator.submit(&long);
    let counted = || client.job(&long_id)["tasks"]["succeeded"].as_u64();
    eventually("a wrong part counts", || (counted() > Some(0)).then_some(()));
    // Paused: the workers could end the job before they show the lie.
    client.act(&long_id, "pause");
    let _workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    assert_eq!(eventually("the short job has a result", || client.result(&short_id)), short.result);
    let (job, seen) = (client.job(&long_id), liar.seen_by(&coordinator));
    let verification = &job["verification"];
    assert_eq!(verification["workers_set_aside"], json!([seen["id"]]));
    assert_eq!(verification["mismatches"], 0, "none of its own leases was compared");
    assert!(verification["recomputed_tasks"].as_u64() > Some(0), "{verification}");
    client.act(&long_id, "resume");
    assert_eq!(eventually("the long job has a result", || client.result(&long_id)), long.result);
}
