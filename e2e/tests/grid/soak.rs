//! Many small requests while workers come and go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::helpers::{Coordinator, Signal, Worker, eventually, heavy, round_ranges};

const CLIENTS: usize = 8;

/// Rounds of requests of each client, or more until [`COMING`] workers have come.
const ROUNDS: usize = 12;
const COMING: usize = 4;

/// Lets the clients end when the thread that starts the workers ends, however it ends.
struct End<'a>(&'a AtomicUsize);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

#[test]
fn every_answer_is_right_while_workers_come_and_go_and_nothing_is_left_behind() {
    let _turn = heavy();
    // As many as there are clients: a place that is not given back refuses the next request.
    let coordinator = Coordinator::start(&[("DIVVY_MAX_INFLIGHT", &CLIENTS.to_string())]);
    let mut workers: VecDeque<_> = (0..3).map(|_| Worker::join(&coordinator, &[])).collect();
    let (is_over, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let ask = |client| {
            scope.spawn({
                let (coordinator, came) = (&coordinator, &came);
                move || ask_much(coordinator, client, came)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        let churn = scope.spawn(|| come_and_go(&coordinator, &mut workers, &is_over, &came));
        let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        churn.join().expect("workers come and go");
        assert!(ended.iter().all(Result::is_ok));
    });
    eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
    assert_eq!(coordinator.metric("divvy_queue_depth_tasks"), 0.0);
    assert_eq!(coordinator.metric("divvy_refused_outcomes_total"), 0.0);
    coordinator.fill_places(CLIENTS);
}

fn ask_much(coordinator: &Coordinator, client: usize, came: &AtomicUsize) {
    for round in (0..).take_while(|round| *round < ROUNDS || came.load(Ordering::Relaxed) < COMING) {
        for (number, (a, b, sum)) in round_ranges(7).into_iter().enumerate() {
            let answer = coordinator.sum(a, b);
            assert_eq!(answer.sum(), sum, "client {client}, round {round}, request {number}");
        }
    }
}

/// Kills and terminates workers in turn, starts others and counts these.
fn come_and_go(coordinator: &Coordinator, workers: &mut VecDeque<Worker>, is_over: &AtomicBool, came: &AtomicUsize) {
    let _end = End(came);
    while !is_over.load(Ordering::Relaxed) {
        let before = coordinator.completed_leases();
        eventually("requests are answered", || {
            (is_over.load(Ordering::Relaxed) || coordinator.completed_leases() >= before + 20.0).then_some(())
        });
        workers.push_back(Worker::join(coordinator, &[]));
        let number = came.fetch_add(1, Ordering::Relaxed);
        let mut leaving = workers.pop_front().expect("four workers");
        if number % 2 == 1 {
            leaving.kill();
        } else {
            leaving.signal(Signal::TERM);
            assert_eq!(leaving.exit_status().code(), Some(0));
        }
    }
}
