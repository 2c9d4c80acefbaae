use model::{AttemptId, BootId, EventKind, JobState};
use uuid::Uuid;

use super::Harness;
use super::helpers::*;
use crate::{ChangeKind, SetAsideWorker, Verified, WriteError};

pub async fn completions_in_any_order_become_one_interval_and_one_sum(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 50_000_000)).await.expect("room");
    let job = id(1);
    for first in (0..1000).step_by(2).chain((1..1000).step_by(2)) {
        store.record(completed(job, first * 10..first * 10 + 10, u128::MAX / 1000));
    }
    store.record(completed(job, 40_000_000..50_000_000, 1));
    store.flush().await.expect("room");
    store.close().expect("all is committed");

    let found = only_unfinished(&harness.open()).await;
    assert_eq!(found.done, [0..10_000, 40_000_000..50_000_000]);
    assert_eq!((found.record.tasks_done, found.record.value), (10_010_000, u128::MAX / 1000 * 1000 + 1));
}

pub async fn values_are_added_modulo_2_to_the_128_and_those_to_compare_with_stand_apart(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 100)).await.expect("room");
    let job = id(1);
    let checked = |tasks, value| change(job, at(3), ChangeKind::Checked { tasks, value, busy: BUSY });
    store.record(completed(job, 0..10, u128::MAX - 1));
    store.record(completed(job, 10..20, 12));
    store.record(checked(50..60, u128::MAX));
    store.record(checked(55..65, 100));
    store.record(checked(60..70, 11));
    store.commit(completed(job, 60..61, 100)).await.expect_err("those tasks are done");
    store.close().expect("all is committed");

    let found = only_unfinished(&harness.open()).await;
    assert_eq!((found.record.value, found.record.check), (10, 10));
    assert_eq!((found.done, found.record.tasks_done), (vec![0..20, 50..70], 40));
}

pub async fn a_completion_that_overlaps_another_is_refused_whole_and_the_rest_of_its_group_stands(
    harness: &dyn Harness,
) {
    let store = harness.open();
    store.submit(range_job(1, 100)).await.expect("room");
    let job = id(1);
    store.record(completed(job, 0..10, 1));
    store.record(completed(job, 5..15, 100));
    store.record(completed(job, 20..30, 2));
    store.record(completed(job, 90..101, 100));
    store.record(completed(job, 40..40, 100));
    let refused = store.commit(completed(job, 29..31, 100)).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");

    let found = only_unfinished(&store).await;
    assert_eq!((found.done, found.record.value), (vec![0..10, 20..30], 3));
    assert_eq!((store.is_failing(), store.backlog()), (None, 0));
}

pub async fn failures_are_kept_until_their_tasks_are_done_or_given_up(harness: &dyn Harness) {
    let store = harness.open();
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

    let found = only_unfinished(&harness.open()).await;
    assert_eq!(found.done, [9..15, 30..35, 50..60]);
    assert_eq!(found.failed, [10..15, 50..60]);
    assert_eq!(found.retries, [(0..9, 2), (15..20, 2), (20..30, 1), (35..40, 1)]);
    assert_eq!((found.record.tasks_done, found.record.tasks_failed), (6, 15));
}

