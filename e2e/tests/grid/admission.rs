//! Admission and waiting: no worker, overload, clients that leave, big and small requests.

use crate::helpers::{Answer, Coordinator, LONG_TASKS, Worker, eventually, heavy, published_sum};

#[test]
fn request_without_any_worker_is_told_so_and_gives_its_place_back() {
    let coordinator = Coordinator::start(&[("DIVVY_NO_WORKER_TIMEOUT_MS", "200"), ("DIVVY_MAX_INFLIGHT", "2")]);
    for _ in 0..5 {
        let answer = coordinator.sum(1, 1000);
        assert_eq!(answer.problem(503), "no worker was ready for 200 ms; try again later");
        assert!(answer.head.contains("\r\nretry-after: "), "{answer:?}");
    }
}

#[test]
fn request_that_waits_for_the_first_worker_is_answered() {
    let coordinator = Coordinator::start(&[("DIVVY_NO_WORKER_TIMEOUT_MS", "600000")]);
    let job = coordinator.ask_sum(1, 1000);
    eventually("it waits", || (coordinator.metric("divvy_wanted_slots") == 1.0).then_some(()));
    let _worker = Worker::join(&coordinator, &[]);
    assert_eq!(job.answer().sum(), published_sum(3));
}

#[test]
fn request_beyond_the_limit_is_refused_at_once_and_fits_in_when_others_have_left() {
    let coordinator = Coordinator::start(&[("DIVVY_MAX_INFLIGHT", "2")]);
    let _worker = Worker::join(&coordinator, &[]);
    let running = coordinator.fill_places(2);
    for _ in 0..5 {
        assert_refused(&coordinator.sum(1, 1000));
    }
    assert!(running.iter().all(|job| !job.is_answered()));
    drop(running);
    let answer =
        eventually("there is a place", || Some(coordinator.sum(1, 1000)).filter(|answer| answer.status != 503));
    assert_eq!(answer.sum(), published_sum(3));
}

#[test]
fn job_of_a_client_that_left_is_canceled_and_its_workers_stop() {
    let coordinator = Coordinator::start(&[LONG_TASKS]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    // A worker that is between two leases in that moment has none to cancel.
    eventually("a lease of each worker is canceled", || {
        let job = coordinator.ask_endless();
        coordinator.wait_until_all_compute();
        drop(job);
        eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
        assert_eq!(coordinator.metric("divvy_queue_depth_tasks"), 0.0);
        let canceled = |worker: &Worker| worker.metric(r#"divvy_worker_leases_total{outcome="canceled"}"#);
        workers.iter().all(|worker| canceled(worker) >= 1.0).then_some(())
    });
    assert_eq!(coordinator.sum(1, 10_u64.pow(7)).sum(), published_sum(7));
}

#[test]
fn small_request_is_answered_while_a_huge_one_runs() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[]);
    // More slots than the small ones have tasks: none of them is ever free.
    let _workers = [(); 3].map(|()| Worker::join(&coordinator, &[]));
    let huge = coordinator.ask_endless();
    eventually("the huge one runs", || (coordinator.completed_leases() >= 9.0).then_some(()));
    for _ in 0..3 {
        let small = coordinator.sum(10, 3_700_000);
        assert_eq!((small.sum(), &small.json()["tasks"]), (468_476_582_935, &2.into()));
        assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
    }
    assert!(!huge.is_answered());
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.problem(503), "as many requests as allowed are in flight; try again later");
    assert!(answer.head.contains("\r\nretry-after: "), "{answer:?}");
}
