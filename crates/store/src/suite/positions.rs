use std::time::Duration;

use jiff::Timestamp;
use model::{EventKind, EventSource, JobId};

use super::Harness;
use super::helpers::*;
use crate::{Advance, Advanced, ChangeKind, NewJob, OUTBOX, OUTBOX_LOST, Position, Retention, Store, Submission};
use crate::{SubmitError, WriteError};

fn source(offset: u64) -> EventSource {
    EventSource { topic: "a topic".to_owned(), partition: 3, offset }
}

/// The record before `to` submits the job.
fn submits(from: u64, to: u64, job: NewJob) -> Advance {
    let position = Position { next: to, mark: u64::MAX - to };
    Advance { stream: "a topic/3".to_owned(), from, to: position, job: Some((Box::new(job), source(to - 1))) }
}

fn published(from: u64, to: u64) -> Advance {
    Advance { stream: OUTBOX.to_owned(), from, to: Position { next: to, mark: 0 }, job: None }
}

async fn position(store: &Store, stream: &str) -> Option<Position> {
    let all = store.positions().await.expect("readable");
    all.into_iter().find(|(name, _)| name == stream).map(|(_, position)| position)
}

async fn submitted_by(store: &Store, job: JobId) -> Vec<(EventKind, Option<EventSource>)> {
    let events = store.events(0, Some(job), 10).await.expect("readable");
    events.into_iter().map(|event| (event.kind, event.source)).collect()
}

pub async fn a_position_moves_together_with_the_job_of_its_record(harness: &dyn Harness) {
    let store = harness.open();
    assert!(store.positions().await.expect("readable").is_empty());
    let advanced = store.advance(submits(0, 8, range_job(1, 10))).await;
    assert_eq!(advanced, Ok(Advanced::Submitted(Submission::New)));
    let with_payloads = tasks_job(2, numbers(3));
    assert_eq!(store.advance(submits(8, 9, with_payloads)).await, Ok(Advanced::Submitted(Submission::New)));
    assert_eq!(submitted_by(&store, id(1)).await, [(EventKind::Submitted, Some(source(7)))]);
    store.commit(change(id(1), at(1), ChangeKind::Paused)).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    let expected = Position { next: 9, mark: u64::MAX - 9 };
    assert_eq!(store.positions().await, Ok(vec![("a topic/3".to_owned(), expected)]));
    assert_eq!(submitted_by(&store, id(1)).await, [(EventKind::Submitted, Some(source(7))), (EventKind::Paused, None)]);
    assert_eq!(store.unfinished().await.expect("readable").len(), 2);
}

pub async fn a_move_that_was_overtaken_writes_nothing_and_learns_where_the_position_is(harness: &dyn Harness) {
    let store = harness.open();
    store.advance(submits(0, 5, range_job(1, 10))).await.expect("room");
    let there = Position { next: 5, mark: u64::MAX - 5 };
    for from in [0, 4, 6] {
        let late = store.advance(submits(from, 7, range_job(2, 10))).await;
        assert_eq!(late, Ok(Advanced::Elsewhere(there)), "from {from}");
    }
    assert_eq!(store.job(id(2)).await.expect("readable").map(|job| job.id), None);
    assert_eq!(*store.latest_event().borrow(), 1);
    // Set back, as for a topic made anew.
    let back = Advance { to: Position { next: 2, mark: 0 }, job: None, ..submits(5, 3, range_job(2, 10)) };
    assert_eq!(store.advance(back).await, Ok(Advanced::Moved));
    assert_eq!(position(&store, "a topic/3").await, Some(Position { next: 2, mark: 0 }));
}

pub async fn a_record_whose_job_is_not_accepted_moves_no_position(harness: &dyn Harness) {
    let store = harness.open();
    store.advance(submits(0, 1, range_job(1, 10))).await.expect("room");
    let another = NewJob { fingerprint: [9; 32], ..range_job(1, 20) };
    assert_eq!(store.advance(submits(1, 2, another)).await, Err(SubmitError::Mismatch { existing: id(1) }));
    let wrong = NewJob { payloads: numbers(2).into(), ..range_job(2, 3) };
    let refused = store.advance(submits(1, 2, wrong)).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Refused(_)))), "{refused:?}");
    assert_eq!(position(&store, "a topic/3").await.map(|position| position.next), Some(1));
    let again = store.advance(submits(1, 2, range_job(1, 10))).await;
    assert_eq!(again, Ok(Advanced::Submitted(Submission::Existing(id(1)))));
    assert_eq!(position(&store, "a topic/3").await.map(|position| position.next), Some(2));
    assert_eq!(submitted_by(&store, id(1)).await.len(), 1);
}

async fn end(store: &Store, number: u128, at: Timestamp) {
    store.submit(range_job(number, 10)).await.expect("room");
    store.commit(change(id(number), at, ChangeKind::Canceled)).await.expect("room");
}

pub async fn old_jobs_are_kept_until_their_events_are_published(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::ZERO, max_bytes: u64::MAX });
    end(&store, 1, at(0)).await;
    end(&store, 2, at(0)).await;
    store.advance(published(0, 4)).await.expect("room");
    store.keep_events_from(4);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert!(store.job(id(1)).await.expect("readable").is_none());
    assert!(store.events(0, None, 10).await.expect("readable").iter().map(|event| event.seq).eq(3..=4));
    store.advance(published(4, 5)).await.expect("room");
    store.keep_events_from(5);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(position(&store, OUTBOX_LOST).await, None);
}

pub async fn events_that_are_forgotten_before_they_are_published_are_counted(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::MAX, max_bytes: 0 });
    // Nothing is counted before there is an outbox.
    end(&store, 1, at(0)).await;
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    end(&store, 2, at(0)).await;
    end(&store, 3, at(0)).await;
    store.advance(published(0, 4)).await.expect("room");
    store.keep_events_from(4);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(2));
    assert_eq!(position(&store, OUTBOX_LOST).await.map(|lost| lost.next), Some(3));
    end(&store, 4, at(0)).await;
    store.close().expect("all is committed");
    let store = harness.open_with(Retention { max_age: Duration::MAX, max_bytes: 0 });
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(position(&store, OUTBOX_LOST).await.map(|lost| lost.next), Some(5));
}
