//! The writer in front of a store that fails.

use std::time::Duration;

use model::JobState;

use crate::memory::{Fault, Memory};
use crate::suite::helpers::*;
use crate::{ChangeKind, Entry, Store, Submission, SubmitError, WriteError};

fn open(memory: &Memory) -> Store {
    memory.store(KEEP_ALL).expect("a thread")
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn unavailable() -> WriteError {
    WriteError::Unavailable("no route".to_owned())
}

#[tokio::test]
async fn a_lost_answer_is_found_out_and_the_batch_counts_once() {
    for fault in [Fault::AnswerLost, Fault::BatchLost] {
        let memory = Memory::new();
        let store = open(&memory);
        memory.inject(fault.clone());
        memory.inject(fault.clone());
        assert_eq!(store.submit(range_job(1, 10)).await, Ok(Submission::New), "{fault:?}");
        memory.inject(fault.clone());
        store.record(completed(id(1), 0..4, 7));
        store.flush().await.expect("found out");
        let found = record_of(&store, id(1)).await;
        assert_eq!((found.value, found.attempts), (7, 1), "{fault:?}");
        assert_eq!(store.is_failing(), None);
    }
}

#[tokio::test]
async fn while_a_batch_is_in_doubt_what_comes_behind_it_is_refused_at_once() {
    let memory = Memory::new();
    let store = std::sync::Arc::new(open(&memory));
    store.submit(range_job(1, 10)).await.expect("room");
    memory.set_losing(true);
    store.record(completed(id(1), 0..4, 7));
    wait_until("it is in doubt", || store.is_failing().is_some()).await;
    let refused = store.submit(range_job(2, 10)).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Unavailable(_)))), "{refused:?}");
    memory.set_losing(false);
    wait_until("it is found out", || store.is_failing().is_none() && store.backlog() == 0).await;
    assert_eq!(record_of(&store, id(1)).await.value, 7);
    assert!(matches!(store.job(id(2)).await, Ok(None)));
}

#[tokio::test]
async fn while_nothing_can_be_written_callers_get_the_error_and_recorded_changes_wait_in_order() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(range_job(1, 10)).await.expect("room");
    memory.set_failing(Some(unavailable()));
    wait_until("it is noticed without a write", || store.is_failing().is_some()).await;
    let last = (0..5).map(|task| store.record(completed(id(1), task..task + 1, 1))).last().expect("five of them");
    assert_eq!(store.submit(range_job(2, 10)).await, Err(SubmitError::Write(unavailable())));
    assert_eq!(store.commit(change(id(1), at(1), ChangeKind::Paused)).await, Err(unavailable()));
    assert_eq!(store.flush().await, Err(unavailable()));
    store.record(failed_tasks(id(1), 5..10, 1));
    store.record(ended(id(1), JobState::Failed, None));
    assert_eq!((store.backlog(), *store.durable().borrow()), (7, 0));
    memory.set_failing(None);
    wait_until("it goes on", || store.backlog() == 0).await;
    assert_eq!((store.is_failing(), *store.durable().borrow()), (None, last + 2));
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.state, found.tasks_done, found.tasks_failed), (JobState::Failed, 5, 5));
    assert!(matches!(store.job(id(2)).await, Ok(None)));
}

/// Changes that come together in one batch.
async fn together(memory: &Memory, store: &Store, faults: &[Fault]) -> u64 {
    memory.hold_commits(true);
    store.record(change(id(9), at(1), ChangeKind::Progress));
    wait_until("the writer is held", || memory.held() == 1).await;
    memory.inject(Fault::None);
    faults.iter().for_each(|fault| memory.inject(fault.clone()));
    let numbers = (0..8).map(|task| store.record(completed(id(1), task..task + 1, 1 << task)));
    let last = numbers.last().expect("eight of them");
    memory.hold_commits(false);
    wait_until("all is written", || store.backlog() == 0).await;
    last
}

#[tokio::test]
async fn where_there_is_no_room_for_all_changes_the_first_are_written_alone_and_the_others_in_order_after_them() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(tasks_job(1, numbers(100))).await.expect("room");
    memory.bound_batches(Some(10));
    memory.hold_commits(true);
    store.record(change(id(9), at(1), ChangeKind::Progress));
    wait_until("the writer is held", || memory.held() == 1).await;
    // A task that is done twice is refused, and so is what follows the end.
    for task in 0..100 {
        store.record(answered(id(1), task..task + 1, vec![raw("1")]));
    }
    let last = store.record(ended(id(1), JobState::Succeeded, Some("1")));
    memory.hold_commits(false);
    wait_until("all is written", || store.backlog() == 0).await;
    assert_eq!((store.is_failing(), *store.durable().borrow()), (None, last));
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.state, found.tasks_done, found.attempts), (JobState::Succeeded, 100, 100));
}

#[tokio::test]
async fn an_entry_that_cannot_be_written_is_refused_and_the_rest_of_its_batch_stands() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(range_job(1, 10)).await.expect("room");
    let last = together(&memory, &store, &[Fault::Deterministic(Some(7)), Fault::Deterministic(Some(2))]).await;
    assert_eq!(record_of(&store, id(1)).await.value, 0b0111_1011);
    assert_eq!(*store.durable().borrow(), last);
}

#[tokio::test]
async fn an_entry_that_cannot_be_written_is_found_where_the_store_does_not_name_it() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(range_job(1, 10)).await.expect("room");
    // Eight, four, two and one of them; the refused one is written as nothing.
    let last = together(&memory, &store, &vec![Fault::Deterministic(None); 4]).await;
    assert_eq!(record_of(&store, id(1)).await.value, 0b1111_1110);
    assert_eq!(*store.durable().borrow(), last);
}

