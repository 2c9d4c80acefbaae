//! A stored job whose row cannot be read, because it is damaged or of a later release: coordinators lead and start, say so,
//! and leave that job alone.

use serde_json::{Value, json};

use crate::helpers::{Coordinator, Group, LONG_LEASE, Order, STEADY_LEASE, Worker, eventually, get, heavy, request};
use crate::several_coordinators::SMALL;

const LATER_OPTIONS: &str = r#"{"v": 99}"#;

/// Checks that a leading coordinator reports a job that it cannot read, and that its pages work.
fn tells_of(coordinator: &Coordinator, damaged: &str) {
    let is_told = |line: &String| line.contains("a stored job cannot be read") && line.contains(damaged);
    let line = eventually("the log names the job", || coordinator.log().into_iter().find(is_told));
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert!(line["error"].as_str().is_some_and(|error| error.contains("version 99 is not known")), "{line}");
    assert_eq!(coordinator.metric("divvy_unreadable_jobs"), 1.0);
    assert_eq!(coordinator.client().stats()["unreadable_jobs"], 1);
    let problem = get(coordinator.public, &format!("/v1/jobs/{damaged}")).problem(500);
    assert!(problem.contains(damaged) && problem.contains("version 99 is not known"), "{problem}");
    let refused = request(coordinator.public, "POST", &format!("/v1/jobs/{damaged}/pause"), &[], "");
    assert!(refused.problem(500).contains("cannot be read"), "{refused:?}");
    for page in ["/", "/jobs", "/grid/coordinators"] {
        assert_eq!(get(coordinator.public, page).status, 200, "{page}");
    }
    assert!(get(coordinator.public, "/").body.contains("cannot be read by this version"));
    assert_eq!(
        get(coordinator.public, &format!("/jobs/states?id={damaged}")).body,
        "[]",
        "it is neither over nor gone"
    );
}

fn listed(coordinator: &Coordinator) -> Vec<String> {
    let ids = coordinator.client().jobs().into_iter().map(|job| job["id"].as_str().expect("an id").to_owned());
    ids.collect()
}

#[test]
fn a_coordinator_takes_over_and_leaves_a_job_that_it_cannot_read_alone() {
    let _turn = heavy();
    let mut group = Group::start_on_own_server(3, &[&SMALL[..], &[STEADY_LEASE]].concat());
    let orders = [Order::sum(1, 6), Order::count(1, 6), Order::sum(2, 6)];
    let jobs: Vec<_> =
        orders.iter().zip(["a", "b", "c"]).map(|(order, key)| group.client(0).submit(order, key)).collect();
    let damage = format!("UPDATE divvy.jobs SET options = '{LATER_OPTIONS}' WHERE id = '{}'", jobs[1]);
    group.server().psql(group.database(), &damage);
    let leader = group.leader();
    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    tells_of(&group.coordinators[next], &jobs[1]);
    // The standby, which has no term, says the same of the job.
    let standby = (0..3).find(|number| ![leader, next].contains(number)).expect("a third one");
    let problem = get(group.coordinators[standby].public, &format!("/v1/jobs/{}", jobs[1])).problem(500);
    assert!(problem.contains("version 99 is not known"), "{problem}");
    assert_eq!(listed(&group.coordinators[standby]), [jobs[2].clone(), jobs[0].clone()]);
    let changed = request(group.coordinators[standby].public, "POST", "/v1/jobs/all/pause?state=queued", &[], "");
    assert_eq!((changed.status, changed.json()["matched"].clone()), (200, Value::from(2)), "{changed:?}");
    request(group.coordinators[standby].public, "POST", "/v1/jobs/all/resume?state=paused", &[], "");

    let _worker = group.start_worker(&[]);
    let later = group.client(standby).submit(&orders[0], "d");
    for (id, order) in [(&jobs[0], &orders[0]), (&jobs[2], &orders[2]), (&later, &orders[0])] {
        assert_eq!(eventually("its result", || group.client(next).result(id)), order.result);
    }
    // Repaired, it goes on with the next term.
    let repair = format!("UPDATE divvy.jobs SET options = '{{}}' WHERE id = '{}'", jobs[1]);
    group.server().psql(group.database(), &repair);
    group.start_again(leader);
    eventually("it is there again", || group.answers(leader).then_some(()));
    let next = group.leader();
    group.coordinators[next].kill();
    let last = group.leader_after(next);
    assert_eq!(eventually("its result", || group.client(last).result(&jobs[1])), orders[1].result);
    assert_eq!(group.coordinators[last].metric("divvy_unreadable_jobs"), 0.0);
}

/// Changes the database of a coordinator that has ended.
fn change_rows(coordinator: &Coordinator, sql: &str) {
    let program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                   changed = db.execute(sys.argv[2]).rowcount; db.commit(); sys.exit(changed != 1)";
    let database = coordinator.data_dir().join("divvy.db");
    let done = std::process::Command::new("python3").args(["-c", program]).arg(database).arg(sql).status();
    assert!(done.expect("this test needs python3").success(), "{sql}");
}

