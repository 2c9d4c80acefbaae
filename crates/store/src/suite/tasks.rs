use model::JobState;

use super::Harness;
use super::helpers::*;
use crate::rules::{FIRST_FAILURES, LAST_FAILURES};
use crate::{AttemptEnd, ChangeKind};

pub async fn the_attempts_at_a_task_are_found_wherever_its_leases_began(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(tasks_job(1, numbers(6000))).await.expect("room");
    store.record(failed_attempt(job, 0..3000, 1));
    store.record(failed_tasks(job, 0..10, 2));
    store.record(answered(job, 10..3000, numbers(3000).split_off(10)));
    store.record(answered(job, 3000..3001, vec![raw("[1, [2]]")]));
    store.record(answered(job, 3001..3002, Vec::new()));
    store.flush().await.expect("room");

    let found = store.outcomes(job, 0, 1).await.expect("readable");
    let ends: Vec<_> = found.iter().map(|attempt| (attempt.worker.as_str(), &attempt.end)).collect();
    assert!(
        matches!(
            ends.as_slice(),
            [
                ("worker-2", AttemptEnd::Failed { failures: 1, given_up: false, .. }),
                ("worker-3", AttemptEnd::Failed { failures: 2, given_up: true, .. }),
            ]
        ),
        "{ends:?}"
    );
    for task in [10, 11, 1033, 1034, 1035, 2999] {
        let found = store.outcomes(job, task, 1).await.expect("readable");
        let answers: Vec<_> = found
            .iter()
            .filter_map(|attempt| match &attempt.end {
                AttemptEnd::Completed { results, .. } => Some(results[(task - attempt.tasks.start) as usize].get()),
                AttemptEnd::Failed { .. } => None,
            })
            .collect();
        assert_eq!((found.len(), answers), (2, vec![task.to_string().as_str()]));
    }
    let answers = |found: Vec<crate::Attempt>| match found.as_slice() {
        [crate::Attempt { end: AttemptEnd::Completed { results, running_at, .. }, .. }] => {
            (results.iter().map(|result| result.get().to_owned()).collect::<Vec<_>>(), *running_at)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answers(store.outcomes(job, 3000, 1).await.expect("readable")), (vec!["[1, [2]]".to_owned()], at(2)));
    assert_eq!(answers(store.outcomes(job, 3001, 1).await.expect("readable")), (vec![], at(2)));
    assert!(store.outcomes(job, 3002, 1000).await.expect("readable").is_empty());
}

pub async fn an_attempt_with_another_number_of_answers_than_tasks_is_refused(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(tasks_job(1, numbers(10))).await.expect("room");
    assert!(store.commit(answered(id(1), 0..3, numbers(2))).await.is_err());
    assert!(store.commit(answered(id(1), 0..3, numbers(3))).await.is_ok());
    assert!(only_unfinished(&store).await.done.iter().cloned().eq(std::iter::once(0..3)));
}

pub async fn failed_attempts_of_other_kinds_leave_no_rows_however_many_they_are(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 1000)).await.expect("room");
    for round in 0..100 {
        store.record(failed_attempt(id(1), 0..1000, round));
    }
    store.flush().await.expect("room");
    assert!(store.outcomes(id(1), 0, 1000).await.expect("readable").is_empty());
    assert_eq!(only_unfinished(&store).await.retries, [(0..1000, 99)]);
}

pub async fn a_task_that_fails_for_ever_keeps_its_first_and_its_last_failures(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(tasks_job(1, numbers(3))).await.expect("room");
    store.record(failed_attempt(job, 1..3, 1));
    let before = {
        store.commit(change(job, at(6), ChangeKind::Progress)).await.expect("room");
        store.outcomes(job, 0, 3).await.expect("readable").len()
    };
    assert_eq!(before, 1);
    for failures in 1..=100 {
        store.record(failed_attempt(job, 0..1, failures));
    }
    store.flush().await.expect("room");
    let found = store.outcomes(job, 0, 3).await.expect("readable");
    let kept: Vec<_> = found
        .iter()
        .map(|attempt| match attempt.end {
            AttemptEnd::Failed { failures, omitted, .. } => (attempt.tasks.start, failures, omitted),
            AttemptEnd::Completed { .. } => panic!("{attempt:?}"),
        })
        .collect();
    let omitted = 100 - (FIRST_FAILURES + LAST_FAILURES) as u64;
    let mut expected = vec![(0, 1, 0), (0, 93, omitted)];
    expected.extend((94..=100).map(|failures| (0, failures, 0)));
    expected.push((1, 1, 0));
    assert_eq!(kept, expected);
    assert_eq!(record_of(&store, job).await.attempts, 101);
}

pub async fn a_composed_result_has_every_answer_in_its_place_and_null_where_there_is_none(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    store.submit(tasks_job(1, numbers(8))).await.expect("room");
    store.record(answered(job, 5..7, vec![raw("[[1], []]"), raw("{\"a\": \"]\"}")]));
    store.record(answered(job, 1..2, vec![raw("\"ü\"")]));
    store.record(answered(job, 2..4, Vec::new()));
    store.record(failed_tasks(job, 7..8, 4));
    let result = store.compose_result(job).await.expect("room");
    let ended = ended_with(job, JobState::Failed, result, at(1));
    store.commit(ended).await.expect("room");
    let stored = store.result(job).await.expect("readable").expect("there");
    assert_eq!(&stored.json[..], r#"{"tasks":[null,"ü",null,null,null,[[1], []],{"a": "]"},null]}"#.as_bytes());
    assert!(store.compose_result(id(2)).await.is_err());
}

pub async fn a_composed_result_of_many_megabytes_is_whole(harness: &dyn Harness) {
    let store = harness.open();
    let job = id(1);
    // Characters of several bytes, so that some lie across the ends of parts.
    let text = format!("\"{}\"", "€".repeat(3333));
    store.submit(tasks_job(1, numbers(2500))).await.expect("room");
    for first in (0..2500).step_by(10) {
        store.record(answered(job, first..first + 10, vec![raw(&text); 10]));
    }
    let result = store.compose_result(job).await.expect("room");
    let ended = ended_with(job, JobState::Succeeded, result, at(1));
    store.commit(ended).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    let stored = store.result(job).await.expect("readable").expect("there");
    let expected = format!("{{\"tasks\":[{}]}}", vec![text.as_str(); 2500].join(","));
    assert!(stored.json == expected.as_bytes(), "{} bytes of {}", stored.json.len(), expected.len());
}