#[tokio::test]
async fn a_store_that_is_reopened_by_another_owner_stops_this_one() {
    let memory = Memory::new();
    let (old, new) = (open(&memory), open(&memory));
    assert!(new.epoch() > old.epoch());
    let refused = old.submit(range_job(1, 10)).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Superseded { .. }))), "{refused:?}");
    assert_eq!(new.submit(range_job(1, 10)).await, Ok(Submission::New));
}

#[tokio::test]
async fn closing_a_store_that_fails_says_that_changes_are_lost() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(range_job(1, 10)).await.expect("room");
    memory.set_failing(Some(unavailable()));
    store.record(completed(id(1), 0..1, 1));
    let closed = tokio::task::spawn_blocking(|| store.close()).await.expect("no panic");
    assert!(closed.is_err());
    memory.set_failing(None);
    assert_eq!(record_of(&open(&memory), id(1)).await.tasks_done, 0);
}

#[tokio::test]
async fn nothing_stands_for_an_entry_without_effect() {
    let memory = Memory::new();
    let mut parts = memory.open();
    let batch = crate::Batch { id: 1, epoch: parts.epoch, entries: vec![Entry::Nothing] };
    assert_eq!(parts.backend.apply(&batch).map(|applied| applied.answers), Ok(vec![crate::Answer::Done]));
}

#[tokio::test]
async fn an_owner_that_loses_the_store_while_a_batch_is_in_doubt_does_not_guess() {
    let memory = Memory::new();
    let store = std::sync::Arc::new(open(&memory));
    memory.inject(Fault::AnswerLost);
    memory.set_losing(true);
    let submission = tokio::spawn({
        let store = store.clone();
        async move { store.submit(range_job(1, 10)).await }
    });
    wait_until("it is in doubt", || store.is_failing().is_some()).await;
    let new = open(&memory);
    memory.set_losing(false);
    let answer = submission.await.expect("no panic");
    assert_eq!(answer, Err(SubmitError::Write(WriteError::InDoubt)));
    assert_eq!(new.submit(range_job(1, 10)).await, Ok(Submission::Existing(id(1))));
}

#[tokio::test]
async fn a_job_whose_changes_cannot_be_written_is_set_aside_and_the_rest_of_its_batch_stands() {
    let memory = Memory::new();
    let store = open(&memory);
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    memory.damage([id(2)]);
    memory.hold_commits(true);
    store.record(change(id(9), at(1), ChangeKind::Progress));
    wait_until("the writer is held", || memory.held() == 1).await;
    let mut last = 0;
    for task in 0..5 {
        for number in 1..4 {
            last = store.record(completed(id(number), task..task + 1, 1 << task));
        }
    }
    memory.hold_commits(false);
    store.flush().await.expect("all others are written");
    assert_eq!((store.is_failing(), *store.durable().borrow()), (None, last));
    assert!(store.unwritable().borrow().keys().eq([&id(2)]));
    for (number, value) in [(1, 0b11111), (2, 0), (3, 0b11111)] {
        assert_eq!(record_of(&store, id(number)).await.value, value);
    }
    // Later changes of the job are left out without another try, which would write them now.
    memory.damage([]);
    store.record(completed(id(2), 5..6, 1));
    let refused = store.commit(change(id(2), at(2), ChangeKind::Paused)).await;
    assert!(matches!(refused, Err(WriteError::Corrupt(_))), "{refused:?}");
    assert_eq!(record_of(&store, id(2)).await.tasks_done, 0);
    // The next owner tries anew.
    drop(store);
    let store = open(&memory);
    store.commit(completed(id(2), 0..1, 1)).await.expect("repaired");
}

#[tokio::test]
async fn where_no_other_job_can_be_written_changes_wait_until_one_can() {
    let memory = Memory::new();
    let store = open(&memory);
    for number in 1..3 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    memory.damage([id(1), id(2)]);
    let numbers = [1, 2].map(|number| store.record(completed(id(number), 0..1, 1)));
    wait_until("it is told of", || store.is_failing().is_some_and(|why| why.contains("damaged"))).await;
    assert!(matches!(store.flush().await, Err(WriteError::Corrupt(_))));
    let refused = store.commit(change(id(1), at(1), ChangeKind::Paused)).await;
    assert!(matches!(refused, Err(WriteError::Corrupt(_))), "{refused:?}");
    assert!(store.unwritable().borrow().is_empty());
    assert_eq!((store.backlog(), *store.durable().borrow()), (2, 0));
    // Repaired in part: the other one is what is damaged.
    memory.damage([id(2)]);
    wait_until("it goes on", || store.is_failing().is_none() && store.backlog() == 0).await;
    assert!(store.unwritable().borrow().keys().eq([&id(2)]));
    assert_eq!(*store.durable().borrow(), numbers[1]);
    assert_eq!(record_of(&store, id(1)).await.tasks_done, 1);
}

#[tokio::test]
async fn a_new_job_shows_that_the_damage_is_that_of_another_one() {
    let memory = Memory::new();
    let store = open(&memory);
    store.submit(range_job(1, 10)).await.expect("room");
    memory.damage([id(1)]);
    store.record(completed(id(1), 0..1, 1));
    wait_until("it is told of", || store.is_failing().is_some()).await;
    wait_until_submitted(&store).await;
    wait_until("it goes on", || store.is_failing().is_none() && store.backlog() == 0).await;
    assert!(store.unwritable().borrow().keys().eq([&id(1)]));
}

/// A submission that comes while the writer pauses after an error gets it, too.
async fn wait_until_submitted(store: &Store) {
    let since = std::time::Instant::now();
    while store.submit(range_job(2, 10)).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "it is never accepted");
    }
}