pub async fn a_job_goes_through_its_life_with_an_event_for_each_step(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    let steps = [
        (change(job, at(10), ChangeKind::Started), JobState::Running),
        (change(job, at(11), ChangeKind::Started), JobState::Running),
        (change(job, at(12), ChangeKind::Paused), JobState::Paused),
        (change(job, at(12), ChangeKind::Paused), JobState::Paused),
        (completed(job, 0..4, 1), JobState::Paused),
        (change(job, at(13), ChangeKind::Progress), JobState::Paused),
        (change(job, at(14), ChangeKind::Resumed), JobState::Running),
        (change(job, at(14), ChangeKind::Resumed), JobState::Running),
        (failed_tasks(job, 4..10, 4), JobState::Running),
        (
            change(
                job,
                at(15),
                ChangeKind::Ended { state: JobState::Failed, result: None, error: Some("6 failed".into()) },
            ),
            JobState::Failed,
        ),
        (completed(job, 4..5, 1), JobState::Failed),
        (change(job, at(16), ChangeKind::Paused), JobState::Failed),
        (change(job, at(16), ChangeKind::Canceled), JobState::Failed),
        (change(job, at(17), ChangeKind::Retried), JobState::Running),
        (completed(job, 4..10, 1), JobState::Running),
        (ended(job, JobState::Succeeded, Some("5")), JobState::Succeeded),
        (change(job, at(18), ChangeKind::Retried), JobState::Succeeded),
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

pub async fn changes_after_a_cancel_and_of_unknown_jobs_have_no_effect(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(change(job, at(1), ChangeKind::Canceled));
    store.record(completed(job, 4..8, 1));
    store.record(ended(job, JobState::Failed, None));
    store.commit(completed(id(2), 0..4, 1)).await.expect("no error");
    let record = store.job(job).await.expect("readable").expect("there");
    assert_eq!((record.state, record.tasks_done, record.value), (JobState::Canceled, 4, 1));
    assert!(store.unfinished().await.expect("readable").is_empty());
    assert_eq!(store.is_failing(), None);
}

pub async fn a_canceled_job_that_is_retried_goes_on_where_it_was(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(failed_tasks(job, 6..8, 1));
    store.record(failed_attempt(job, 8..9, 1));
    store.commit(change(job, at(1), ChangeKind::Canceled)).await.expect("room");
    store.commit(change(job, at(2), ChangeKind::Retried)).await.expect("room");
    store.close().expect("all is committed");
    let found = only_unfinished(&harness.open()).await;
    assert!(found.done.into_iter().eq(std::iter::once(0..4)));
    assert_eq!((found.record.state, found.failed), (JobState::Queued, vec![]));
    assert_eq!((found.retries, found.record.value, found.record.finished_at), (vec![], 1, None));
}

pub async fn a_job_with_open_tasks_cannot_succeed(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(id(1), 0..9, 1));
    for state in [JobState::Succeeded, JobState::Running] {
        let refused = store.commit(ended(id(1), state, Some("1"))).await;
        assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    }
    assert_eq!(only_unfinished(&store).await.record.tasks_done, 9);
}

pub async fn recorded_changes_are_committed_without_anybody_waiting_for_them(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    let mut latest = store.latest_event();
    let before = *latest.borrow_and_update();
    store.record(change(id(1), at(1), ChangeKind::Started));
    let changed = tokio::time::timeout(std::time::Duration::from_secs(60), latest.changed()).await;
    changed.expect("soon").expect("the store is open");
    assert_eq!(*latest.borrow(), before + 1);
    assert_eq!(store.job(id(1)).await.expect("readable").map(|job| job.state), Some(JobState::Running));
}

pub async fn the_numbers_of_recorded_changes_grow_and_become_durable(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    let mut durable = store.durable();
    assert_eq!(*durable.borrow(), 0);
    let numbers = [
        store.record(completed(job, 0..4, 1)),
        store.record(completed(job, 3..5, 1)),
        store.record(change(id(2), at(1), ChangeKind::Started)),
    ];
    assert_eq!(numbers, [1, 2, 3]);
    store.commit(completed(job, 5..6, 1)).await.expect("room");
    assert_eq!(store.record(completed(job, 6..7, 1)), 4);
    let reached = tokio::time::timeout(std::time::Duration::from_secs(60), durable.wait_for(|number| *number >= 4));
    assert_eq!(*reached.await.expect("soon").expect("the store is open"), 4);
    assert_eq!(record_of(&store, job).await.tasks_done, 6);
}

pub async fn attempts_and_the_last_retry_are_there_after_a_restart(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(failed_attempt(job, 4..10, 1));
    store.record(failed_tasks(job, 4..10, 2));
    store.record(completed(job, 0..1, 1));
    let found = record_of(&store, job).await;
    assert_eq!(found.timed_since(), found.submitted_at);
    store.record(change(job, at(70), ChangeKind::Retried));
    store.commit(completed(job, 4..10, 1)).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    let found = only_unfinished(&store).await.record;
    assert_eq!((found.attempts, found.retried_at, found.timed_since()), (4, Some(at(70)), at(70)));
    store.commit(ended(job, JobState::Succeeded, Some("1"))).await.expect("room");
    let found = record_of(&store, job).await;
    assert_eq!((found.attempts, found.retried_at), (4, Some(at(70))));
}

pub async fn the_verification_of_a_job_and_the_workers_that_it_set_aside_are_kept(harness: &dyn Harness) {
    let store = harness.open();
    let boot = Some(BootId(Uuid::from_u128(7)));
    let liar = |name: &str, boot, second| SetAsideWorker { id: name.parse().expect("a name"), boot, at: at(second) };
    let reopened = |worker: &SetAsideWorker| {
        let notice = format!("the worker {} was set aside", worker.id);
        let tasks = std::iter::once(0..4).collect();
        let kind = ChangeKind::Reopened { tasks, value: 4, check: 0, notice, worker: worker.clone() };
        change(id(1), worker.at, kind)
    };
    for number in 1..=3 {
        store.submit(range_job(number, 9)).await.expect("room");
    }
    let (first, again, puller) = (liar("first", boot, 4), liar("first", None, 6), liar("puller", None, 5));
    for (is_mismatch, worker) in [(true, &first), (false, &puller), (true, &again), (false, &first)] {
        store.record(compared(id(1), 0..4, 1 + usize::from(is_mismatch), is_mismatch));
        store.record(completed(id(1), 0..4, 4));
        store.commit(reopened(worker)).await.expect("room");
    }
    // Another job has shown the same of one of them, later.
    let later = liar("puller", None, 50);
    let kind = ChangeKind::Reopened {
        tasks: Vec::new(),
        value: 0,
        check: 0,
        notice: "set aside".to_owned(),
        worker: later.clone(),
    };
    store.commit(change(id(2), at(50), kind)).await.expect("room");
    let set_aside = vec![first, puller, again.clone()];
    let expected = Verified { compared: 4, mismatches: 2, recomputed_tasks: 16, set_aside, ..Verified::default() };
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.verified, found.attempts), (expected.clone(), 10), "four that count, and six compared ones");
    assert_eq!(record_of(&store, id(3)).await.verified, Verified::default());
    store.commit(change(id(1), at(60), ChangeKind::Canceled)).await.expect("room");
    store.close().expect("committed");
    let store = harness.open();
    assert_eq!(record_of(&store, id(1)).await.verified, expected);
    assert_eq!(store.unfinished_job(id(2)).await.expect("readable").expect("open").record.verified.set_aside.len(), 1);
    assert_eq!(store.set_aside_workers().await, Ok(vec![again, later]), "each as it was last");
    store.record(compared(id(2), 0..4, 1, false));
    store.flush().await.expect("room");
    assert_eq!(record_of(&store, id(2)).await.verified.compared, 1);
}

