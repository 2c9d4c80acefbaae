//! Several coordinators over one PostgreSQL: one dies, hangs or is cut off, and the grid goes on. No task is run again that
//! did not have to be, and what was acknowledged is there and exact.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{
    Group, Order, Proxy, Signal, Worker, all_events, eventually, heavy, in_one_attempt, in_time, published_sum,
    request, send, try_request,
};

/// Long enough that tasks are under way at each fault of a coordinator, short enough to wait for.
const TASK_SECONDS: f64 = 2.0;

/// Small tasks and leases, so that each fault meets many. A new leader waits for the lists of workers for longer than any of them
/// is late, or it would give their tasks out again.
pub(crate) const SMALL: [(&str, &str); 3] =
    [("DIVVY_CHUNK_SIZE", "250000"), ("DIVVY_LEASE_TARGET_MS", "20"), ("DIVVY_RECOVERY_MS", "5000")];

/// A grid with work: long tasks, and many short ones.
pub(crate) struct Work {
    _workers: Vec<Worker>,
    /// A job of long tasks, each of which must run once.
    long: String,
    tasks: u64,
    sums: Vec<(Order, String)>,
}

impl Work {
    /// Starts jobs and waits until they run.
    pub(crate) fn start(group: &Group) -> Self {
        let workers: Vec<_> = (0..2).map(|_| group.worker(&[("DIVVY_SLOTS", "2")])).collect();
        let (client, tasks) = (group.client(0), 8);
        let sums = [Order::sum(1, 8), Order::count(2, 8)];
        let sums = sums.into_iter().enumerate().map(|(number, order)| {
            let id = client.submit(&order, &format!("sum-{number}"));
            (order, id)
        });
        let sums = sums.collect();
        let long = client.submit(&Order::sleep(tasks, TASK_SECONDS), "long");
        eventually("the long tasks run", || (client.job(&long)["tasks"]["running"] != 0).then_some(()));
        Self { _workers: workers, long, tasks, sums }
    }

    /// Waits for the end of all jobs, and checks their results and that no long task has run twice.
    pub(crate) fn check(&self, group: &Group, at: usize) {
        let client = group.client(at);
        let end = eventually("the long tasks are done", || {
            let job = client.job(&self.long);
            (job["state"] == "succeeded").then_some(job)
        });
        assert_eq!(end["tasks"]["succeeded"], self.tasks, "{end}");
        assert_eq!(end["attempts"], self.tasks, "a task has run again: {end}");
        for (order, id) in &self.sums {
            let result = eventually("a result", || client.result(id));
            assert_eq!(result, order.result);
        }
    }
}

/// Every coordinator tells the same events, numbered without a gap. Those of jobs that run may become more meanwhile.
pub(crate) fn check_events(group: &Group) {
    let running = || group.coordinators.iter().filter(|coordinator| coordinator.is_running());
    eventually("every coordinator tells the same events", || {
        let told: Vec<_> = running().map(|coordinator| all_events(coordinator.public)).collect();
        for events in &told {
            let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
            let expected: Vec<_> = (1..=events.len() as u64).collect();
            assert_eq!(numbers, expected);
        }
        told.iter().all(|events| events == &told[0]).then_some(())
    });
}

#[test]
fn when_the_leader_is_killed_the_next_one_goes_on_with_every_task() {
    let _turn = heavy();
    let mut group = Group::start(3, &SMALL);
    let work = Work::start(&group);
    let leader = group.leader();
    // A client waits at a standby for a sum that the leader computes.
    let target = "/sum-of-primes?a=1&b=100000000&priority=1";
    let waiting = send(group.other_than(leader).public, "GET", target, &[], "");
    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    work.check(&group, next);
    assert_eq!(waiting.answer().sum(), published_sum(8));
    check_events(&group);
    in_one_attempt("the leader goes on leading", || {
        let leads = group.leader();
        let returns = if group.coordinators[leader].is_running() { (leads + 1) % 3 } else { leader };
        group.coordinators[returns].kill();
        group.start_again(returns);
        eventually("it is back", || (group.answers(returns) && group.list()?.len() == 3).then_some(()));
        group.leader() == leads
    });
}

