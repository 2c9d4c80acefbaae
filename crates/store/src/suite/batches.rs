use std::sync::Arc;

use crate::backend::{Applied, BatchError};
use crate::{Answer, Batch, ChangeKind, Entry, Epoch, Parts, Store, Submission, SubmitError, WriteError};

use super::Harness;
use super::helpers::*;

fn submission(number: u128) -> Entry {
    Entry::Submission(Arc::new(range_job(number, 10)))
}

fn batch(parts: &Parts, id: u64, entries: Vec<Entry>) -> Batch {
    Batch { id, epoch: parts.epoch, entries }
}

async fn jobs(parts: &Parts) -> usize {
    parts.reads.open_jobs().await.expect("readable").len()
}

pub fn each_opening_is_an_epoch_above_all_before(harness: &dyn Harness) {
    let mut before = Epoch(0);
    for _ in 0..4 {
        let store = harness.open();
        assert!(store.epoch() > before, "{} after {before}", store.epoch());
        before = store.epoch();
        store.close().expect("all is committed");
    }
}

pub async fn a_batch_of_an_epoch_that_has_passed_is_refused_whole(harness: &dyn Harness) {
    let mut parts = harness.parts();
    parts.backend.apply(&batch(&parts, 1, vec![submission(1)])).expect("room");
    let old = parts.epoch;
    drop(parts);
    let mut parts = harness.parts();
    for id in 1..=2 {
        let late = Batch { id, epoch: old, entries: vec![submission(2)] };
        assert_eq!(parts.backend.apply(&late), Err(BatchError::Superseded { current: parts.epoch }));
    }
    assert_eq!(jobs(&parts).await, 1);
    parts.backend.apply(&batch(&parts, 1, vec![submission(3)])).expect("room");
    assert_eq!(jobs(&parts).await, 2);
}

pub async fn the_same_batch_again_is_applied_once_and_has_the_same_answers(harness: &dyn Harness) {
    let mut parts = harness.parts();
    let first =
        batch(&parts, 1, vec![submission(1), submission(1), Entry::Change(change(id(1), at(2), ChangeKind::Progress))]);
    let applied = parts.backend.apply(&first).expect("room");
    let answers =
        vec![Answer::Submitted(Submission::New), Answer::Submitted(Submission::Existing(id(1))), Answer::Done];
    assert_eq!(applied, Applied { answers, latest_event: 2 });
    for _ in 0..3 {
        assert_eq!(parts.backend.apply(&first), Ok(applied.clone()));
    }
    let second = batch(&parts, 2, vec![Entry::Change(completed(id(1), 0..3, 7))]);
    let applied = parts.backend.apply(&second).expect("room");
    assert_eq!(parts.backend.apply(&second), Ok(applied));
    let found = parts.reads.unfinished(vec![id(1)]).await.expect("readable");
    assert_eq!((found[0].record.value, found[0].record.attempts), (7, 1));
    assert_eq!(parts.reads.events(0, None, 100).await.expect("readable").len(), 2);
}

pub async fn a_batch_that_skips_one_is_refused(harness: &dyn Harness) {
    let mut parts = harness.parts();
    for id in [2, 3] {
        let refused = parts.backend.apply(&batch(&parts, id, vec![submission(1)]));
        assert!(matches!(refused, Err(BatchError::Deterministic { .. })), "{refused:?}");
    }
    assert_eq!(jobs(&parts).await, 0);
}

pub async fn an_entry_that_is_refused_leaves_the_rest_of_its_batch(harness: &dyn Harness) {
    let mut parts = harness.parts();
    let mut wrong = tasks_job(2, numbers(3));
    wrong.tasks = 4;
    let entries = vec![
        submission(1),
        Entry::Submission(Arc::new(wrong)),
        Entry::Change(completed(id(1), 5..50, 1)),
        Entry::Nothing,
        Entry::Change(completed(id(1), 5..6, 1)),
    ];
    let applied = parts.backend.apply(&batch(&parts, 1, entries)).expect("room");
    let is_refused: Vec<_> = applied.answers.iter().map(|answer| matches!(answer, Answer::Refused(_))).collect();
    assert_eq!(is_refused, [false, true, true, false, false], "{:?}", applied.answers);
    let found = parts.reads.unfinished(vec![id(1)]).await.expect("readable");
    assert!(found.len() == 1 && found[0].done == [std::ops::Range { start: 5, end: 6 }], "{found:?}");
}

pub async fn an_owner_that_is_superseded_writes_nothing_and_says_so(harness: &dyn Harness) {
    let mut parts = harness.parts();
    // As an owner finds itself when it wakes up.
    parts.epoch = Epoch(parts.epoch.0 - 1);
    let store = Store::start(parts, KEEP_ALL).expect("a thread");
    store.record(completed(id(1), 0..1, 1));
    let refused = store.submit(range_job(1, 10)).await;
    let is_superseded = |error: &WriteError| matches!(error, WriteError::Superseded { .. });
    assert!(matches!(&refused, Err(SubmitError::Write(error)) if is_superseded(error)), "{refused:?}");
    assert!(store.is_failing().is_some_and(|failing| failing.contains("taken the store over")));
    let refused = store.commit(completed(id(1), 0..1, 1)).await;
    assert!(refused.as_ref().is_err_and(is_superseded), "{refused:?}");
    assert!(store.flush().await.is_err());
    assert_eq!(*store.durable().borrow(), 0);
    assert!(store.close().is_err());
    assert!(harness.open().unfinished().await.expect("readable").is_empty());
}
