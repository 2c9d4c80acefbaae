use std::str::FromStr;

use super::Harness;
use super::helpers::*;
use crate::{ChangeKind, Cursor, JobFilter, JobRecord, MAX_FILTER_TAGS, ReadError, Store};
use model::{JobKind, JobState, Labels};
use proptest::prelude::*;

/// Jobs with every kind, state and tag, some of the same moment.
async fn fill(store: &Store, count: u128) {
    for number in 1..=count {
        let mut new = if number % 3 == 0 { tasks_job(number, numbers(1)) } else { range_job(number, 1) };
        new.submitted_at = at((number / 2) as i64);
        new.options.tags = Labels::from([("user".to_owned(), format!("u{}", number % 7))]);
        if number % 5 == 0 {
            new.options.tags.insert("urgent".to_owned(), String::new());
        }
        store.submit(new).await.expect("room");
        let (job, at) = (id(number), at(1));
        match number % 4 {
            0 => _ = store.record(change(job, at, ChangeKind::Started)),
            1 => _ = store.record(change(job, at, ChangeKind::Canceled)),
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

pub fn pages_and_counts_of_any_filter_are_of_what_looking_at_every_job_finds_newest_first(harness: &dyn Harness) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = harness.open();
    let all = runtime.block_on(async {
        fill(&store, 120).await;
        walk(&store, &JobFilter::default(), 1000).await
    });
    assert_eq!(all.len(), 120);
    assert!(all.windows(2).all(|pair| (pair[0].submitted_at, pair[0].id) > (pair[1].submitted_at, pair[1].id)));
    let states = proptest::sample::subsequence(JobState::ALL.to_vec(), 0..4);
    let kind = proptest::option::of(proptest::sample::select(vec![JobKind::SUM_OF_PRIMES, JobKind::TASKS]));
    let tag = prop_oneof![
        (0..8).prop_map(|n| ("user".to_owned(), Some(format!("u{n}")))),
        Just(("urgent".to_owned(), None)),
        Just(("user".to_owned(), None)),
        Just(("absent".to_owned(), None)),
    ];
    let since = proptest::option::of(0..70_i64);
    let filters = (states, kind, proptest::collection::vec(tag, 0..3), 1..50_usize, since);
    proptest!(ProptestConfig::with_cases(150), |((states, kind, tags, limit, since) in filters)| {
        let filter = JobFilter { states, kind, tags };
        let found = runtime.block_on(walk(&store, &filter, limit));
        let found: Vec<_> = found.iter().map(|job| job.id).collect();
        let expected: Vec<_> = all.iter().filter(|job| suits(job, &filter)).map(|job| job.id).collect();
        prop_assert_eq!(found, expected);
        let since = since.map(at);
        let is_counted = |job: &&JobRecord| since.is_none_or(|since| job.submitted_at >= since) && suits(job, &filter);
        let counted = runtime.block_on(store.count(filter.clone(), since));
        prop_assert_eq!(counted, Ok(all.iter().filter(is_counted).count() as u64));
    });
}

pub async fn a_filter_with_too_many_tags_is_refused(harness: &dyn Harness) {
    let store = harness.open();
    fill(&store, 10).await;
    let with = |count: usize| {
        let tags = (0..count).map(|number| (format!("tag-{number}"), None)).collect();
        store.jobs(JobFilter { tags, ..JobFilter::default() }, None, 10)
    };
    assert_eq!(with(MAX_FILTER_TAGS).await.map(|jobs| jobs.len()), Ok(0));
    let refused = with(MAX_FILTER_TAGS + 1).await;
    assert!(matches!(refused, Err(ReadError::TooManyTags { limit: MAX_FILTER_TAGS })), "{refused:?}");
}