pub async fn the_work_that_a_job_has_done_is_kept_beyond_its_end_and_up_to_its_retry(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(job, 0..4, 1));
    store.record(change(job, at(4), ChangeKind::WorkDone { billionths: 700_000_000 }));
    store.commit(ended(job, JobState::Failed, None)).await.expect("room");
    store.record(change(job, at(10), ChangeKind::WorkDone { billionths: 1 }));
    store.flush().await.expect("room");
    assert_eq!(record_of(&store, job).await.verified.work_done, Some(700_000_000), "nothing follows the end");
    store.close().expect("all is committed");
    let store = harness.open();
    assert_eq!(record_of(&store, job).await.verified.work_done, Some(700_000_000));
    store.commit(change(job, at(11), ChangeKind::Retried)).await.expect("room");
    assert_eq!(record_of(&store, job).await.verified.work_done, None);
}

pub async fn attempts_that_reached_their_time_limit_are_kept_with_their_job(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(range_job(1, 10)).await.expect("room");
    let attempt = |number| AttemptId(Uuid::from_u128(number));
    let (worker, error) = ("worker-1".to_owned(), "it took too long".to_owned());
    let failed = |tasks, failures, number| {
        let (timed_out, worker, error) = (Some(attempt(number)), worker.clone(), error.clone());
        change(job, at(4), ChangeKind::AttemptFailed { tasks, failures, timed_out, worker, error })
    };
    store.record(failed(0..4, 1, 1));
    store.record(failed_attempt(job, 0..4, 2));
    store.record(failed(0..11, 1, 9));
    store.record(completed(job, 0..4, 1));
    let (timed_out, worker, error) = (Some(attempt(2)), worker.clone(), error.clone());
    let given_up = ChangeKind::TasksFailed { tasks: 4..5, failures: 1, timed_out, worker, error };
    store.commit(change(job, at(5), given_up)).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    assert_eq!(only_unfinished(&store).await.record.verified.timed_out, [attempt(1), attempt(2)], "one is refused");
    store.record(change(job, at(6), ChangeKind::Retried));
    store.commit(failed(5..6, 1, 3)).await.expect("room");
    let found = record_of(&store, job).await.verified.timed_out;
    assert_eq!(found, [attempt(1), attempt(2), attempt(3)]);
    store.record(change(job, at(7), ChangeKind::Canceled));
    store.record(change(job, at(8), ChangeKind::Retried));
    store.commit(completed(job, 4..10, 1)).await.expect("room");
    assert_eq!(record_of(&store, job).await.verified.timed_out, found, "an attempt may outlast a cancel");
    store.commit(ended(job, JobState::Succeeded, None)).await.expect("room");
    assert_eq!(record_of(&store, job).await.verified, Verified::default());
}
