//! Slots, head starts, suspension, claims and pauses of leasing.

use std::time::Duration;

use model::JobKind;
use scheduler::AttemptFailure;

use super::harness::{Harness, MAX_UNSTORED, held, job};
use crate::{ClaimId, HeldState, JobFailure, LeaseFailure, Standing, Suspension, SuspensionReason};

const HEAD_START: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn refused() -> LeaseFailure {
    LeaseFailure::WorkerFailed(AttemptFailure::Refused("it answered 500".to_owned()))
}

#[test]
fn a_proven_slot_gets_one_lease_ahead_after_its_head_start() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    let begins = grid.take_up(1, JobKind::SUM_OF_PRIMES, 100_000_000);
    assert!(begins.len() == 2 && begins[0] == "store 1 started" && begins[1].starts_with("send 1 0.."), "{begins:?}");
    let first = grid.orders[0].clone();
    // A worker without completed leases is tried with one lease.
    assert_eq!(grid.wait(HEAD_START), Vec::<String>::new());
    let after = grid.complete(first.attempt);
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after[0].starts_with("store 1 completed") && after[1].starts_with("send 1"), "{after:?}");
    assert_eq!(grid.engine.poll_timeout(), Some(grid.now.instant + HEAD_START));
    let ahead = grid.wait(HEAD_START);
    assert!(ahead.len() == 1 && ahead[0].starts_with("send 1"), "{ahead:?}");
    assert_eq!(grid.orders[1].tasks.end, grid.orders[2].tasks.start, "it goes on where the other one ends");
    assert_eq!(grid.wait(HEAD_START), Vec::<String>::new(), "two leases are enough");
}

#[test]
fn a_slot_that_loses_both_of_its_leases_goes_on_in_order_and_with_a_head_start() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SUM_OF_PRIMES, 100_000_000);
    grid.complete(grid.orders[0].attempt);
    assert_eq!(grid.wait(HEAD_START).len(), 1, "the slot has two leases");
    assert_eq!(grid.take_up(2, JobKind::SUM_OF_PRIMES, 100_000_000), Vec::<String>::new());
    grid.engine.cancel(job(1), grid.now);
    let effects = grid.effects();
    assert_eq!(effects.iter().filter(|effect| effect.starts_with("stop")).count(), 2, "{effects:?}");
    let sent: Vec<_> = effects.iter().filter(|effect| effect.starts_with("send")).collect();
    assert!(sent.len() == 1 && sent[0].starts_with("send 2 0.."), "{effects:?}");
    let ahead = grid.wait(HEAD_START);
    assert!(ahead.len() == 1 && ahead[0].starts_with("send 2"), "{ahead:?}");
    assert_eq!(grid.orders[3].tasks.end, grid.orders[4].tasks.start, "it goes on where the other one ends");
}

#[test]
fn a_worker_that_failed_gets_no_lease_ahead_until_it_has_completed_one() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SUM_OF_PRIMES, 100_000_000);
    grid.complete(grid.orders[0].attempt);
    assert_eq!(grid.wait(HEAD_START).len(), 1, "it is proven");
    for order in [1, 2] {
        grid.engine.fail(grid.orders[order].attempt, refused(), grid.now).expect("leased");
    }
    grid.effects();
    grid.advance(HEAD_START);
    grid.engine.heartbeat(key, &[], grid.now);
    let after_pause = grid.wait(Duration::from_millis(500));
    assert!(after_pause.len() == 1 && after_pause[0].starts_with("send 1"), "{after_pause:?}");
    assert_eq!(grid.wait(HEAD_START), Vec::<String>::new(), "two leases would cost two attempts");
    grid.complete(grid.orders[3].attempt);
    assert_eq!(grid.wait(HEAD_START).len(), 1, "it is proven again");
}