#[test]
fn a_coordinator_of_its_own_starts_and_leaves_a_job_that_it_cannot_read_alone() {
    let mut coordinator = Coordinator::start_to_stay(&SMALL);
    let orders = [Order::sum(1, 6), Order::count(1, 6), Order::sum(2, 6)];
    let jobs: Vec<_> = orders.iter().map(|order| coordinator.submit(order)).collect();
    coordinator.kill();
    let damage = format!("UPDATE jobs SET options = '{LATER_OPTIONS}' WHERE id = x'{}'", jobs[1].replace('-', ""));
    change_rows(&coordinator, &damage);
    coordinator.start_again(&SMALL);
    tells_of(&coordinator, &jobs[1]);
    assert_eq!(listed(&coordinator), [jobs[2].clone(), jobs[0].clone()]);
    let _worker = Worker::join(&coordinator, &[]);
    for number in [0, 2] {
        let result = eventually("its result", || coordinator.client().result(&jobs[number]));
        assert_eq!(result, orders[number].result);
    }
    // Its owner gives it up, as often as that is asked for.
    for _ in 0..2 {
        let canceled = request(coordinator.public, "POST", &format!("/v1/jobs/{}/cancel", jobs[1]), &[], "");
        let job = canceled.json();
        assert_eq!(
            (canceled.status, &job["id"], &job["state"]),
            (200, &Value::from(jobs[1].clone()), &Value::from("canceled"))
        );
        assert!(job["notice"].as_str().is_some_and(|notice| notice.contains("version 99 is not known")), "{job}");
    }
    assert_eq!(coordinator.metric("divvy_unreadable_jobs"), 0.0);
    let waited = get(coordinator.public, &format!("/v1/jobs/{}/events?follow=false", jobs[1]));
    assert!(waited.body.contains("canceled"), "{waited:?}");
}

#[test]
fn a_row_that_the_database_cannot_read_stops_its_job_and_no_other() {
    let _turn = heavy();
    let group = Group::start_on_own_server(2, &[&SMALL[..], &[LONG_LEASE]].concat());
    let leader = group.leader();
    let orders = [Order::sum(1, 6), Order::count(1, 6), Order::sum(2, 6)];
    let jobs: Vec<_> =
        orders.iter().zip(["a", "b", "c"]).map(|(order, key)| group.client(leader).submit(order, key)).collect();
    // A long text whose chunks are gone, as by a lost page.
    let ask = |sql: &str| group.psql(sql);
    let text = "(SELECT string_agg(md5(number::text), '') FROM generate_series(1, 1000) AS number)";
    ask(&format!("UPDATE divvy.jobs SET error = {text} WHERE id = '{}'", jobs[1]));
    ask("CREATE EXTENSION pg_surgery");
    let toast = ask("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'divvy.jobs'::regclass");
    ask(&format!("SELECT heap_force_kill('{toast}', ARRAY(SELECT ctid FROM {toast}))"));

    let _worker = group.worker(&[]);
    let client = group.client(leader);
    for number in [0, 2] {
        assert_eq!(eventually("its result", || client.result(&jobs[number])), orders[number].result);
    }
    let coordinator = &group.coordinators[leader];
    let is_told = |line: &String| line.contains("a stored job cannot be read") && line.contains("missing chunk");
    eventually("the log names the job", || coordinator.log().into_iter().find(is_told));
    assert_eq!(coordinator.metric("divvy_unreadable_jobs"), 1.0);
    eventually("nothing fails", || (client.stats()["store_error"] == Value::Null).then_some(()));
    let later = client.submit(&orders[0], "d");
    assert_eq!(eventually("its result", || client.result(&later)), orders[0].result);
    let path = format!("/v1/jobs/{}/cancel", jobs[1]);
    let canceled = request(group.other_than(leader).public, "POST", &path, &[], "");
    assert_eq!((canceled.status, &canceled.json()["state"]), (200, &Value::from("canceled")), "{canceled:?}");
    assert_eq!(coordinator.metric("divvy_unreadable_jobs"), 0.0);
}

#[test]
fn tasks_whose_payloads_are_damaged_fail_and_do_not_keep_a_worker_from_other_jobs() {
    let mut coordinator = Coordinator::start_to_stay(&[]);
    let submit = |numbers: [u64; 3]| {
        let body = json!({ "kind": "tasks", "params": { "list": numbers } }).to_string();
        let answer = request(coordinator.public, "POST", "/v1/jobs", &[], &body);
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let jobs = [submit([1, 2, 3]), submit([4, 5, 6])];
    coordinator.kill();
    let of_first = format!("(SELECT key FROM jobs WHERE id = x'{}')", jobs[0].replace('-', ""));
    change_rows(&coordinator, &format!("UPDATE payloads SET list = '[1, 2' WHERE job = {of_first}"));
    coordinator.start_again(&[]);
    let claim = json!({ "worker_id": "puller", "kinds": ["tasks"], "max_tasks": 3, "wait_seconds": 0.2 }).to_string();
    let claimed = eventually("the other job's tasks come", || {
        let answer = request(coordinator.internal, "POST", "/v1/worker/claim", &[], &claim);
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(claimed["job"], jobs[1]);
    let client = coordinator.client();
    eventually("those of the first have failed", || (client.job(&jobs[0])["tasks"]["failed"] == 3).then_some(()));
    // The counts come from the engine, the errors from the disk.
    let last_error = eventually("the error is stored", || {
        let page = get(coordinator.public, &format!("/v1/jobs/{}/tasks", jobs[0])).json();
        page["tasks"][0]["last_error"].as_str().map(str::to_owned)
    });
    assert!(last_error.contains("its payload cannot be read"), "{last_error}");
}
