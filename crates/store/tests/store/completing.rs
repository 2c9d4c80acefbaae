use model::{EventKind, JobState};
use store::{Change, WriteError};

use crate::helpers::*;

#[tokio::test]
async fn completions_in_any_order_become_one_interval_and_one_sum() {
    let (directory, store) = new_store();
    store.submit(range_job(1, 50_000_000)).await.expect("room");
    let job = id(1);
    for first in (0..1000).step_by(2).chain((1..1000).step_by(2)) {
        store.record(completed(job, first * 10..first * 10 + 10, u128::MAX / 1000));
    }
    store.record(completed(job, 40_000_000..50_000_000, 1));
    store.flush().await.expect("room");
    store.close().expect("all is committed");

    let found = only_unfinished(&open(directory.path()));
    assert_eq!(found.done, [0..10_000, 40_000_000..50_000_000]);
    assert_eq!((found.record.tasks_done, found.record.value), (10_010_000, u128::MAX / 1000 * 1000 + 1));
}

#[tokio::test]
async fn a_completion_that_overlaps_another_is_refused_whole_and_the_rest_of_its_group_stands() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 100)).await.expect("room");
    let job = id(1);
    store.record(completed(job, 0..10, 1));
    store.record(completed(job, 5..15, 100));
    store.record(completed(job, 20..30, 2));
    store.record(completed(job, 90..101, 100));
    store.record(completed(job, 40..40, 100));
    store.record(completed(job, 50..60, u128::MAX));
    let refused = store.commit(completed(job, 29..31, 100)).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");

    let found = only_unfinished(&store);
    assert_eq!((found.done, found.record.value), (vec![0..10, 20..30], 3));
    assert_eq!((store.is_failing(), store.backlog()), (None, 0));
}

#[tokio::test]
async fn failures_are_kept_until_their_tasks_are_done_or_given_up() {
    let (directory, store) = new_store();
    store.submit(range_job(1, 100)).await.expect("room");
    let job = id(1);
    store.record(failed_attempt(job, 0..40, 1));
    store.record(failed_attempt(job, 0..20, 2));
    store.record(failed_attempt(job, 10..15, 3));
    store.record(completed(job, 30..35, 7));
    store.record(failed_tasks(job, 10..15, 4));
    store.record(completed(job, 9..10, 7));
    store.commit(failed_tasks(job, 50..60, 4)).await.expect("room");
    store.close().expect("all is committed");

    let found = only_unfinished(&open(directory.path()));
    assert_eq!(found.done, [9..15, 30..35, 50..60]);
    assert_eq!(found.failed, [10..15, 50..60]);
    assert_eq!(found.retries, [(0..9, 2), (15..20, 2), (20..30, 1), (35..40, 1)]);
    assert_eq!((found.record.tasks_done, found.record.tasks_failed), (6, 15));
}

#[tokio::test]
async fn a_job_goes_through_its_life_with_an_event_for_each_step() {
    let (_directory, store) = new_store();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    let steps = [
        (Change::Started { job, at: at(10) }, JobState::Running),
        (Change::Started { job, at: at(11) }, JobState::Running),
        (Change::Paused { job, at: at(12) }, JobState::Paused),
        (Change::Paused { job, at: at(12) }, JobState::Paused),
        (completed(job, 0..4, 1), JobState::Paused),
        (Change::Progress { job, at: at(13) }, JobState::Paused),
        (Change::Resumed { job, at: at(14) }, JobState::Running),
        (Change::Resumed { job, at: at(14) }, JobState::Running),
        (failed_tasks(job, 4..10, 4), JobState::Running),
        (
            Change::Ended { job, state: JobState::Failed, result: None, error: Some("6 failed".into()), at: at(15) },
            JobState::Failed,
        ),
        (completed(job, 4..5, 1), JobState::Failed),
        (Change::Paused { job, at: at(16) }, JobState::Failed),
        (Change::Canceled { job, at: at(16) }, JobState::Failed),
        (Change::Retried { job, at: at(17) }, JobState::Running),
        (completed(job, 4..10, 1), JobState::Running),
        (ended(job, JobState::Succeeded, Some("5")), JobState::Succeeded),
        (Change::Retried { job, at: at(18) }, JobState::Succeeded),
    ];
    for (step, state) in steps {
        store.commit(step.clone()).await.expect("room");
        let record = store.job(job).await.expect("readable").expect("there");
        assert_eq!(record.state, state, "{step:?}");
        assert_eq!(record.finished_at.is_some(), state.is_over(), "{step:?}");
    }
    let record = store.job(job).await.expect("readable").expect("there");
    assert_eq!((record.started_at, record.finished_at, record.error), (Some(at(10)), Some(at(9)), None));
    assert_eq!((record.tasks_done, record.tasks_failed, record.value), (10, 0, 2));
    let events = store.events(0, Some(job), 100).await.expect("readable");
    let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.tasks_done.unwrap_or(99))).collect();
    let expected = [
        (EventKind::Submitted, 0),
        (EventKind::Started, 0),
        (EventKind::Paused, 0),
        (EventKind::Progress, 4),
        (EventKind::Resumed, 4),
        (EventKind::TaskFailed, 4),
        (EventKind::Failed, 4),
        (EventKind::Retried, 4),
        (EventKind::Succeeded, 10),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn changes_after_a_cancel_and_of_unknown_jobs_have_no_effect() {
    let (_directory, store) = new_store();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(Change::Canceled { job, at: at(1) });
    store.record(completed(job, 4..8, 1));
    store.record(ended(job, JobState::Failed, None));
    store.commit(completed(id(2), 0..4, 1)).await.expect("no error");
    let record = store.job(job).await.expect("readable").expect("there");
    assert_eq!((record.state, record.tasks_done, record.value), (JobState::Canceled, 4, 1));
    assert!(store.unfinished().expect("readable").is_empty());
    assert_eq!(store.is_failing(), None);
}

#[tokio::test]
async fn a_canceled_job_that_is_retried_goes_on_where_it_was() {
    let (directory, store) = new_store();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(failed_tasks(job, 6..8, 1));
    store.record(failed_attempt(job, 8..9, 1));
    store.commit(Change::Canceled { job, at: at(1) }).await.expect("room");
    store.commit(Change::Retried { job, at: at(2) }).await.expect("room");
    store.close().expect("all is committed");
    let found = only_unfinished(&open(directory.path()));
    assert!(found.done.into_iter().eq(std::iter::once(0..4)));
    assert_eq!((found.record.state, found.failed), (JobState::Queued, vec![]));
    assert_eq!((found.retries, found.record.value, found.record.finished_at), (vec![], 1, None));
}

#[tokio::test]
async fn a_job_with_open_tasks_cannot_succeed() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(id(1), 0..9, 1));
    for state in [JobState::Succeeded, JobState::Running] {
        let refused = store.commit(ended(id(1), state, Some("1"))).await;
        assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    }
    assert_eq!(only_unfinished(&store).record.tasks_done, 9);
}

#[tokio::test]
async fn recorded_changes_are_committed_without_anybody_waiting_for_them() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 10)).await.expect("room");
    let mut latest = store.latest_event();
    let before = *latest.borrow_and_update();
    store.record(Change::Started { job: id(1), at: at(1) });
    let changed = tokio::time::timeout(std::time::Duration::from_secs(10), latest.changed()).await;
    changed.expect("soon").expect("the store is open");
    assert_eq!(*latest.borrow(), before + 1);
    assert_eq!(store.job(id(1)).await.expect("readable").map(|job| job.state), Some(JobState::Running));
}
