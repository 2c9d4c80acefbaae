use model::JobId;
use proptest::prelude::*;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::*;
use crate::change::StoredObject;
use crate::retention::SPAN_BYTES;

const TASKS: u64 = 30;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time of this century")
}

fn subject() -> Subject {
    Subject { kind: model::JobKind::TASKS, task: None, submitted_at: at(0) }
}

fn change(kind: ChangeKind) -> Change {
    Change { job: JobId(Uuid::from_u128(1)), at: at(1), kind }
}

fn completed(tasks: Range<u64>, value: u128) -> ChangeKind {
    ChangeKind::Completed { tasks, value, busy: Duration::from_secs(1), outcome: None }
}

fn attempt_failed(tasks: Range<u64>, failures: u32) -> ChangeKind {
    let timed_out = failures.is_multiple_of(2).then(|| AttemptId(Uuid::from_u128(failures.into())));
    ChangeKind::AttemptFailed { tasks, failures, timed_out, worker: "w".to_owned(), error: "broken".to_owned() }
}

fn tasks_failed(tasks: Range<u64>, failures: u32) -> ChangeKind {
    ChangeKind::TasksFailed { tasks, failures, timed_out: None, worker: "w".to_owned(), error: "broken".to_owned() }
}

fn ended(state: JobState, result: Option<ResultBody>) -> ChangeKind {
    ChangeKind::Ended { state, result, error: None }
}

fn liar() -> crate::SetAsideWorker {
    crate::SetAsideWorker { id: "w".parse().expect("a name"), boot: None, at: at(7) }
}

fn kinds() -> impl Strategy<Value = Vec<ChangeKind>> {
    let run = || (0..TASKS + 3, 0..9_u64).prop_map(|(first, count)| first..first + count);
    let kind = prop_oneof![
        20 => (run(), 0..1000_u128).prop_map(|(tasks, value)| completed(tasks, value)),
        1 => run().prop_map(|tasks| completed(tasks, u128::MAX)),
        5 => (run(), 0..1000_u128).prop_map(|(tasks, value)| ChangeKind::Checked { tasks, value, busy: Duration::from_secs(1) }),
        3 => (run(), 0..1000_u128, 0..1000_u128).prop_map(|(run, value, check)| ChangeKind::Reopened {
            tasks: vec![run],
            value,
            check,
            notice: "the worker w was set aside".to_owned(),
            worker: liar(),
        }),
        2 => (run(), 0..4_usize, proptest::bool::ANY).prop_map(|(tasks, others, is_mismatch)| {
            ChangeKind::Compared { tasks, others: vec![Duration::from_secs(1); others], is_mismatch }
        }),
        6 => (run(), 1..4_u32).prop_map(|(tasks, failures)| attempt_failed(tasks, failures)),
        3 => run().prop_map(|tasks| tasks_failed(tasks, 4)),
        2 => Just(ChangeKind::Started),
        2 => Just(ChangeKind::Paused),
        2 => Just(ChangeKind::Resumed),
        1 => Just(ChangeKind::Canceled),
        3 => Just(ChangeKind::Retried),
        1 => Just(ChangeKind::Progress),
        1 => (0..1_000_000_000_u32).prop_map(|billionths| ChangeKind::WorkDone { billionths }),
        2 => proptest::sample::select(JobState::ALL.to_vec()).prop_map(|state| ended(state, None)),
    ];
    proptest::collection::vec(kind, 0..80)
}

/// A new ledger with the stored fields of `ledger`.
fn stored(ledger: &JobLedger) -> JobLedger {
    let mut copy = JobLedger::new(ledger.subject.clone(), true, ledger.tasks, ledger.bytes());
    (copy.state, copy.value, copy.check, copy.attempts) = (ledger.state, ledger.value, ledger.check, ledger.attempts);
    (copy.started_at, copy.finished_at, copy.retried_at) = (ledger.started_at, ledger.finished_at, ledger.retried_at);
    copy.error.clone_from(&ledger.error);
    copy.uncounted.clone_from(&ledger.uncounted);
    copy.verified.clone_from(&ledger.verified);
    for kind in [SpanKind::Done, SpanKind::Failed, SpanKind::Retry] {
        for (tasks, failures) in ledger.spans(kind) {
            copy.load_span(kind, &tasks, failures).expect("the runs of a ledger can be");
        }
    }
    copy
}

fn tasks_of(ledger: &JobLedger, kind: SpanKind) -> Vec<(u64, u32)> {
    ledger.spans(kind).flat_map(|(tasks, failures)| tasks.map(move |task| (task, failures))).collect()
}

