//! An upgrade from an earlier release: its coordinators are replaced one after the other, while jobs run, and services of both releases
//! work together. `scripts/try-rolling-upgrade.sh` builds the earlier release and runs this.

use std::env;

use crate::helpers::{Coordinator, Group, Order, Signal, Worker, eventually, published_sum};
use crate::several_coordinators::{SMALL, Work, check_events};

/// The variable with the directory of the earlier release's programs.
const EARLIER: &str = "E2E_EARLIER_RELEASE";

fn earlier(program: &str) -> String {
    let directory =
        env::var(EARLIER).unwrap_or_else(|_| panic!("{EARLIER} is not set: scripts/try-rolling-upgrade.sh"));
    format!("{directory}/{program}")
}

fn schema(group: &Group) -> u32 {
    group.server().psql(group.database(), "SELECT version FROM divvy.schema_version").trim().parse().expect("a number")
}

/// Stops a coordinator and starts this release's in its place.
fn replace(group: &mut Group, number: usize) {
    group.coordinators[number].signal(Signal::TERM);
    assert_eq!(group.coordinators[number].exit_status().code(), Some(0));
    group.start_again(number);
    let count = group.coordinators.len();
    eventually("all are there", || (group.list()?.len() >= count).then_some(()));
}

/// A job that is submitted to a coordinator ends, as another one says.
fn runs(group: &Group, at: usize, asked: usize, key: &str) {
    let order = Order::sum(1, 6);
    let id = group.client(at).submit(&order, key);
    assert_eq!(eventually("its result", || group.client(asked).result(&id)), order.result);
}

#[test]
#[ignore = "needs the programs of an earlier release: scripts/try-rolling-upgrade.sh"]
fn coordinators_of_an_earlier_release_are_replaced_one_by_one_and_every_job_goes_on() {
    let earlier = earlier("divvy-coordinator");
    let mut group = Group::start_of_release(&earlier, 2, &SMALL);
    let before = schema(&group);
    let work = Work::start(&group);
    let leader = group.leader();
    let standby = 1 - leader;
    runs(&group, standby, leader, "before");

    // Two releases over one database, whose schema the later one has brought up to date.
    replace(&mut group, standby);
    assert!(schema(&group) > before, "the releases have the same schema {before}: try an earlier one");
    assert_eq!(group.leader(), leader, "the earlier release leads on");
    runs(&group, standby, leader, "accepted by the later release");
    runs(&group, leader, standby, "accepted by the earlier release");
    check_events(&group);

    replace(&mut group, leader);
    assert_eq!(group.leader(), standby, "the later release leads");
    runs(&group, leader, standby, "after");
    work.check(&group, leader);
    check_events(&group);

    let url = group.server().url(group.database());
    let settings = [("DIVVY_STORE_URL", url.as_str()), ("DIVVY_RESULTS_URL", "file:///tmp")];
    let mut late = Coordinator::launch_program(&earlier, &settings);
    assert_eq!(late.exit_status().code(), Some(1));
    let log = eventually("it says why", || Some(late.log().join("\n")).filter(|log| !log.is_empty()));
    assert!(log.contains("schema"), "{log}");
}

/// One `kubectl apply` replaces coordinators and workers side by side.
#[test]
#[ignore = "needs the programs of an earlier release: scripts/try-rolling-upgrade.sh"]
fn workers_of_either_release_compute_for_a_coordinator_of_the_other_one() {
    let mixes = [
        ("divvy-coordinator".to_owned(), earlier("divvy-worker")),
        (earlier("divvy-coordinator"), "divvy-worker".to_owned()),
    ];
    for (of_coordinator, of_worker) in mixes {
        let coordinator = Coordinator::start_program(&of_coordinator, &[]);
        let worker = Worker::start_program(&of_worker, coordinator.internal, &[]);
        eventually("the worker is registered", || coordinator.find(&worker.boot_id));
        assert_eq!(coordinator.sum(1, 10_u64.pow(6)).sum(), published_sum(6), "{of_worker} for {of_coordinator}");
        let order = Order::sum(1, 6);
        let id = coordinator.submit(&order);
        let result = eventually("its result", || coordinator.client().result(&id));
        assert_eq!(result, order.result, "{of_worker} for {of_coordinator}");
    }
}
