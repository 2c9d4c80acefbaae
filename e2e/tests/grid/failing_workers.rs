//! Workers that answer leases wrongly: with a good worker the answer is exact, without one the client is told.

use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::{Coordinator, FakeWorker, Fault, Worker, eventually, heavy, published_sum};

/// A worker that never answers loses its lease after this time.
const SHORT_LEASES: (&str, &str) = ("DIVVY_LEASE_TIMEOUT_MS", "1000");

/// The pause after the first failure in a row; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

#[test]
fn worker_that_answers_500_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::Status500);
}

#[test]
fn worker_that_answers_garbage_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::Garbage);
}

#[test]
fn worker_that_closes_in_the_middle_of_its_answer_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::HalfAnAnswer);
}

#[test]
fn worker_that_answers_for_another_attempt_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::WrongAttempt);
}

#[test]
fn worker_that_answers_an_impossible_sum_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::ImpossibleSum);
}

#[test]
fn worker_whose_answer_has_no_end_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::EndlessBody);
}

#[test]
fn worker_that_pads_its_answer_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::LongBody);
}

#[test]
fn worker_that_redirects_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::RedirectToItself);
}

#[test]
fn worker_that_closes_without_an_answer_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::ClosedConnection);
}

#[test]
fn worker_that_never_answers_spoils_nothing() {
    a_good_worker_makes_up_for(Fault::Silence);
}

#[test]
fn lease_that_its_worker_has_not_read_costs_no_attempt() {
    costs_no_attempt(Fault::RequestTimeout);
}

#[test]
fn lease_that_comes_to_another_process_than_was_meant_costs_no_attempt() {
    costs_no_attempt(Fault::Conflict);
}

#[test]
fn lease_for_which_its_worker_has_no_room_costs_no_attempt() {
    costs_no_attempt(Fault::TooManyRequests);
}

#[test]
fn lease_that_its_worker_does_not_let_in_costs_no_attempt() {
    costs_no_attempt(Fault::Unauthorized);
    costs_no_attempt(Fault::Forbidden);
}

fn costs_no_attempt(fault: Fault) {
    let coordinator = Coordinator::start(&[("DIVVY_MAX_ATTEMPTS", "1")]);
    let fake = FakeWorker::join(&coordinator, fault);
    let job = coordinator.ask_sum(1, 1000);
    eventually("the lease comes to it twice", || (fake.leases() >= 2).then_some(()));
    let _good = Worker::join(&coordinator, &[]);
    assert_eq!(job.answer().sum(), published_sum(3));
}

#[test]
fn client_is_told_what_is_wrong_with_the_only_worker() {
    let causes = [
        (Fault::Status500, "its worker answered 500 Internal Server Error"),
        (Fault::Garbage, "its worker was lost"),
        (Fault::HalfAnAnswer, "its worker was lost"),
        (Fault::WrongAttempt, "its worker answered for attempt "),
        (Fault::ImpossibleSum, "its worker answered a value that cannot be"),
        (Fault::EndlessBody, "the answer is longer than 4096 bytes"),
        (Fault::LongBody, "the answer is longer than 4096 bytes"),
        (Fault::RedirectToItself, "its worker answered 307 Temporary Redirect"),
        (Fault::ClosedConnection, "its worker was lost"),
        (Fault::Silence, "its lease expired"),
    ];
    thread::scope(|scope| {
        for (fault, cause) in causes {
            scope.spawn(move || a_lone_worker_fails(fault, cause));
        }
    });
}

/// The lease timeout beside a worker with this fault: only a worker that never answers loses its lease by it. The answer shows
/// the other faults, however slow the machine is.
fn lease_timeout(fault: Fault) -> (&'static str, &'static str) {
    if fault == Fault::Silence { SHORT_LEASES } else { ("DIVVY_LEASE_TIMEOUT_MS", "60000") }
}

fn a_lone_worker_fails(fault: Fault, cause: &str) {
    let coordinator = Coordinator::start(&[lease_timeout(fault), ("DIVVY_MAX_ATTEMPTS", "2")]);
    let fake = FakeWorker::join(&coordinator, fault);
    let message = coordinator.sum(1, 1000).problem(502);
    assert!(message.starts_with("the job failed: task 0 failed 2 times"), "{fault:?}: {message}");
    assert!(message.contains(cause), "{fault:?}: {message}");
    // The fake worker may read a lease after it has expired.
    eventually("both leases are read", || (fake.leases() >= 2).then_some(()));
    assert_eq!(fake.leases(), 2, "{fault:?}");
}

fn a_good_worker_makes_up_for(fault: Fault) {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[lease_timeout(fault)]);
    let fake = FakeWorker::join(&coordinator, fault);
    // The good worker is there before the request: a failing worker alone would use up the attempts of a task.
    let _good = Worker::join(&coordinator, &[]);
    let started_at = Instant::now();
    assert_eq!(coordinator.sum(1, 10_u64.pow(9)).sum(), published_sum(9));
    for _ in 0..20 {
        assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
    }
    eventually("the fake worker is asked", || (fake.leases() >= 1).then_some(()));
    let leases = u32::try_from(fake.leases()).expect("few leases");
    // At least the first pause after each: it grows only while several jobs fail.
    let pauses = FIRST_PAUSE * (leases - 1);
    assert!(started_at.elapsed() >= pauses, "{leases} leases reached it without the pauses between them");
}
