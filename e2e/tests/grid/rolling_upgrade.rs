//! Coordinators of an earlier release are replaced one after the other, while jobs run: `scripts/try-rolling-upgrade.sh` builds
//! the earlier release and runs this.

use std::env;

use crate::helpers::{Coordinator, Group, Order, Signal, eventually};
use crate::several_coordinators::{SMALL, Work, check_events};

/// The variable with the directory of the earlier release's programs.
const EARLIER: &str = "E2E_EARLIER_RELEASE";

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
    let directory =
        env::var(EARLIER).unwrap_or_else(|_| panic!("{EARLIER} is not set: scripts/try-rolling-upgrade.sh"));
    let earlier = format!("{directory}/divvy-coordinator");
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
