//! Many small requests while workers come and go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::helpers::{Coordinator, Signal, Worker, eventually, heavy, round_ranges};

const CLIENTS: usize = 8;
const ROUNDS: usize = 12;

#[test]
fn every_answer_is_right_while_workers_come_and_go_and_nothing_is_left_behind() {
    let _turn = heavy();
    // As many as there are clients: a place that is not given back refuses the next request.
    let coordinator = Coordinator::start(&[("DIVVY_MAX_INFLIGHT", &CLIENTS.to_string())]);
    let mut workers: VecDeque<_> = (0..3).map(|_| Worker::join(&coordinator, &[])).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = |client| {
            scope.spawn({
                let coordinator = &coordinator;
                move || ask_much(coordinator, client)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        let churn = scope.spawn(|| come_and_go(&coordinator, &mut workers, &is_over));
        let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let came = churn.join().expect("workers come and go");
        assert!(ended.iter().all(Result::is_ok));
        assert!(came >= 4, "only {came} workers came");
    });
    eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
    assert_eq!(coordinator.metric("divvy_queue_depth_tasks"), 0.0);
    assert_eq!(coordinator.metric("divvy_refused_outcomes_total"), 0.0);
    coordinator.fill_places(CLIENTS);
}

fn ask_much(coordinator: &Coordinator, client: usize) {
    for round in 0..ROUNDS {
        for (number, (a, b, sum)) in round_ranges(7).into_iter().enumerate() {
            let answer = coordinator.sum(a, b);
            assert_eq!(answer.sum(), sum, "client {client}, round {round}, request {number}");
        }
    }
}

/// Kills and terminates workers in turn and starts others; answers how many came.
fn come_and_go(coordinator: &Coordinator, workers: &mut VecDeque<Worker>, is_over: &AtomicBool) -> usize {
    let mut came = 0;
    while !is_over.load(Ordering::Relaxed) {
        let before = coordinator.completed_leases();
        eventually("requests are answered", || {
            (is_over.load(Ordering::Relaxed) || coordinator.completed_leases() >= before + 20.0).then_some(())
        });
        workers.push_back(Worker::join(coordinator, &[]));
        came += 1;
        let mut leaving = workers.pop_front().expect("four workers");
        if came % 2 == 0 {
            leaving.kill();
        } else {
            leaving.signal(Signal::TERM);
            assert_eq!(leaving.exit_status().code(), Some(0));
        }
    }
    came
}