#[test]
fn pauses_of_a_worker_grow_when_it_fails_several_jobs() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    grid.engine.fail(grid.attempt(1, 0), refused(), grid.now).expect("leased");
    grid.effects();
    let standing = |grid: &Harness| grid.engine.worker(key).expect("known").standing;
    assert_eq!(standing(&grid), Standing::Suspended);
    // A worker that failed one job only waits for a heartbeat and the shortest pause.
    grid.advance(HEAD_START);
    grid.engine.heartbeat(key, &[], grid.now);
    assert_eq!(standing(&grid), Standing::Suspended);
    grid.wait(Duration::from_millis(500));
    assert_eq!(standing(&grid), Standing::Ready);
    grid.engine.cancel(job(1), grid.now);
    grid.effects();
    assert_eq!(grid.take_up(2, JobKind::SLEEP, 1), ["store 2 started", "send 2 0..1 to 1.0"]);
    grid.engine.fail(grid.attempt(2, 0), refused(), grid.now).expect("leased");
    grid.effects();
    grid.advance(HEAD_START);
    grid.engine.heartbeat(key, &[], grid.now);
    assert_eq!(standing(&grid), Standing::Suspended);
    grid.wait(Duration::from_millis(500));
    assert_eq!(standing(&grid), Standing::Ready, "it has shown that it lives, and the pause is over");
    grid.engine.cancel(job(2), grid.now);
    grid.effects();
    grid.take_up(3, JobKind::SLEEP, 1);
    grid.engine.fail(grid.attempt(3, 0), refused(), grid.now).expect("leased");
    grid.effects();
    grid.advance(HEAD_START);
    grid.engine.heartbeat(key, &[], grid.now);
    grid.wait(Duration::from_millis(500));
    assert_eq!(standing(&grid), Standing::Suspended, "failures of several jobs: for a longer pause");
    grid.wait(Duration::from_millis(1_500));
    assert_eq!(standing(&grid), Standing::Ready);
}

#[test]
fn failing_tasks_do_not_suspend_their_worker() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    for number in 1..=3 {
        grid.take_up(number, JobKind::SLEEP, 1);
        grid.engine.fail(grid.attempt(number, 0), LeaseFailure::TaskFailed("no".to_owned()), grid.now).expect("leased");
        grid.engine.cancel(job(number), grid.now);
        grid.effects();
    }
    assert_eq!(grid.engine.worker(key).expect("known").standing, Standing::Ready);
}

#[test]
fn an_unreachable_worker_gets_nothing_until_its_pause_is_over_and_it_lives() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    grid.engine.fail(grid.attempt(1, 0), LeaseFailure::Undeliverable, grid.now).expect("leased");
    assert_eq!(grid.effects(), ["suspend w: it did not take a lease"], "no attempt is counted");
    let until = Some(grid.now.instant + Duration::from_millis(500));
    let suspension = grid.engine.worker(key).expect("known").suspension;
    assert_eq!(suspension, Some(Suspension { reason: SuspensionReason::Undelivered, until }));
    let why = "no worker is ready; the worker w is suspended: it did not take a lease";
    assert_eq!(grid.engine.explain(job(1)).as_deref(), Some(why));
    assert_eq!(grid.wait(SECOND), Vec::<String>::new(), "it has not shown that it lives");
    grid.engine.heartbeat(key, &[], grid.now);
    assert_eq!(grid.effects(), ["send 1 0..1 to 1.0"]);
    assert_eq!(grid.engine.worker(key).expect("known").suspension, None);
}

#[test]
fn a_worker_that_is_resumed_gets_nothing_in_place_of_a_lease_that_it_lists_after_all() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let late = grid.order(1, 0);
    grid.engine.fail(late.attempt, LeaseFailure::Undeliverable, grid.now).expect("leased");
    assert_eq!(grid.effects(), ["suspend w: it did not take a lease"]);
    assert_eq!(grid.wait(SECOND), Vec::<String>::new());
    let reconciled = grid.engine.heartbeat(key, &[held(&late, HeldState::Running)], grid.now);
    assert_eq!(reconciled.settled, []);
    assert_eq!(grid.effects(), Vec::<String>::new(), "its task runs");
    assert_eq!(grid.engine.worker(key).expect("known").standing, Standing::Ready);
}

#[test]
fn a_worker_that_does_not_run_a_kind_gets_no_more_of_it_and_no_attempt_is_counted() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let refused = grid.order(1, 0);
    grid.engine.fail(refused.attempt, LeaseFailure::Unsupported, grid.now).expect("leased");
    assert_eq!(grid.effects(), ["w lacks sleep"], "no attempt is counted");
    grid.engine.heartbeat(key, &[held(&refused, HeldState::Running)], grid.now);
    assert_eq!(grid.wait(SECOND), Vec::<String>::new());
    let worker = grid.engine.worker(key).expect("known");
    assert_eq!((worker.standing, worker.lacks), (Standing::Ready, vec![JobKind::SLEEP]));
    assert!(grid.take_up(2, JobKind::SUM_OF_PRIMES, 1).contains(&"send 2 0..1 to 1.0".to_owned()));
    grid.worker("x", 1, &[]);
    assert_eq!(grid.effects(), ["send 1 0..1 to 2.0"], "another worker runs it");
    assert_eq!(grid.engine.job(job(1)).expect("open").attempts, 1);
}

