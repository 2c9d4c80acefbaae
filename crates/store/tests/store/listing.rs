use std::str::FromStr;

use model::{JobKind, JobState, Labels};
use proptest::prelude::*;
use store::{Change, Cursor, JobFilter, JobRecord, Store};

use crate::helpers::*;

/// Jobs with every kind, state and tag, some of the same moment.
async fn fill(store: &Store, count: u128) {
    for number in 1..=count {
        let mut new = if number % 3 == 0 { tasks_job(number, numbers(1)) } else { range_job(number, 1) };
        new.submitted_at = at((number / 2) as i64);
        new.job.options.tags = Labels::from([("user".to_owned(), format!("u{}", number % 7))]);
        if number % 5 == 0 {
            new.job.options.tags.insert("urgent".to_owned(), String::new());
        }
        store.submit(new).await.expect("room");
        let (job, at) = (id(number), at(1));
        match number % 4 {
            0 => store.record(Change::Started { job, at }),
            1 => store.record(Change::Canceled { job, at }),
            2 => {
                store.record(completed(job, 0..1, 1));
                store.record(ended(job, JobState::Succeeded, None));
            }
            _ => {}
        }
    }
    store.flush().await.expect("room");
}

async fn walk(store: &Store, filter: &JobFilter, limit: usize) -> Vec<JobRecord> {
    let mut all: Vec<JobRecord> = Vec::new();
    loop {
        let before = all.last().map(|job| Cursor::from_str(&Cursor::from(job).to_string()).expect("made so"));
        let page = store.jobs(filter.clone(), before, limit).await.expect("readable");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn suits(job: &JobRecord, filter: &JobFilter) -> bool {
    let tags = &job.options.tags;
    (filter.states.is_empty() || filter.states.contains(&job.state))
        && filter.kind.is_none_or(|kind| kind == job.kind)
        && filter
            .tags
            .iter()
            .all(|(name, value)| tags.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found)))
}

#[test]
fn pages_of_any_filter_hold_what_looking_at_every_job_finds_newest_first() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_directory, store) = new_store();
    let all = runtime.block_on(async {
        fill(&store, 120).await;
        walk(&store, &JobFilter::default(), 1000).await
    });
    assert_eq!(all.len(), 120);
    assert!(all.windows(2).all(|pair| (pair[0].submitted_at, pair[0].id) > (pair[1].submitted_at, pair[1].id)));
    let states = proptest::sample::subsequence(JobState::ALL.to_vec(), 0..4);
    let kind = proptest::option::of(proptest::sample::select(vec![JobKind::SumOfPrimes, JobKind::Tasks]));
    let tag = prop_oneof![
        (0..8).prop_map(|n| ("user".to_owned(), Some(format!("u{n}")))),
        Just(("urgent".to_owned(), None)),
        Just(("user".to_owned(), None)),
        Just(("absent".to_owned(), None)),
    ];
    let filters = (states, kind, proptest::collection::vec(tag, 0..3), 1..50_usize);
    proptest!(ProptestConfig::with_cases(150), |((states, kind, tags, limit) in filters)| {
        let filter = JobFilter { states, kind, tags };
        let found = runtime.block_on(walk(&store, &filter, limit));
        let found: Vec<_> = found.iter().map(|job| job.id).collect();
        let expected: Vec<_> = all.iter().filter(|job| suits(job, &filter)).map(|job| job.id).collect();
        prop_assert_eq!(found, expected);
    });
}

#[test]
fn a_text_that_is_no_cursor_is_refused() {
    for text in
        ["", "1", "1.", ".1", "x.0192e4a0000000000000000000000000", "1.0192e4a0", "9999999999999999999999999999.0"]
    {
        assert!(Cursor::from_str(text).is_err(), "{text}");
    }
}
