//! Several coordinators over a PostgreSQL that is not as it should be: it is away at a start, has lost commits, has no room, keeps
//! old rows for a reader, or has the schema of a newer release already.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_postgres::Server;

use crate::disks::fill;
use crate::helpers::{Coordinator, Group, Order, eventually, heavy, in_one_attempt, in_time, request, send};
use crate::several_coordinators::{SMALL, Work, check_events};

#[test]
fn coordinator_that_starts_while_its_database_is_away_serves_once_it_is_back() {
    let group = Group::start_on_own_server(1, &[]);
    group.server().kill();
    let url = group.server().url(group.database());
    let results = format!("file://{}", group.results().display());
    let settings = [
        ("DIVVY_STORE_URL", url.as_str()),
        ("DIVVY_RESULTS_URL", results.as_str()),
        ("DIVVY_LOCK_TIMEOUT_MS", "600000"),
    ];
    let late = Coordinator::launch_program("divvy-coordinator", &settings);
    late.logged("waiting for the database");
    group.server().start_again();
    late.logged("serving");
}

#[test]
fn coordinators_end_when_the_database_has_lost_commits_and_go_on_with_what_it_has() {
    let _turn = heavy();
    let mut group = Group::start_on_own_server(2, &SMALL);
    // It forgets an epoch that no coordinator shows after this time.
    let _worker = group.worker(&[("DIVVY_ORPHAN_TIMEOUT_MS", "10000")]);
    let order = Order::sum(1, 6);
    let kept = group.client(0).submit(&order, "kept");
    eventually("its result", || group.client(0).result(&kept));
    // Another epoch, which the copy does not have.
    let leader = group.leader();
    group.server().stop();
    group.server().keep_copy();
    group.server().start_again();
    let first = group.leader();
    group.coordinators[first].kill();
    group.start_again(first);
    group.leader();
    let lost = group.client(leader).submit(&order, "lost");
    eventually("its result", || group.client(leader).result(&lost));
    group.server().kill();
    group.server().use_copy();
    group.server().start_again();
    for coordinator in &mut group.coordinators {
        assert_eq!(coordinator.exit_status().code(), Some(1));
        let says = |line: &String| line.contains("has lost commits") && line.contains("ERROR");
        eventually("it says why", || coordinator.log().into_iter().find(says));
    }
    group.start_again(0);
    group.start_again(1);
    let client = group.client(group.leader());
    assert_eq!(eventually("its result", || client.result(&kept)), order.result);
    let jobs: Vec<_> = client.jobs().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(jobs, [Value::from(kept)]);
    // The worker, which has seen a later epoch than the copy had, works again.
    let again = client.submit(&order, "lost");
    assert_eq!(eventually("its result", || client.result(&again)), order.result);
    check_events(&group);
}

/// Longest time until a coordinator refuses what needs a database that says nothing, and some for a busy machine.
const LONGEST_REFUSAL: Duration = Duration::from_secs(6);

#[test]
fn every_coordinator_refuses_soon_while_the_database_is_frozen_and_goes_on_once_it_is_not() {
    let _turn = heavy();
    let group = Group::start_on_own_server(3, &SMALL);
    let work = Work::start(&group);
    let order = Order::sum(1, 6);
    let job = group.client(0).submit(&order, "done");
    eventually("its result", || group.client(0).result(&job));
    let reads = ["/v1/jobs", "/v1/coordinators", "/v1/statistics?grain=hour", "/v1/programs", "/jobs"];
    let (one, events) = (format!("/v1/jobs/{job}"), format!("/v1/jobs/{job}/events"));
    let reads: Vec<_> = reads.into_iter().chain([one.as_str(), &events]).collect();
    in_time(LONGEST_REFUSAL, "all of them refuse", || {
        // Each has connections over which it has read.
        for coordinator in &group.coordinators {
            for target in &reads {
                let is_read = || (request(coordinator.public, "GET", target, &[], "").status < 300).then_some(());
                eventually("it reads", is_read);
            }
        }
        group.server().freeze();
        let since = Instant::now();
        let mut asked = Vec::new();
        for coordinator in &group.coordinators {
            for target in &reads {
                asked.push((*target, send(coordinator.public, "GET", target, &[], "")));
            }
            asked.push(("a submission", send(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7]).body)));
        }
        for (what, asked) in asked {
            let refused = asked.answer();
            assert_eq!(refused.status, 503, "{what}: {refused:?}");
            assert!(refused.head.contains("\r\nretry-after: "), "{what}: {refused:?}");
        }
        let took = since.elapsed();
        group.server().thaw();
        took
    });
    let leader = group.leader();
    work.check(&group, leader);
    let again = group.client(leader).submit(&order, "afterwards");
    assert_eq!(eventually("its result", || group.client(leader).result(&again)), order.result);
    check_events(&group);
}