/// Checks that events count all changes, at the latest the next event.
fn events_count_all(ledger: &JobLedger, counted: &Counts, ends: u64, reopened: u64) -> Result<(), TestCaseError> {
    let mut all = counted.clone();
    all.add(&ledger.uncounted);
    let open = TASKS - ledger.tasks_done() - ledger.tasks_failed();
    let is_open = !ledger.state.is_over();
    prop_assert_eq!(
        (all.jobs_pending, all.tasks_pending),
        (i64::from(is_open), if is_open { signed(open) } else { 0 })
    );
    prop_assert_eq!((all.tasks_succeeded, all.attempts), (ledger.tasks_done() + reopened, ledger.attempts));
    prop_assert_eq!(all.jobs_succeeded + all.jobs_failed + all.jobs_canceled, ends);
    prop_assert_eq!(all.jobs_started, u64::from(ledger.started_at.is_some()));
    prop_assert_eq!(all.computing.count(), all.attempts - all.attempts_failed);
    prop_assert_eq!(
        all.tasks_succeeded + all.tasks_failed + all.tasks_canceled + open.min(if is_open { open } else { 0 }),
        TASKS + all.tasks_retried
    );
    prop_assert!(all.tasks_started <= all.task_starts && all.tasks_started >= all.tasks_succeeded.min(TASKS));
    Ok(())
}

proptest! {
    #[test]
    fn no_change_breaks_what_must_hold(kinds in kinds()) {
        let mut ledger = JobLedger::new(subject(), true, TASKS, 1000);
        let (mut counted, mut ends) = (Counts { jobs_pending: 1, tasks_pending: signed(TASKS), ..Counts::default() }, 0);
        let mut reopened = 0;
        for kind in kinds {
            let (change, before) = (change(kind), ledger.clone());
            let applied = ledger.apply(&change);
            reopened += before.tasks_done().saturating_sub(ledger.tasks_done());
            let [done, failed, retries] =
                [SpanKind::Done, SpanKind::Failed, SpanKind::Retry].map(|kind| tasks_of(&ledger, kind));
            // Each task is done, out of attempts, to be tried again, or open.
            let mut all: Vec<_> = [&done, &failed, &retries].into_iter().flatten().map(|&(task, _)| task).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count);
            prop_assert!(all.last().is_none_or(|&task| task < TASKS));
            prop_assert_eq!((ledger.tasks_done(), ledger.tasks_failed()), (done.len() as u64, failed.len() as u64));
            // Done tasks stay done, except by the change that reopens them.
            let is_reopened = matches!(change.kind, ChangeKind::Reopened { .. });
            prop_assert!(is_reopened || tasks_of(&before, SpanKind::Done).iter().all(|task| done.contains(task)));
            let added = match (&change.kind, &applied, before.state.is_over()) {
                (ChangeKind::Completed { value, .. }, Ok(_), false) => (*value, 0),
                (ChangeKind::Checked { value, .. }, Ok(_), false) => (0, *value),
                (ChangeKind::Reopened { value, check, .. }, Ok(_), false) => (value.wrapping_neg(), check.wrapping_neg()),
                _ => (0, 0),
            };
            prop_assert_eq!((ledger.value, ledger.check), (before.value.wrapping_add(added.0), before.check.wrapping_add(added.1)));
            prop_assert!(ledger.attempts >= before.attempts);
            prop_assert_eq!(ledger.finished_at.is_some(), ledger.state.is_over());
            prop_assert!(ledger.state != JobState::Succeeded || ledger.tasks_done() == TASKS);
            prop_assert!(ledger.state != JobState::Queued || ledger.started_at.is_none());
            match applied {
                Err(_) => prop_assert_eq!(format!("{ledger:?}"), format!("{before:?}")),
                Ok(effects) => {
                    let event = effects.event.as_ref().map(|event| (event.tasks_done, event.tasks_total));
                    prop_assert!(event.is_none_or(|event| event == (ledger.tasks_done(), TASKS)));
                    prop_assert!(ledger.state == before.state || event.is_some(), "{:?} without an event", change);
                    if let Some(event) = effects.event {
                        ends += u64::from(event.kind.is_end());
                        counted.add(&event.counts);
                    }
                    let is_attempt = matches!(
                        change.kind,
                        ChangeKind::Completed { .. }
                            | ChangeKind::Checked { .. }
                            | ChangeKind::AttemptFailed { .. }
                            | ChangeKind::TasksFailed { .. }
                    );
                    let attempts = if let ChangeKind::Compared { others, .. } = &change.kind {
                        others.len() as u64
                    } else {
                        u64::from(is_attempt)
                    };
                    let expected = if before.state.is_over() { 0 } else { attempts };
                    prop_assert_eq!(ledger.attempts, before.attempts + expected);
                }
            }
            events_count_all(&ledger, &counted, ends, reopened)?;
            // Only stored fields matter.
            let mut copy = stored(&ledger);
            prop_assert_eq!(copy.bytes(), ledger.bytes());
            let progress = super::tests::change(ChangeKind::Progress);
            let (one, other) = (copy.apply(&progress), ledger.clone().apply(&progress).map(|effects| format!("{effects:?}")));
            prop_assert_eq!(one.map(|effects| format!("{effects:?}")), other);
        }
    }

    #[test]
    fn rows_that_follow_the_changed_runs_hold_the_runs(kinds in kinds()) {
        let mut ledger = JobLedger::new(subject(), true, TASKS, 1000);
        let mut rows = std::collections::BTreeMap::new();
        for kind in kinds {
            let _ = ledger.apply(&change(kind));
            for (kind, first, run) in ledger.take_changed_spans() {
                match run {
                    Some(run) => _ = rows.insert((kind, first), run),
                    None => _ = rows.remove(&(kind, first)),
                }
            }
            let runs = [SpanKind::Done, SpanKind::Failed, SpanKind::Retry].into_iter().flat_map(|kind| {
                ledger.spans(kind).map(move |(tasks, failures)| ((kind, tasks.start), (tasks.end, failures)))
            });
            prop_assert_eq!(&rows, &runs.collect());
        }
    }
}

