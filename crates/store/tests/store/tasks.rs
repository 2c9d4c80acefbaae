use model::JobState;
use store::{AttemptEnd, Change};

use crate::helpers::*;

#[tokio::test]
async fn the_attempts_at_a_task_are_found_wherever_its_leases_began() {
    let (_directory, store) = new_store();
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
    let answers = |found: Vec<store::Attempt>| match found.as_slice() {
        [store::Attempt { end: AttemptEnd::Completed { results, running_at, .. }, .. }] => {
            (results.iter().map(|result| result.get().to_owned()).collect::<Vec<_>>(), *running_at)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answers(store.outcomes(job, 3000, 1).await.expect("readable")), (vec!["[1, [2]]".to_owned()], at(2)));
    assert_eq!(answers(store.outcomes(job, 3001, 1).await.expect("readable")), (vec![], at(2)));
    assert!(store.outcomes(job, 3002, 1000).await.expect("readable").is_empty());
}

#[tokio::test]
async fn an_attempt_with_another_number_of_answers_than_tasks_is_refused() {
    let (_directory, store) = new_store();
    store.submit(tasks_job(1, numbers(10))).await.expect("room");
    assert!(store.commit(answered(id(1), 0..3, numbers(2))).await.is_err());
    assert!(store.commit(answered(id(1), 0..3, numbers(3))).await.is_ok());
    assert!(only_unfinished(&store).done.iter().cloned().eq(std::iter::once(0..3)));
}

#[tokio::test]
async fn failed_attempts_of_other_kinds_leave_no_rows_however_many_they_are() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 1000)).await.expect("room");
    for round in 0..100 {
        store.record(failed_attempt(id(1), 0..1000, round));
    }
    store.flush().await.expect("room");
    assert!(store.outcomes(id(1), 0, 1000).await.expect("readable").is_empty());
    assert_eq!(only_unfinished(&store).retries, [(0..1000, 99)]);
}

#[tokio::test]
async fn a_composed_result_has_every_answer_in_its_place_and_null_where_there_is_none() {
    let (_directory, store) = new_store();
    let job = id(1);
    store.submit(tasks_job(1, numbers(8))).await.expect("room");
    store.record(answered(job, 5..7, vec![raw("[[1], []]"), raw("{\"a\": \"]\"}")]));
    store.record(answered(job, 1..2, vec![raw("\"ü\"")]));
    store.record(answered(job, 2..4, Vec::new()));
    store.record(failed_tasks(job, 7..8, 4));
    let result = store.compose_result(job).await.expect("room");
    let ended = Change::Ended { job, state: JobState::Failed, result: Some(result), error: None, at: at(1) };
    store.commit(ended).await.expect("room");
    let stored = store.result(job).await.expect("readable").expect("there");
    assert_eq!(&stored.json[..], r#"{"tasks":[null,"ü",null,null,null,[[1], []],{"a": "]"},null]}"#.as_bytes());
    assert!(store.compose_result(id(2)).await.is_err());
}

#[tokio::test]
async fn a_composed_result_of_many_megabytes_is_whole() {
    let (directory, store) = new_store();
    let job = id(1);
    // Characters of several bytes, so that some lie across the ends of parts.
    let text = format!("\"{}\"", "€".repeat(3333));
    store.submit(tasks_job(1, numbers(2500))).await.expect("room");
    for first in (0..2500).step_by(10) {
        store.record(answered(job, first..first + 10, vec![raw(&text); 10]));
    }
    let result = store.compose_result(job).await.expect("room");
    let ended = Change::Ended { job, state: JobState::Succeeded, result: Some(result), error: None, at: at(1) };
    store.commit(ended).await.expect("room");
    store.close().expect("all is committed");

    let store = open(directory.path());
    let stored = store.result(job).await.expect("readable").expect("there");
    let expected = format!("{{\"tasks\":[{}]}}", vec![text.as_str(); 2500].join(","));
    assert!(stored.json == expected.as_bytes(), "{} bytes of {}", stored.json.len(), expected.len());
}