#[test]
fn a_draining_worker_finishes_and_gets_nothing_more() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    grid.take_up(2, JobKind::SLEEP, 1);
    grid.engine.drain(key, grid.now);
    assert_eq!(grid.complete(grid.attempt(1, 0)), ["store 1 completed 0..1 0", "store 1 ended succeeded"]);
    assert_eq!(grid.engine.worker(key).expect("known").standing, Standing::Draining);
    assert_eq!(grid.engine.leases(), 0);
}

#[test]
fn claims_that_wait_are_answered_in_their_order() {
    let mut grid = Harness::new();
    let (first, second) = (grid.puller("p"), grid.puller("q"));
    assert!(grid.engine.claim(first, 1, grid.now).is_none());
    grid.engine.wait_for_tasks(ClaimId(1), first, 1, grid.now);
    grid.engine.wait_for_tasks(ClaimId(2), second, 1, grid.now);
    grid.engine.wait_for_tasks(ClaimId(3), first, 1, grid.now);
    assert!(grid.engine.has_waiting_claim(second));
    grid.engine.forget_claim(ClaimId(2));
    assert!(!grid.engine.has_waiting_claim(second));
    assert_eq!(grid.engine.footprint().claims, 2);
    let effects = grid.take_up(1, JobKind::TASKS, 3);
    assert_eq!(effects, ["store 1 started", "deliver 1 0..1 to claim 1", "deliver 1 1..2 to claim 3"]);
    grid.engine.lose(first, grid.now);
    assert_eq!(grid.engine.footprint().claims, 0);
}

#[test]
fn a_claim_of_many_tasks_leaves_a_share_to_others_that_wait() {
    let mut grid = Harness::new();
    let pullers = ["p", "q", "r"].map(|name| grid.puller(name));
    for (number, (puller, max_tasks)) in (1..).zip(pullers.into_iter().zip([10, 1, 1])) {
        grid.engine.wait_for_tasks(ClaimId(number), puller, max_tasks, grid.now);
    }
    let [first, second, third] =
        ["deliver 1 0..1 to claim 1", "deliver 1 1..2 to claim 2", "deliver 1 2..3 to claim 3"];
    assert_eq!(grid.take_up(1, JobKind::TASKS, 3), ["store 1 started", first, second, third]);
}

#[test]
fn nothing_is_leased_while_too_much_waits_for_the_store() {
    let mut grid = Harness::new();
    for number in 1..=u128::from(MAX_UNSTORED) + 1 {
        grid.take_up(number, JobKind::SLEEP, 1);
        grid.engine.retry(job(number), grid.now).expect("it is here");
        grid.effects();
    }
    assert_eq!(grid.engine.unstored(), MAX_UNSTORED + 1);
    grid.worker("w", 1, &[]);
    assert_eq!(grid.effects(), Vec::<String>::new());
    grid.engine.stored(1, grid.now);
    assert_eq!(grid.effects(), ["store 1 started", "send 1 0..1 to 1.0"]);
}

#[test]
fn a_lease_that_brings_the_store_to_its_bound_is_the_last_one_for_now() {
    let mut grid = Harness::new();
    for number in 1..=u128::from(MAX_UNSTORED) {
        grid.take_up(number, JobKind::SLEEP, 1);
        grid.engine.retry(job(number), grid.now).expect("it is here");
        grid.effects();
    }
    grid.worker("w", 2, &[]);
    assert_eq!(grid.effects(), ["store 1 started", "send 1 0..1 to 1.0"]);
    grid.engine.stored(1, grid.now);
    assert_eq!(grid.effects(), ["store 2 started", "send 2 0..1 to 1.1"]);
}

#[test]
fn a_stopping_coordinator_ends_what_clients_wait_for_and_leaves_stored_jobs_to_their_workers() {
    let mut grid = Harness::new();
    grid.worker("w", 2, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let params = grid.stored(2, JobKind::SLEEP, 1).record.params;
    let kind = workloads::kind(JobKind::SLEEP).expect("a kind");
    let work = kind.restore(&params, 1.try_into().expect("not zero")).expect("a job");
    grid.engine.ask(job(2), JobKind::SLEEP, work, &model::JobOptions::default(), grid.now);
    grid.effects();
    grid.engine.stop(grid.now);
    let stopping: Result<u128, _> = Err(JobFailure::Stopping);
    assert_eq!(grid.effects(), ["close 0..1 at 1 because JobOver".to_owned(), format!("answer 2 {stopping:?}")],);
    assert_eq!(grid.take_up(3, JobKind::SLEEP, 1), Vec::<String>::new());
    assert_eq!(grid.complete(grid.attempt(1, 0)), ["store 1 completed 0..1 0", "store 1 ended succeeded"]);
}