fn outcome(results: Vec<&str>) -> CompletedAttempt {
    let json = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
    CompletedAttempt {
        attempt: model::AttemptId(Uuid::nil()),
        worker: Some("worker".to_owned()),
        allocated_at: at(1),
        running_at: at(2),
        completed_at: at(3),
        results: results.into_iter().map(json).collect(),
    }
}

#[test]
fn each_change_brings_its_rows() {
    let mut ledger = JobLedger::new(subject(), true, 3, 1000);
    let started = change(ChangeKind::Started);
    let mut counts = Counts { jobs_started: 1, ..Counts::default() };
    counts.waiting.record(Duration::from_secs(1));
    let (kind, tasks_done, tasks_total) = (EventKind::Started, 0, 3);
    let event = EventRow { kind, at: at(1), tasks_done, tasks_total, error: None, source: None, counts };
    let effects = ledger.apply(&started).expect("allowed");
    assert_eq!((effects.event.as_ref(), ledger.bytes()), (Some(&event), 1000 + EVENT_BYTES));
    assert!(effects.attempt.is_none() && matches!(effects.result, ResultEffect::Keep));

    let kind = ChangeKind::Completed {
        tasks: 0..2,
        value: 5,
        busy: Duration::from_millis(1500),
        outcome: Some(outcome(vec!["1", "22"])),
    };
    let done = change(kind);
    let effects = ledger.apply(&done).expect("allowed");
    assert!(effects.event.is_none() && matches!(effects.result, ResultEffect::Keep));
    assert!(matches!(&effects.attempt, Some(AttemptRow::Completed { tasks, .. }) if *tasks == (0..2)), "{effects:?}");

    let failed = change(tasks_failed(2..3, 4));
    let effects = ledger.apply(&failed).expect("allowed");
    let mut counts = Counts {
        tasks_started: 3,
        tasks_succeeded: 2,
        tasks_failed: 1,
        tasks_pending: -3,
        task_starts: 3,
        attempts: 2,
        attempts_failed: 1,
        ..Counts::default()
    };
    counts.computing.record(Duration::from_millis(1500));
    let event = EventRow { kind: EventKind::TaskFailed, tasks_done: 2, error: Some("broken"), counts, ..event };
    assert_eq!(effects.event, Some(event));
    let Some(AttemptRow::Failed(row)) = effects.attempt else { panic!("{:?}", effects.attempt) };
    assert_eq!((row.tasks, row.failures, row.given_up, row.worker), (2..3, 4, true, "w"));

    let retried = change(ChangeKind::Retried);
    let effects = ledger.apply(&retried).expect("allowed");
    assert!(matches!(effects.result, ResultEffect::Drop), "{effects:?}");
    assert_eq!((ledger.retried_at, ledger.tasks_failed()), (Some(at(1)), 0));
}

#[test]
fn attempts_at_tasks_that_are_not_individual_bring_no_rows() {
    let mut ledger = JobLedger::new(subject(), false, 3, 1000);
    let failed = change(attempt_failed(0..3, 1));
    assert!(ledger.apply(&failed).expect("allowed").attempt.is_none());
    assert_eq!((ledger.attempts, ledger.bytes()), (1, 1000 + SPAN_BYTES));
}

#[test]
fn the_result_of_an_end_is_put_and_that_of_a_late_end_is_nobodys() {
    let mut ledger = JobLedger::new(subject(), true, 1, 1000);
    let object = |name: &str| StoredObject { name: name.to_owned(), bytes: 500, sha256: [0; 32] };
    let end = |name| change(ended(JobState::Failed, Some(ResultBody::Object(object(name)))));
    let (first, late) = (end("first"), end("late"));
    assert!(matches!(ledger.apply(&first).expect("allowed").result, ResultEffect::Put(_)));
    assert_eq!(ledger.bytes(), 1000 + 500 + EVENT_BYTES);
    assert!(matches!(ledger.apply(&late).expect("no effect").result, ResultEffect::Abandon("late")));
    assert!(matches!(without_effect(&late).result, ResultEffect::Abandon("late")));
    let done = change(completed(0..1, 1));
    assert!(matches!(without_effect(&done).result, ResultEffect::Keep));
    assert_eq!(ledger.bytes(), 1000 + 500 + EVENT_BYTES);
    ledger.freed(u64::MAX);
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn an_attempt_is_cut_into_rows_that_cover_it() {
    assert_eq!(pieces(&(5..5)).count(), 0);
    assert!(pieces(&(5..6)).eq(std::iter::once(5..6)));
    assert!(pieces(&(0..2049)).eq([0..1024, 1024..2048, 2048..2049]));
}
