//! Workers that die, hang or come back: the answer stays exact and nothing counts twice.

use std::collections::VecDeque;

use crate::helpers::{Coordinator, LONG_TASKS, Order, Signal, Worker, eventually, heavy, published_sum};

/// Longer than any test: no eviction helps.
const NO_EVICTION: (&str, &str) = ("DIVVY_EVICT_AFTER_MS", "600000");

#[test]
fn sum_stays_exact_while_workers_are_killed_again_and_again() {
    let _turn = heavy();
    // Some thousand tasks that take seconds in all, and leases so short that many end between one loss and the next: a
    // task that is lost four times fails its job.
    let coordinator = Coordinator::start(&[("DIVVY_CHUNK_SIZE", "25000000"), ("DIVVY_LEASE_TARGET_MS", "20")]);
    let mut workers: VecDeque<_> = (0..3).map(|_| Worker::join(&coordinator, &[])).collect();
    let job = coordinator.ask_sum(1, 10_u64.pow(11));
    let mut killed = 0;
    loop {
        let before = coordinator.completed_leases();
        eventually("the job goes on", || {
            (job.is_answered() || coordinator.completed_leases() >= before + 20.0).then_some(())
        });
        if job.is_answered() {
            break;
        }
        workers.pop_front().expect("three workers").kill();
        workers.push_back(Worker::join(&coordinator, &[]));
        killed += 1;
    }
    let answer = job.answer();
    assert_eq!(answer.sum(), published_sum(11));
    assert_eq!(answer.json()["tasks"], 4000);
    assert!(killed >= 5, "only {killed} workers were killed");
}

#[test]
fn stopped_worker_is_evicted_and_its_late_outcome_refused() {
    let _turn = heavy();
    // There is always another task, however fast the machine is: the stopped worker's task is not given out again before its
    // eviction, which would revoke the first lease.
    let coordinator = Coordinator::start(&[LONG_TASKS]);
    let stopped = Worker::join(&coordinator, &[]);
    let _other = Worker::join(&coordinator, &[]);
    let endless = coordinator.ask_endless();
    eventually("the worker computes", || (stopped.metric("divvy_worker_running_slots") >= 1.0).then_some(()));
    stopped.signal(Signal::STOP);
    // The coordinator's own test measures the silence.
    eventually("the eviction", || coordinator.find(&stopped.boot_id).is_none().then_some(()));
    assert_eq!(coordinator.sum(1, 10_u64.pow(8)).sum(), published_sum(8), "the other one goes on");
    drop(endless);
    eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
    assert_eq!(coordinator.metric("divvy_refused_outcomes_total"), 0.0);

    stopped.signal(Signal::CONT);
    eventually("the late outcome is refused", || {
        (coordinator.metric("divvy_refused_outcomes_total") >= 1.0).then_some(())
    });
    let is_ready = || coordinator.find(&stopped.boot_id).filter(|worker| worker["state"] == "ready");
    let back = eventually("the worker is back", is_ready);
    assert_eq!(back["completed_tasks"], 0, "{back}");
    assert_eq!(coordinator.sum(1, 10_u64.pow(7)).sum(), published_sum(7));
}

#[test]
fn worker_restarted_under_its_id_is_another_worker() {
    let coordinator = Coordinator::start(&[NO_EVICTION]);
    let id = ("DIVVY_WORKER_ID", "always-the-same");
    let old = Worker::join(&coordinator, &[id]);
    old.signal(Signal::STOP);
    let job = coordinator.ask_sum(1, 1000);
    eventually("the old one holds the lease", || coordinator.find(&old.boot_id).filter(|worker| worker["busy"] == 1));

    let new = Worker::join(&coordinator, &[id]);
    assert_eq!(job.answer().sum(), published_sum(3));
    assert_eq!(new.id, old.id);
    let is_done_by_new = || coordinator.find(&new.boot_id).filter(|worker| worker["completed_tasks"] == 1);
    eventually("the new one has done it", is_done_by_new);
    assert_eq!(coordinator.workers().len(), 1);
    coordinator.wait_for_metric(r#"divvy_evictions_total{reason="replaced"}"#, 1.0);

    old.signal(Signal::CONT);
    coordinator.wait_for_metric("divvy_refused_outcomes_total", 1.0);
}

#[test]
fn killed_workers_task_is_done_elsewhere_without_waiting_for_the_eviction() {
    let coordinator = Coordinator::start(&[NO_EVICTION]);
    let mut holder = Worker::join(&coordinator, &[]);
    // So that it holds the lease for as long as this test needs it to.
    holder.signal(Signal::STOP);
    let job = coordinator.ask_sum(1, 1000);
    eventually("it holds the lease", || coordinator.find(&holder.boot_id).filter(|worker| worker["busy"] == 1));
    let idle = Worker::join(&coordinator, &[]);
    assert!(!job.is_answered());
    holder.kill();
    assert_eq!(job.answer().sum(), published_sum(3));
    let is_done_by_idle = || coordinator.find(&idle.boot_id).filter(|worker| worker["completed_tasks"] == 1);
    eventually("the idle one has done it", is_done_by_idle);
}

#[test]
fn killed_workers_stored_task_is_done_elsewhere_without_waiting_for_the_eviction() {
    let coordinator = Coordinator::start(&[NO_EVICTION]);
    let mut holder = Worker::join(&coordinator, &[]);
    let mut silent_ms = 0;
    // A connection of one heartbeat says nothing by its end.
    eventually("a second heartbeat", || {
        let worker = coordinator.find(&holder.boot_id)?;
        let before = std::mem::replace(&mut silent_ms, worker["last_seen_ms_ago"].as_u64()?);
        (silent_ms < before).then_some(())
    });
    holder.signal(Signal::STOP);
    let job = coordinator.submit(&Order::sleep(1, 0.0));
    eventually("it holds the lease", || coordinator.find(&holder.boot_id).filter(|worker| worker["busy"] == 1));
    let idle = Worker::join(&coordinator, &[]);
    holder.kill();
    let job = eventually("it is done", || {
        let job = coordinator.client().job(&job);
        (job["state"] == "succeeded").then_some(job)
    });
    assert_eq!(job["attempts"], 2, "the lost one and the one that counts: {job}");
    assert_eq!(coordinator.find(&idle.boot_id).expect("it lives")["completed_tasks"], 1);
}
