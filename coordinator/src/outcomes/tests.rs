use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use jiff::Timestamp;
use model::JobId;
use store::memory::Memory;
use store::{Change, ChangeKind, Retention, WriteError};
use tokio::task::yield_now;
use uuid::Uuid;

use super::*;

const KIB: usize = 1024;

/// An outcome of one task.
fn size(bytes: usize) -> OutcomeSize {
    OutcomeSize { bytes, tasks: 1 }
}

/// The share of an outcome for which there is room now.
fn reserve_now(budget: &OutcomeBudget, size: OutcomeSize) -> Option<OutcomePermit> {
    budget.reserve(size, || ()).now_or_never()
}

/// A change without effect.
fn change() -> Change {
    Change { job: JobId(Uuid::from_u128(1)), at: Timestamp::UNIX_EPOCH, kind: ChangeKind::Progress }
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.expect("it comes");
}

#[tokio::test]
async fn outcomes_wait_for_room_and_the_smallest_do_not() {
    let budget = OutcomeBudget::new(4 << 20);
    let first = reserve_now(&budget, size(1 << 20)).expect("there is room");
    assert!(reserve_now(&budget, size(1 << 20)).is_none());
    assert!(reserve_now(&budget, size(KIB)).is_some());
    drop(first);
    assert!(reserve_now(&budget, size(1 << 30)).is_some(), "alone");
}

#[tokio::test]
async fn many_medium_outcomes_take_no_more_than_the_budget() {
    let budget = OutcomeBudget::new(2 << 20);
    let taken: Vec<_> = (0..100).map_while(|_| reserve_now(&budget, size(16 * KIB))).collect();
    // Each of them takes three times its length.
    assert!((40..=42).contains(&taken.len()), "{}", taken.len());
    assert!(reserve_now(&budget, size(16 * KIB)).is_none());
    assert!(reserve_now(&budget, size(KIB)).is_some());
}

#[tokio::test]
async fn many_tiny_results_count_for_more_than_their_text() {
    let budget = OutcomeBudget::new(1 << 20);
    let many = OutcomeSize { bytes: 16 * KIB, tasks: 8 << 10 };
    let _first = reserve_now(&budget, many).expect("there is room");
    assert!(reserve_now(&budget, many).is_none());
    // A report of a long lease without results is small.
    assert!(reserve_now(&budget, OutcomeSize { bytes: 16, tasks: u64::MAX }).is_some());
}

#[tokio::test]
async fn an_outcome_that_waits_for_room_keeps_its_lease() {
    let budget = OutcomeBudget::new(KIB);
    let first = reserve_now(&budget, size(16 * KIB)).expect("there is room");
    let prolonged = AtomicUsize::new(0);
    let count = || {
        prolonged.fetch_add(1, Ordering::Relaxed);
    };
    let mut second = pin!(budget.reserve(size(16 * KIB), count));
    tokio::select! {
        biased;
        _ = &mut second => panic!("there is no room"),
        () = wait_until(|| prolonged.load(Ordering::Relaxed) >= 2) => (),
    }
    drop(first);
    timeout(Duration::from_secs(60), second).await.expect("there is room again");
}

#[tokio::test]
async fn outcomes_are_held_while_the_store_fails_and_let_go_by_the_commit_that_follows() {
    let memory = Memory::new();
    let store = memory.store(Retention::KEEP_ALL).expect("a thread");
    memory.set_failing(Some(WriteError::Full("the disk is full".to_owned())));
    let (budget, undurable) = (OutcomeBudget::new(2 << 20), Undurable::default());
    let mut recorded = 0;
    while let Some(permit) = reserve_now(&budget, size(16 * KIB)) {
        store.record(change());
        undurable.hold(permit, &store);
        recorded += 1;
        assert!(recorded < 100, "nothing holds outcomes back");
    }
    wait_until(|| store.is_failing().is_some()).await;
    assert!(reserve_now(&budget, size(16 * KIB)).is_none(), "a commit that failed has stored nothing");
    assert_eq!(store.backlog(), recorded);
    memory.set_failing(None);
    wait_until(|| *store.durable().borrow() == recorded).await;
    undurable.release(recorded);
    assert!(reserve_now(&budget, size(1 << 30)).is_some(), "all room is free");
}

#[tokio::test]
async fn an_outcome_that_is_durable_already_holds_nothing() {
    let store = Memory::new().store(Retention::KEEP_ALL).expect("a thread");
    let (budget, undurable) = (OutcomeBudget::new(KIB), Undurable::default());
    let permit = reserve_now(&budget, size(16 * KIB)).expect("there is room");
    store.record(change());
    wait_until(|| *store.durable().borrow() == 1).await;
    undurable.hold(permit, &store);
    assert!(reserve_now(&budget, size(16 * KIB)).is_some());
}

#[tokio::test]
async fn the_end_of_a_term_lets_all_outcomes_go() {
    let memory = Memory::new();
    let store = memory.store(Retention::KEEP_ALL).expect("a thread");
    memory.set_failing(Some(WriteError::Full("the disk is full".to_owned())));
    let (budget, undurable) = (OutcomeBudget::new(KIB), Undurable::default());
    for is_over in [false, true] {
        let permit = reserve_now(&budget, size(16 * KIB)).expect("there is room");
        store.record(change());
        undurable.hold(permit, &store);
        assert_eq!(reserve_now(&budget, size(16 * KIB)).is_some(), is_over);
        undurable.end();
    }
    memory.set_failing(None);
}
