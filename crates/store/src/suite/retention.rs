use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{JobState, Labels};

use super::Harness;
use super::helpers::*;
use crate::{ChangeKind, JobFilter, NewJob, Pruned, Retention, Store};

async fn end(store: &Store, number: u128, at: Timestamp) {
    let job = id(number);
    store.submit(tasks_job(number, numbers(5000))).await.expect("room");
    for task in 0..5000 {
        store.record(answered(job, task..task + 1, vec![raw("\"an answer of some length\"")]));
    }
    let result = store.compose_result(job).await.expect("room");
    store.commit(ended_with(job, JobState::Succeeded, result, at)).await.expect("room");
}

async fn left(store: &Store) -> Vec<u128> {
    let jobs = store.jobs(JobFilter::default(), None, 100).await.expect("readable");
    jobs.iter().map(|job| job.id.0.as_u128()).collect()
}

pub async fn jobs_that_ended_long_ago_go_with_all_that_was_theirs(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::from_secs(3600), max_bytes: u64::MAX });
    let now = Timestamp::now();
    store.submit(range_job(1, 10)).await.expect("room");
    end(&store, 2, at(0)).await;
    end(&store, 3, now).await;

    let pruned = store.prune().await.expect("room");
    assert_eq!(pruned.jobs, 1);
    assert!(pruned.bytes > 5000 * 100, "{pruned:?}");
    assert_eq!(left(&store).await, [3, 1]);
    assert_eq!(store.result(id(2)).await, Ok(None));
    assert!(store.events(0, Some(id(2)), 10).await.expect("readable").is_empty());
    assert!(store.events(0, None, 100).await.expect("readable").iter().all(|event| event.job != id(2)));
    assert!(store.outcomes(id(2), 0, 10).await.expect("readable").is_empty());
    assert_eq!(store.prune().await, Ok(Pruned::default()));
    assert_eq!(store.result(id(3)).await.map(|result| result.is_some()), Ok(true));
}

pub async fn of_more_than_may_be_kept_the_oldest_end_goes_first_and_what_is_not_over_stays(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::MAX, max_bytes: 2_000_000 });
    for (number, ended_at) in [(1, at(30)), (2, at(10)), (3, at(20)), (4, at(40))] {
        end(&store, number, ended_at).await;
    }
    store.submit(tasks_job(5, numbers(100_000))).await.expect("room");
    let before = store.jobs(JobFilter::default(), None, 100).await.expect("readable").len();
    let pruned = store.prune().await.expect("room");
    let left = left(&store).await;
    assert_eq!(before, left.len() + pruned.jobs as usize);
    assert_eq!(left, [5, 4, 1], "{pruned:?}");
}

pub async fn the_id_and_the_key_of_a_job_that_is_gone_are_free_again(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::ZERO, max_bytes: u64::MAX });
    let mut job = tasks_job(1, vec![raw("\"old\""); 2]);
    job.idempotency_key = Some("key".to_owned());
    store.submit(job.clone()).await.expect("room");
    store.record(completed(job.id, 0..1, 5));
    store.commit(change(job.id, at(1), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.payloads(job.id, 1..2).await.expect("there")[0].get(), "\"old\"");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert!(store.payloads(job.id, 1..2).await.is_err());
    store.commit(change(job.id, at(1), ChangeKind::Retried)).await.expect("no effect");
    job.payloads = vec![raw("\"new\""); 2].into();
    assert_eq!(store.submit(job.clone()).await, Ok(crate::Submission::New));
    let found = only_unfinished(&store).await;
    assert_eq!((found.done, found.record.value), (vec![], 0));
    assert_eq!(store.payloads(job.id, 1..2).await.expect("there")[0].get(), "\"new\"");
}

pub async fn tags_keys_and_names_count(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: Duration::ZERO, max_bytes: u64::MAX });
    let long = |number: u32| format!("{number:0200}");
    store.submit(range_job(1, 1)).await.expect("room");
    let mut named = range_job(2, 1);
    named.options.tags = (0..32).map(|number| (long(number), long(number))).collect::<Labels>();
    named.options.output = Some(long(1));
    named.idempotency_key = Some(long(2));
    store.submit(named).await.expect("room");
    let mut bytes = Vec::new();
    for number in 1..=2 {
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
        let pruned = store.prune().await.expect("room");
        assert_eq!(pruned.jobs, 1);
        bytes.push(pruned.bytes);
    }
    // The texts of a tag stand in the options, in the table and in two indexes.
    assert!(bytes[0] > 300 && bytes[1] > bytes[0] + 32 * 4 * 400, "{bytes:?}");
}

pub async fn a_clock_that_jumps_forgets_nothing_before_an_hour_has_passed(harness: &dyn Harness) {
    let retention = Retention { max_age: Duration::from_hours(24 * 30), max_bytes: u64::MAX };
    let store = harness.open_with(retention);
    let (start, now) = (Instant::now(), Timestamp::now());
    let after = |age: Duration| now.checked_add(age).expect("a time");
    store.submit(NewJob { submitted_at: now, ..range_job(1, 1) }).await.expect("room");
    store.commit(change(id(1), now, ChangeKind::Canceled)).await.expect("room");
    let pruned = async |store: &Store, real: Duration, clock: Duration| {
        store.prune_at(start + real, after(clock)).await.map(|pruned| pruned.jobs)
    };
    let (minute, jump) = (Duration::from_mins(1), Duration::from_hours(24 * 31));
    assert_eq!(pruned(&store, Duration::ZERO, Duration::ZERO).await, Ok(0));
    assert_eq!(pruned(&store, minute, jump).await, Ok(0));
    assert_eq!(pruned(&store, 2 * minute, 2 * minute).await, Ok(0), "it was taken back");
    store.close().expect("all is committed");

    // A start under a wrong clock is no better, though it dates the next event.
    let store = harness.open_with(retention);
    store.check_clock(start + 3 * minute, after(jump + 3 * minute)).await.expect("readable");
    store.submit(NewJob { submitted_at: after(jump + 3 * minute), ..range_job(2, 1) }).await.expect("room");
    for real in [3, 30, 62] {
        assert_eq!(pruned(&store, real * minute, jump + real * minute).await, Ok(0), "{real}");
    }
    assert_eq!(pruned(&store, 63 * minute, jump + 63 * minute).await, Ok(1));
}
