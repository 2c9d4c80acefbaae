//! Coordinators whose machines' clocks differ: all date events by the clock of the database.

use std::fs;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::helpers::{Group, LONG_LEASE, Order, eventually, request};

/// Largest difference of a job's times from this machine's clock, which is the database's: small beside the hours by which the
/// others are wrong, and longer than a job takes on a busy machine.
const CLOSE_SECONDS: i64 = 600;

/// The library that gives a process another time than the machine's.
pub(crate) fn faketime() -> String {
    let directories = fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = directories.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let found = libraries.find(|library| library.exists()).expect("this test needs Debian's package libfaketime");
    found.to_str().expect("UTF-8").to_owned()
}

/// Starts a coordinator again whose machine's clock is so far ahead, such as `-1h`.
fn start_with_clock(group: &mut Group, number: usize, ahead: &str) {
    let library = faketime();
    let clock = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", ahead),
        // Only the calendar: a monotonic clock cannot be wrong.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    group.coordinators[number].kill();
    group.start_again_with(number, &clock);
    let logged = group.coordinators[number].logged("serving");
    let off = seconds_from_now(&logged["timestamp"]).abs();
    assert!(off > 3_000, "the clock of the process is only {off} s off: {logged}");
    eventually("all are there", || (group.list()?.len() == group.coordinators.len()).then_some(()));
}

/// Seconds between a time and this machine's clock.
fn seconds_from_now(at: &Value) -> i64 {
    let at: jiff::Timestamp = at.as_str().and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no time: {at}"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    at.as_second() - i64::try_from(now).expect("a time of this century")
}

/// Submits a job that has ten minutes at most; it must succeed, and its times be those of the database.
fn runs_in_its_time(group: &Group, at: usize, key: &str) {
    let mut order = Order::sleep(2, 0.01);
    let mut body: Value = serde_json::from_str(&order.body).expect("JSON");
    body["timeout"] = json!({ "job_seconds": 600 });
    order.body = body.to_string();
    let id = group.client(at).submit(&order, key);
    eventually("it ends", || group.client(at).result(&id));
    let job = group.client(at).job(&id);
    for field in ["submitted_at", "started_at", "finished_at"] {
        let off = seconds_from_now(&job[field]);
        assert!(off.abs() < CLOSE_SECONDS, "{field} is {off} s off: {job}");
    }
}

#[test]
fn a_job_is_dated_by_the_database_whatever_the_clock_of_the_coordinator_that_accepts_it() {
    let mut group = Group::start(2, &[LONG_LEASE]);
    let _worker = group.worker(&[]);
    for (round, ahead) in ["+2h", "-2h"].into_iter().enumerate() {
        let leader = group.leader();
        let standby = 1 - leader;
        start_with_clock(&mut group, standby, ahead);
        assert_eq!(group.leader(), leader, "a wrong clock does not end the leader's lease");
        runs_in_its_time(&group, standby, &format!("standby {round}"));
        runs_in_its_time(&group, leader, &format!("leader {round}"));
        // The coordinator with the wrong clock leads from here on.
        group.coordinators[leader].kill();
        assert_eq!(group.leader_after(leader), standby);
        let leads = || group.list()?.into_iter().find(|listed| listed["role"] == "leader");
        let listed = eventually("the leader is listed", leads);
        let off = seconds_from_now(&listed["started_at"]);
        assert!(off.abs() < 3_000, "its start is {off} s off: {listed}");
        runs_in_its_time(&group, standby, &format!("new leader {round}"));
        group.start_again(leader);
        eventually("all are there", || (group.list()?.len() == 2).then_some(()));
    }
    // The newest first, in the order in which they were submitted.
    let listed = request(group.coordinators[0].public, "GET", "/v1/jobs", &[], "").json();
    let time = |job: &Value| job["submitted_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let times: Vec<jiff::Timestamp> = listed["jobs"].as_array().expect("a page").iter().map(time).collect();
    assert_eq!(times.len(), 6);
    assert!(times.is_sorted_by(|one, other| one > other), "{times:?}");
}
