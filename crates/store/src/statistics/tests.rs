use std::time::Duration;

use model::{EventKind, JobEvent, JobId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// An event so many half hours after another, of one of three kinds and one of three names.
fn event(seq: u64, (hours, kind, name, starts, tasks): (i64, usize, usize, u64, i64)) -> JobEvent {
    let mut counts = Counts { jobs_pending: 1, tasks_pending: tasks, task_starts: starts, ..Counts::default() };
    counts.waiting.record(Duration::from_millis(starts * 100));
    JobEvent {
        seq,
        job: JobId(Uuid::nil()),
        kind: EventKind::Progress,
        at: Timestamp::from_second(1_700_000_000 + 1800 * hours).expect("a time of this century"),
        job_kind: Some([JobKind::SLEEP, JobKind::TASKS, JobKind::COUNT_PRIMES][kind]),
        task: [None, Some("one".to_owned()), Some("two".to_owned())][name].clone(),
        tasks_done: None,
        tasks_total: None,
        error: None,
        counts: Box::new(counts),
    }
}

fn subject(event: &JobEvent) -> Subject {
    Subject { kind: event.job_kind.expect("a kind"), task: event.task.clone(), submitted_at: event.at }
}

proptest! {
    #[test]
    fn events_in_batches_of_any_size_count_as_one_by_one(
        events in proptest::collection::vec((0..100_i64, 0..3_usize, 0..3_usize, 0..9_u64, -9..9_i64), 0..60),
        batch in 1..20_usize,
    ) {
        let events: Vec<_> = (1..).zip(events).map(|(seq, figures)| event(seq, figures)).collect();
        let (mut alone, mut together) = (Statistics::default(), Statistics::default());
        events.iter().for_each(|event| alone.count(event));
        for some in events.chunks(batch) {
            let mut tally = Tally::default();
            some.iter().for_each(|event| tally.count(&subject(event), event.at, &event.counts));
            let rows: Vec<_> = tally.rows().map(|(row, _)| row).collect();
            prop_assert!(rows.is_sorted() && tally.is_empty() == some.is_empty());
            together.add(&tally);
        }
        prop_assert_eq!(&alone, &together);
        for grain in Grain::STORED {
            let query = Query { grain, starts: Timestamp::MIN..Timestamp::MAX, kind: None };
            let rows = alone.periods(&query, None, usize::MAX);
            let starts: u64 = rows.iter().map(|row| row.counts.task_starts).sum();
            prop_assert_eq!(starts, events.iter().map(|event| event.counts.task_starts).sum::<u64>());
            prop_assert_eq!(starts, alone.tasks(&query, None, usize::MAX).iter().map(|row| row.starts).sum::<u64>());
        }
    }
}

#[test]
fn an_event_of_an_earlier_release_counts_nothing() {
    let mut statistics = Statistics::default();
    statistics.count(&JobEvent { job_kind: None, ..event(1, (0, 0, 0, 5, 5)) });
    statistics.count(&JobEvent { counts: Box::default(), ..event(2, (0, 0, 0, 5, 5)) });
    assert_eq!(statistics, Statistics::default());
}
