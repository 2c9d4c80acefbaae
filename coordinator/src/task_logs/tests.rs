use store::Retention;
use store::memory::Memory;

use super::*;

/// No logs, and a store in memory.
fn with_store() -> (TaskLogs, Memory, Store) {
    let memory = Memory::new();
    let store = memory.store(Retention::KEEP_ALL).expect("a thread");
    (TaskLogs::default(), memory, store)
}

/// A worker's report of four bytes.
fn report(is_final: bool) -> LogReport {
    LogReport { worker: "one".parse().expect("a name"), offset: 0, text: "text".to_owned(), is_final }
}

fn show(logs: &TaskLogs, attempt: TaskAttempt, text: &str) {
    logs.logs().show(attempt, "worker".to_owned(), 0, text.to_owned());
}

fn attempt(job: u128, task: u64) -> TaskAttempt {
    TaskAttempt { job: JobId(uuid::Uuid::from_u128(job)), task, id: AttemptId(uuid::Uuid::from_u128(task.into())) }
}

#[test]
fn changes_are_those_of_the_job_and_its_tasks_after_the_number() {
    let logs = TaskLogs::default();
    let job = attempt(1, 0).job;
    show(&logs, attempt(1, 0), "a");
    show(&logs, attempt(1, 1), "b");
    show(&logs, attempt(2, 0), "c");
    let seen = logs.newest();
    assert!(logs.changes(job, &(0..9), seen).expect("remembered").is_empty());
    show(&logs, attempt(1, 0), "aa");
    logs.logs().note_stored(attempt(1, 1));
    let changes = logs.changes(job, &(0..9), seen).expect("remembered");
    assert!(
        matches!(&changes[..], [(4, Changed::Live(log)), (5, Changed::Stored(ended))]
            if log.text == "aa" && *ended == attempt(1, 1)),
        "{changes:?}"
    );
    assert_eq!(logs.changes(job, &(1..2), seen).expect("remembered").len(), 1);
}

#[test]
fn a_log_is_taken_when_its_attempt_has_had_no_lease_for_a_while() {
    let (logs, start) = (TaskLogs::default(), Instant::now());
    show(&logs, attempt(1, 0), "of a lost worker");
    show(&logs, attempt(1, 1), "of one that lives");
    let leased = |tasks: &[u64]| tasks.iter().map(|task| attempt(1, *task).id).collect::<HashSet<_>>();
    let take = |leased: &HashSet<AttemptId>, after: Duration| {
        let taken = logs.logs().take_unleased(leased, start + after);
        taken.into_iter().map(|(attempt, live)| (attempt.task, live.text)).collect::<Vec<_>>()
    };
    assert!(take(&leased(&[1]), Duration::ZERO).is_empty());
    // A new leader does not know an attempt at first.
    assert!(take(&leased(&[]), ABANDONED_AFTER / 2).is_empty());
    let gone = vec![(0, "of a lost worker".to_owned())];
    assert_eq!(take(&leased(&[1]), ABANDONED_AFTER), gone);
    assert!(take(&leased(&[]), ABANDONED_AFTER * 3 / 2 - Duration::from_millis(1)).is_empty());
    assert!(logs.live(attempt(1, 0).job, &(0..9)).iter().all(|log| log.task == 1));
}

#[test]
fn a_log_that_does_not_fit_leaves_room_for_a_shorter_one() {
    let logs = TaskLogs::default();
    let is_kept = |task, bytes| logs.logs().is_kept(attempt(1, task), bytes);
    assert!(is_kept(0, MAX_JOB_LOG_BYTES - 1));
    assert!(!is_kept(1, 2));
    assert!(is_kept(2, 1));
}

#[tokio::test]
async fn a_log_that_cannot_be_stored_takes_no_room() {
    let (logs, memory, store) = with_store();
    memory.set_failing(Some(WriteError::Unavailable("no route".to_owned())));
    let attempt = attempt(1, 0);
    for _ in 0..3 {
        assert!(logs.report(attempt, report(true), &store).await.is_err());
    }
    assert_eq!(logs.logs().kept[&attempt.job], 0);
}

#[tokio::test]
async fn a_log_of_a_lost_worker_that_cannot_be_stored_is_not_given_up() {
    let ((logs, memory, store), start) = (with_store(), Instant::now());
    let attempt = attempt(1, 0);
    show(&logs, attempt, "so far");
    let take = |after: Duration| logs.logs().take_unleased(&HashSet::new(), start + after);
    assert!(take(Duration::ZERO).is_empty());
    memory.set_failing(Some(WriteError::Unavailable("no route".to_owned())));
    for (attempt, live) in take(ABANDONED_AFTER) {
        logs.store_abandoned(attempt, live, &store).await;
    }
    assert_eq!(logs.live(attempt.job, &(0..9)).len(), 1);
    assert!(!logs.logs().has_ended(&attempt), "a last report would be thrown away");
    memory.set_failing(None);
    while !logs.logs().stored.contains(&attempt) {
        for (attempt, live) in take(ABANDONED_AFTER) {
            logs.store_abandoned(attempt, live, &store).await;
        }
        tokio::task::yield_now().await;
    }
    assert!(logs.live(attempt.job, &(0..9)).is_empty());
    assert!(logs.logs().has_ended(&attempt));
}

#[tokio::test]
async fn a_last_report_that_comes_twice_is_stored_once_and_a_late_one_shows_nothing() {
    let (logs, _, store) = with_store();
    let attempt = attempt(1, 0);
    for is_final in [false, true, true, false] {
        logs.report(attempt, report(is_final), &store).await.expect("taken");
    }
    assert_eq!(logs.newest(), 2, "it was shown once and stored once");
    assert!(logs.live(attempt.job, &(0..9)).is_empty());
    assert_eq!(logs.logs().kept[&attempt.job], 4);
    assert!(logs.logs().storing.is_empty());
}

#[tokio::test]
async fn a_last_report_is_not_taken_while_an_earlier_one_is_on_its_way_into_the_store() {
    let (logs, _, store) = with_store();
    let attempt = attempt(1, 0);
    let storing = logs.begin_to_store(attempt, 4).expect("no other is").expect("there is room");
    assert!(matches!(logs.report(attempt, report(true), &store).await, Err(WriteError::InDoubt)));
    drop(storing);
    logs.report(attempt, report(true), &store).await.expect("taken");
    assert_eq!(logs.newest(), 1);
}

#[test]
fn a_follower_is_woken_by_its_job_alone() {
    let logs = TaskLogs::default();
    let follower = logs.follow(attempt(1, 0).job);
    show(&logs, attempt(2, 0), "a");
    assert!(!follower.has_changed().expect("open"));
    show(&logs, attempt(1, 0), "a");
    assert!(follower.has_changed().expect("open"));
    drop(follower);
    drop(logs.follow(attempt(3, 0).job));
    assert_eq!(logs.logs().followers.len(), 1, "what nobody follows is forgotten");
}

#[test]
fn a_client_that_is_too_far_behind_is_told_to_read_all() {
    let logs = TaskLogs::default();
    for task in 0..=MAX_ENDED as u64 {
        logs.logs().note_stored(attempt(1, task));
    }
    assert!(logs.changes(attempt(1, 0).job, &(0..9), 0).is_none());
    assert!(logs.changes(attempt(1, 0).job, &(0..9), 1).is_some());
    assert!(logs.changes(attempt(1, 0).job, &(0..9), u64::MAX).is_none());
}