#[test]
fn a_full_disk_of_the_database_refuses_new_jobs_and_all_goes_on_once_there_is_room() {
    let _turn = heavy();
    let Some(server) = Server::start_on_small_disk(160) else {
        eprintln!("not run: nothing can be mounted here");
        return;
    };
    let group = Group::start_on_server(server, 2, &SMALL);
    let work = Work::start(&group);
    let leader = group.leader();
    let filler = group.server().inner_data_directory().join("filler");
    fill(&filler);
    let body = Order::squares(&[7; 2000]).body;
    let refused = eventually("a job is refused", || {
        let answer = request(group.coordinators[leader].public, "POST", "/v1/jobs", &[], &body);
        (answer.status > 299).then_some(answer)
    });
    assert_eq!(refused.problem(507), "nothing can be stored: the disk of the database is full");
    assert_eq!(request(group.coordinators[leader].public, "GET", "/v1/jobs", &[], "").status, 200);
    fs::remove_file(filler).expect("it is there");
    let client = group.client(group.leader());
    eventually("jobs are accepted again", || {
        let answer = request(group.coordinators[0].public, "POST", "/v1/jobs", &[], &body);
        (answer.status == 201).then_some(())
    });
    work.check(&group, leader);
    eventually("all is stored", || (client.stats()["store_error"] == Value::Null).then_some(()));
    check_events(&group);
}

#[test]
fn a_reader_that_holds_old_rows_does_not_move_the_leadership() {
    let _turn = heavy();
    let group = Group::start_on_own_server(2, &SMALL);
    let epoch = || {
        let list = group.list()?;
        list.iter().find_map(|coordinator| coordinator["epoch"].as_u64())
    };
    let held = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM divvy.events; SELECT pg_sleep(600)";
    let mut holder = group.server().psql_command(group.database(), held);
    let mut holder = holder.stdout(Stdio::null()).spawn().expect("psql");
    let is_held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()";
    let server = group.server();
    eventually("it holds them", || (server.psql(group.database(), is_held) != "0").then_some(()));
    let _worker = group.worker(&[("DIVVY_SLOTS", "2")]);
    let client = group.client(group.leader());
    let endless = client.submit(&Order::sleep(1_000_000, 0.001), "endless");
    let done = || client.job(&endless)["tasks"]["succeeded"].as_u64().expect("a number");
    // The old rows become more with each attempt.
    in_one_attempt("the same one leads in the same term", || {
        let (before, goal) = (eventually("one leads", epoch), done() + 3_000);
        eventually("tasks are done", || (done() >= goal).then_some(()));
        eventually("one leads", epoch) == before
    });
    assert_ne!(server.psql(group.database(), is_held), "0", "the reader was ended");
    let _ = holder.kill();
    let _ = holder.wait();
}

#[test]
fn coordinators_go_on_and_take_over_while_the_schema_is_that_of_a_newer_release() {
    let _turn = heavy();
    let mut group = Group::start_on_own_server(2, &SMALL);
    let work = Work::start(&group);
    // A later migration may add columns and tables that this release does not know.
    // Each by itself: whoever locks one table after another can get into a deadlock with the coordinators.
    for newer in [
        "ALTER TABLE divvy.jobs ADD COLUMN of_the_next_release text",
        "ALTER TABLE divvy.events ADD COLUMN of_the_next_release bigint NOT NULL DEFAULT 0",
        "CREATE TABLE divvy.of_the_next_release (key bigint PRIMARY KEY)",
        "UPDATE divvy.schema_version SET version = version + 1",
    ] {
        group.server().psql(group.database(), newer);
    }
    let leader = group.leader();
    let submitted = group.client(leader).submit(&Order::sum(1, 6), "with the newer schema");
    eventually("its result", || group.client(leader).result(&submitted));
    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    work.check(&group, next);
    check_events(&group);
}