#[test]
fn a_leader_that_is_stopped_gives_the_lead_up_and_ends_well() {
    let _turn = heavy();
    let mut group = Group::start(2, &[&SMALL[..], &[crate::helpers::LONG_LEASE]].concat());
    let work = Work::start(&group);
    let leader = group.leader();
    let client = group.client(leader);
    for (_, id) in &work.sums {
        eventually("a result", || client.result(id));
    }
    let waiting = send(group.coordinators[leader].public, "GET", "/sum-of-primes?a=1&b=100000000", &[], "");
    // A connection that is not accepted yet is refused when its listener closes.
    let has_come = || waiting.is_answered() || client.stats()["jobs"]["running"] == 2;
    eventually("the request has come", || has_come().then_some(()));
    group.coordinators[leader].signal(Signal::TERM);
    let next = group.leader_after(leader);
    assert_eq!(waiting.answer().sum(), published_sum(8), "the next leader answers what waited at the last one");
    assert_eq!(group.coordinators[leader].exit_status().code(), Some(0));
    work.check(&group, next);
    check_events(&group);
}

#[test]
fn a_leader_that_is_stopped_has_given_the_lead_up_before_it_ends() {
    let mut group = Group::start(2, &[&SMALL[..], &[crate::helpers::LONG_LEASE]].concat());
    for _ in 0..5 {
        let leader = group.leader();
        let next = 1 - leader;
        group.coordinators[leader].signal(Signal::TERM);
        assert_eq!(group.coordinators[leader].exit_status().code(), Some(0));
        group.coordinators[leader].logged("gave the leadership up");
        assert_eq!(group.leader_after(leader), next);
        group.start_again(leader);
        eventually("it is back", || group.answers(leader).then_some(()));
    }
    // Nobody else can lead, until it is started again.
    let leader = group.leader();
    group.coordinators[1 - leader].kill();
    group.coordinators[leader].signal(Signal::TERM);
    assert_eq!(group.coordinators[leader].exit_status().code(), Some(0));
    group.coordinators[leader].logged("gave the leadership up");
}

#[test]
fn a_leader_that_hangs_and_wakes_up_changes_nothing_any_more() {
    let _turn = heavy();
    let group = Group::start(2, &SMALL);
    let work = Work::start(&group);
    let leader = group.leader();
    group.coordinators[leader].signal(Signal::STOP);
    let next = group.leader_after(leader);
    let later = group.client(next).submit(&Order::sum(1, 7), "later");
    work.check(&group, next);
    group.coordinators[leader].signal(Signal::CONT);
    group.coordinators[leader].logged("this coordinator follows");
    let result = eventually("a result of the one that woke up", || group.client(leader).result(&later));
    assert_eq!(result, Order::sum(1, 7).result);
    check_events(&group);
}

#[test]
fn a_batch_whose_commit_was_not_answered_counts_once() {
    let _turn = heavy();
    let group = Group::start(2, &SMALL);
    let work = Work::start(&group);
    let order = Order::sum(1, 6);
    let submitted = (0..3).map(|round| {
        // A machine that stands still may move the lead: the commits of each coordinator count.
        for way in &group.to_database {
            way.swallow(b"COMMIT\0");
        }
        let key = format!("round-{round}");
        // Whatever else is stored, the job's own batch is, and the answer to one commit is lost before the job is acknowledged.
        let id = eventually("a job is acknowledged", || {
            let headers = [("idempotency-key", key.as_str())];
            let answer = try_request(group.coordinators[0].public, "POST", "/v1/jobs", &headers, &order.body)?;
            (answer.status < 300).then(|| answer.json()["id"].as_str().expect("an id").to_owned())
        });
        assert!(group.to_database.iter().any(Proxy::has_swallowed), "no answer to a commit is lost");
        id
    });
    let submitted: Vec<_> = submitted.collect();
    let leader = group.leader();
    work.check(&group, leader);
    for id in &submitted {
        let result = eventually("a result", || group.client(leader).result(id));
        assert_eq!(result, order.result);
    }
    let jobs = group.client(leader).jobs().len();
    assert_eq!(jobs, 6, "each job is there once");
    check_events(&group);
}

#[test]
fn a_leader_without_its_database_steps_down_and_comes_back_as_a_standby() {
    let _turn = heavy();
    let group = Group::start(2, &SMALL);
    let work = Work::start(&group);
    let leader = group.leader();
    group.to_database[leader].cut(true);
    let next = group.leader_after(leader);
    let refused = request(group.coordinators[leader].public, "GET", "/v1/jobs", &[], "");
    assert!(refused.head.contains("\r\nretry-after: "), "{refused:?}");
    refused.problem(503);
    work.check(&group, next);
    group.to_database[leader].cut(false);
    let result = eventually("it reads again", || group.client(leader).result(&work.sums[0].1));
    assert_eq!(result, work.sums[0].0.result);
    check_events(&group);
}

