//! A worker that an operator has drained stays so, whichever coordinator leads and however often one is started again.

use serde_json::Value;

use crate::helpers::{
    Conduct, Coordinator, Group, Order, Puller, STEADY_LEASE, Worker, divvy, eventually, get, request,
};

/// The state of a worker, as a coordinator lists it.
fn state(coordinator: &Coordinator, name: &str) -> Option<String> {
    let answer = get(coordinator.public, "/workers");
    let workers = (answer.status == 200).then(|| answer.json())?;
    let found = workers.as_array()?.iter().find(|worker| worker["id"] == name)?;
    found["state"].as_str().map(str::to_owned)
}

fn drain(coordinator: &Coordinator, name: &str) {
    let url = format!("http://{}", coordinator.public);
    let output = divvy(&["worker", "drain", name, "--coordinator", &url]).output().expect("run divvy");
    assert!(output.status.success(), "{output:?}");
}

/// Waits until the coordinator lists the worker as draining.
fn is_drained(coordinator: &Coordinator, name: &str) {
    eventually("it is drained", || (state(coordinator, name)? == "draining").then_some(()));
}

/// Runs a job of a task for every slot there might be; none may have run at the drained worker.
fn other_one_runs(coordinator: &Coordinator, drained: &Worker, key: &str) {
    let before = leases(drained);
    let job = coordinator.client().submit(&Order::sleep(6, 0.05), key);
    eventually("it ends", || coordinator.client().result(&job));
    assert_eq!(leases(drained), before, "the drained worker got a lease");
}

fn leases(worker: &Worker) -> f64 {
    worker.metric(r#"divvy_worker_leases_total{outcome="completed"}"#)
}

#[test]
fn a_drained_worker_gets_nothing_from_the_next_leader_until_its_process_is_started_again() {
    let mut group = Group::start(2, &[STEADY_LEASE]);
    let drained = group.worker(&[("DIVVY_WORKER_ID", "drained")]);
    let other = group.worker(&[("DIVVY_WORKER_ID", "other")]);
    let leader = group.leader();
    // By way of a coordinator that does not lead.
    drain(group.other_than(leader), "drained");
    is_drained(&group.coordinators[leader], "drained");
    other_one_runs(&group.coordinators[leader], &drained, "first");

    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    is_drained(&group.coordinators[next], "drained");
    other_one_runs(&group.coordinators[next], &drained, "second");

    group.start_again(leader);
    drop(drained);
    let again = group.worker(&[("DIVVY_WORKER_ID", "drained")]);
    let ready = || (state(&group.coordinators[next], "drained")? == "ready").then_some(());
    eventually("another process under the name gets work", ready);
    // A missed heartbeat suspends a worker for a moment, in which the other one would do the whole job.
    drop(other);
    let job = group.client(next).submit(&Order::sleep(60, 0.05), "third");
    eventually("it ends", || group.client(next).result(&job));
    assert!(leases(&again) > 0.0);
}

#[test]
fn a_drained_worker_gets_nothing_after_its_coordinator_was_started_again() {
    let mut coordinator = Coordinator::start_to_stay(&[]);
    let drained = Worker::join(&coordinator, &[("DIVVY_WORKER_ID", "drained")]);
    drain(&coordinator, "drained");
    for key in ["first", "second"] {
        coordinator.kill();
        coordinator.start_again(&[]);
        is_drained(&coordinator, "drained");
        let _other = Worker::join(&coordinator, &[("DIVVY_WORKER_ID", "other")]);
        other_one_runs(&coordinator, &drained, key);
    }
}

#[test]
fn a_drained_worker_that_was_away_for_long_is_drained_when_it_comes_back() {
    let coordinator = Coordinator::start(&[]);
    let drained = Worker::join(&coordinator, &[("DIVVY_WORKER_ID", "drained")]);
    drain(&coordinator, "drained");
    drained.signal(crate::helpers::Signal::STOP);
    eventually("it is forgotten", || coordinator.find(&drained.boot_id).is_none().then_some(()));
    drained.signal(crate::helpers::Signal::CONT);
    is_drained(&coordinator, "drained");
}

#[test]
fn a_pulling_worker_that_is_drained_gets_nothing_from_the_next_leader() {
    let mut group = Group::start(2, &[STEADY_LEASE]);
    let leader = group.leader();
    let puller =
        |number: usize| Puller { coordinator: group.coordinators[number].internal, name: "drained".to_owned() };
    let (before, after) = (puller(leader), puller(1 - leader));
    let first = group.client(leader).submit(&Order::squares(&[7]), "first");
    let claim = eventually("a task", || before.claim(1));
    assert_eq!(before.end(&claim, Conduct::Complete), Some(true));
    eventually("it ends", || group.client(leader).result(&first));
    drain(&group.coordinators[leader], "drained");
    let second = group.client(leader).submit(&Order::squares(&[8]), "second");
    assert!(before.claim(1).is_none(), "it is drained");

    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    for _ in 0..5 {
        assert!(after.claim(1).is_none(), "it is drained still");
    }
    is_drained(&group.coordinators[next], "drained");
    let other = Puller { name: "other".to_owned(), ..after };
    let claim = eventually("a task", || other.claim(1));
    assert_eq!(other.end(&claim, Conduct::Complete), Some(true));
    assert_eq!(eventually("its result", || group.client(next).result(&second))["tasks"], Value::from(vec![64]));
}

#[test]
fn nobody_drains_a_worker_that_is_not_there() {
    let coordinator = Coordinator::start(&[]);
    for name in ["nobody", "%2F"] {
        let answer = request(coordinator.public, "POST", &format!("/workers/{name}/drain"), &[], "");
        assert!(answer.problem(404).contains("there is no worker"), "{answer:?}");
    }
}
