//! A running task of a stored job outlives its coordinator: it is neither lost nor run again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{Coordinator, Order, Worker, eventually, in_time};

/// A task takes this long.
const TASK: Duration = Duration::from_secs(10);

/// A task that does not end while a test runs.
const ENDLESS_TASK: Duration = Duration::from_secs(3600);

/// Longer than any test: a task is not given out again because its worker is late with its list of leases.
const LONG_RECOVERY: (&str, &str) = ("DIVVY_RECOVERY_MS", "600000");

/// Longest time until the end of a job on a busy machine, once its task has ended and its coordinator is back: a heartbeat that
/// offers the outcome, its delivery and a commit.
const END: Duration = Duration::from_secs(60);

/// Longest time from the cancellation or pause of a job until its task stops, as far as a look shows it.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Submits a job of one task, which begins after the returned time, and waits until one of the workers runs it and its start is
/// stored: a lease that the coordinator counts may still be on its way.
fn start_task(coordinator: &Coordinator, workers: &[Worker], time: Duration) -> (String, Instant) {
    let submitted_at = Instant::now();
    let job = coordinator.submit(&Order::sleep(1, time.as_secs_f64()));
    eventually("a worker runs it", || (workers.iter().map(running).sum::<f64>() == 1.0).then_some(()));
    coordinator.wait_until_all_is_stored();
    (job, submitted_at)
}

/// Leases that a worker has and computes.
fn running(worker: &Worker) -> f64 {
    worker.metric(r#"divvy_worker_held_leases{state="running"}"#)
}

/// Waits for the end of a job, whose coordinator is back, and checks that it came in time and after one attempt.
fn assert_ran_once(coordinator: &Coordinator, job: &str, started_at: Instant) {
    let limit = TASK.max(started_at.elapsed()) + END;
    let job = eventually("it ends", || {
        let job = coordinator.client().job(job);
        (job["state"] == "succeeded").then_some(job)
    });
    assert!(started_at.elapsed() < limit, "it took {:?}: {job}", started_at.elapsed());
    assert_eq!(job["attempts"], 1, "{job}");
    assert_eq!(job["tasks"]["succeeded"], 1);
}

#[test]
fn task_goes_on_while_its_coordinator_is_killed_and_started_again() {
    let mut coordinator = Coordinator::start_to_stay(&[LONG_RECOVERY]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    let (job, started_at) = start_task(&coordinator, &workers, TASK);
    coordinator.kill();
    // The test is about this time without a coordinator.
    sleep(Duration::from_secs(2));
    coordinator.start_again(&[LONG_RECOVERY]);
    assert_ran_once(&coordinator, &job, started_at);
}

#[test]
fn task_goes_on_over_five_restarts_in_a_row() {
    let mut coordinator = Coordinator::start_to_stay(&[LONG_RECOVERY]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    let (job, started_at) = start_task(&coordinator, &workers, TASK);
    for _ in 0..5 {
        coordinator.kill();
        coordinator.start_again(&[LONG_RECOVERY]);
        eventually("its worker is back", || (coordinator.workers().len() == 2).then_some(()));
    }
    assert_ran_once(&coordinator, &job, started_at);
}

#[test]
fn outcome_of_a_task_that_ended_without_a_coordinator_is_kept_and_counts() {
    let mut coordinator = Coordinator::start_to_stay(&[LONG_RECOVERY]);
    let workers = [Worker::join(&coordinator, &[])];
    let worker = &workers[0];
    let (job, started_at) = start_task(&coordinator, &workers, TASK);
    coordinator.kill();
    eventually("its outcome is kept", || {
        (worker.metric(r#"divvy_worker_held_leases{state="finished"}"#) == 1.0).then_some(())
    });
    assert!(started_at.elapsed() >= TASK);
    coordinator.start_again(&[LONG_RECOVERY]);
    let end = eventually("it ends", || {
        let job = coordinator.client().job(&job);
        (job["state"] == "succeeded").then_some(job)
    });
    assert_eq!((&end["attempts"], &end["tasks"]["succeeded"]), (&Value::from(1), &Value::from(1)), "{end}");
    eventually("its worker forgets it", || {
        (worker.metric(r#"divvy_worker_held_leases{state="finished"}"#) == 0.0).then_some(())
    });
}

#[test]
fn canceled_or_paused_task_stops_within_two_seconds_wherever_it_runs() {
    let mut coordinator = Coordinator::start_to_stay(&[LONG_RECOVERY]);
    let workers = [Worker::join(&coordinator, &[])];
    let running = || running(&workers[0]);
    for (action, has_connection) in [("cancel", true), ("cancel", false), ("pause", true), ("pause", false)] {
        in_time(STOP_LIMIT, &format!("after {action} a task stops"), || {
            let (job, _) = start_task(&coordinator, &workers, ENDLESS_TASK);
            if !has_connection {
                coordinator.kill();
                coordinator.start_again(&[LONG_RECOVERY]);
                eventually("its task is adopted", || {
                    (coordinator.client().job(&job)["tasks"]["running"] == 1).then_some(())
                });
            }
            assert_eq!(running(), 1.0);
            let asked_at = Instant::now();
            coordinator.client().act(&job, action);
            eventually("it stops", || (running() == 0.0).then_some(()));
            asked_at.elapsed()
        });
    }
}