#[test]
fn workers_that_lose_the_leader_alone_come_back_to_it() {
    let _turn = heavy();
    let group = Group::start(2, &[&SMALL[..], &[crate::helpers::LONG_LEASE]].concat());
    let work = Work::start(&group);
    let mut attempts = 0;
    in_one_attempt("the leader goes on leading", || {
        attempts += 1;
        let leader = group.leader();
        group.to_coordinator[leader].cut(true);
        let ready = r#"divvy_workers{state="ready"}"#;
        eventually("their heartbeats are missed", || (group.coordinators[leader].metric(ready) == 0.0).then_some(()));
        group.to_coordinator[leader].cut(false);
        let id = group.client(leader).submit(&Order::sleep(1, 0.0), &format!("short-{attempts}"));
        eventually("a result", || group.client(leader).result(&id));
        group.leader() == leader
    });
    let client = group.client(group.leader());
    let end = eventually("the long tasks are done", || {
        let job = client.job(&work.long);
        (job["state"] == "succeeded").then_some(job)
    });
    assert_eq!(end["tasks"]["succeeded"], work.tasks, "{end}");
    for (order, id) in &work.sums {
        assert_eq!(eventually("a result", || client.result(id)), order.result);
    }
    check_events(&group);
}

#[test]
fn while_the_database_is_away_work_goes_on_and_afterwards_everything_does() {
    let _turn = heavy();
    let group = Group::start_on_own_server(2, &SMALL);
    let work = Work::start(&group);
    let mut outages = 0;
    in_time(LONGEST_RETURN + Duration::from_secs(3), "everything goes on", || {
        outages += 1;
        group.server().kill();
        let refused = eventually("reads are refused", || {
            let answer = request(group.coordinators[0].public, "GET", "/v1/jobs", &[], "");
            (answer.status != 200).then_some(answer)
        });
        assert!(refused.head.contains("\r\nretry-after: "), "{refused:?}");
        refused.problem(503);
        group.server().start_again();
        let back_at = Instant::now();
        // Stored, leased, computed and stored again, by way of any leader.
        let (order, key) = (Order::sleep(1, 0.0), format!("back-{outages}"));
        let id = eventually("a job is accepted again", || {
            let headers = [("idempotency-key", key.as_str())];
            let answer = try_request(group.coordinators[0].public, "POST", "/v1/jobs", &headers, &order.body)?;
            (answer.status < 300).then(|| answer.json()["id"].as_str().expect("an id").to_owned())
        });
        let result = eventually("its result", || {
            let target = format!("/v1/jobs/{id}/result");
            let answer = try_request(group.coordinators[0].public, "GET", &target, &[], "")?;
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(result, order.result);
        back_at.elapsed()
    });
    let leader = group.leader();
    work.check(&group, leader);
    check_events(&group);
}

#[test]
fn an_outcome_that_came_while_nobody_led_counts() {
    let _turn = heavy();
    // Longer than a worker is late with its list: only a worker that is gone loses its task.
    let mut group = Group::start(2, &[("DIVVY_RECOVERY_MS", "5000")]);
    let worker = group.worker(&[]);
    let restarted = group.worker(&[]);
    // Both tasks still run when the coordinators die.
    let job = group.client(0).submit(&Order::sleep(2, 10.0), "one");
    // A lease that the leader counts may still be on its way.
    let runs = |worker: &Worker| worker.metric(r#"divvy_worker_held_leases{state="running"}"#) == 1.0;
    eventually("both run", || (runs(&worker) && runs(&restarted)).then_some(()));
    group.coordinators.iter_mut().for_each(|coordinator| coordinator.kill());
    drop(restarted);
    eventually("an outcome is kept", || {
        (worker.metric(r#"divvy_worker_held_leases{state="finished"}"#) == 1.0).then_some(())
    });
    let _next = group.start_worker(&[]);
    group.start_again(0);
    group.start_again(1);
    let end = eventually("it ends", || {
        let job = group.client(1).job(&job);
        (job["state"] == "succeeded").then_some(job)
    });
    // Only the lost worker's task has run again, and the loss counts as one attempt at most.
    assert_eq!(end["tasks"]["succeeded"], 2, "{end}");
    assert!(end["attempts"].as_u64().is_some_and(|attempts| attempts <= 3), "{end}");
}

#[test]
fn every_coordinator_goes_on_with_a_stream_where_another_one_left_it() {
    let group = Group::start(3, &SMALL);
    let _worker = group.worker(&[]);
    let job = group.client(1).submit(&Order::sum(1, 7), "one");
    eventually("it ends", || group.client(2).result(&job));
    let whole = all_events(group.coordinators[0].public);
    for (number, coordinator) in group.coordinators.iter().enumerate() {
        let seen = whole[number].seq.to_string();
        let answer = request(coordinator.public, "GET", "/v1/events?follow=false", &[("last-event-id", &seen)], "");
        let rest: Vec<_> = answer.body.lines().filter_map(|line| line.strip_prefix("id:")).map(str::trim).collect();
        let expected: Vec<_> = whole[number + 1..].iter().map(|event| event.seq.to_string()).collect();
        assert_eq!(rest, expected);
    }
}

#[test]
fn a_path_that_is_encoded_is_passed_on_too() {
    let group = Group::start(2, &[crate::helpers::LONG_LEASE]);
    let _worker = group.worker(&[]);
    for coordinator in &group.coordinators {
        let answer = request(coordinator.public, "GET", "/sum%2Dof%2Dprimes?a=1&b=10000000", &[], "");
        assert_eq!(answer.sum(), published_sum(7));
    }
}

#[test]
fn a_key_names_one_job_whoever_is_asked_and_whoever_leads() {
    let mut group = Group::start(2, &SMALL);
    let order = Order::sleep(1, 0.0);
    let first = group.client(0).submit(&order, "key");
    assert_eq!(group.client(1).submit(&order, "key"), first);
    let leader = group.leader();
    group.coordinators[leader].kill();
    let next = group.leader_after(leader);
    assert_eq!(group.client(next).submit(&order, "key"), first);
    let listed: Vec<Value> = group.client(next).jobs();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[test]
fn the_command_lists_the_coordinators() {
    let group = Group::start(2, &[crate::helpers::LONG_LEASE]);
    let url = format!("http://{}", group.coordinators[1].public);
    let first = group.coordinators[0].public.to_string();
    let parts = ["coordinator-0", "coordinator-1", "leader", "standby", &first];
    // A coordinator knows of the other one, and who leads, a moment after it has begun.
    eventually("the table has all of it", || {
        let output =
            crate::helpers::divvy(&["coordinator", "list", "--coordinator", &url]).output().expect("run divvy");
        let table = String::from_utf8(output.stdout).expect("UTF-8");
        parts.iter().all(|part| table.contains(part)).then_some(())
    });
}

/// Longest time until all work goes on after the database's return, as the service promises.
const LONGEST_RETURN: Duration = Duration::from_secs(2);

/// Longest time without a leader, as the service promises.
const LONGEST_TAKEOVER: Duration = Duration::from_secs(2);

#[test]
fn the_next_leader_leases_within_two_seconds_of_the_last_ones_death() {
    let _turn = heavy();
    // Longer than this it waits only for workers that it may not know, just after its own start.
    let settings = [&SMALL[..], &[("DIVVY_RECOVERY_MS", "500")]].concat();
    let mut group = Group::start(2, &settings);
    let worker = group.worker(&[]);
    group.client(0).submit(&Order::sleep(100_000, 0.01), "endless");
    let mut killed = None;
    in_time(LONGEST_TAKEOVER + Duration::from_secs(1), "the next one leases", || {
        if let Some(killed) = killed {
            group.start_again(killed);
            eventually("it follows and knows the worker", || {
                (group.answers(killed) && worker.metric("divvy_worker_coordinators") >= 2.0).then_some(())
            });
        }
        let leader = group.leader();
        eventually("it runs", || (group.coordinators[leader].completed_leases() > 5.0).then_some(()));
        group.coordinators[leader].kill();
        killed = Some(leader);
        let killed_at = Instant::now();
        let next = group.other_than(leader);
        eventually("the next one leases", || (next.completed_leases() > 0.0).then_some(()));
        killed_at.elapsed()
    });
}
