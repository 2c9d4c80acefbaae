//! `divvy statistics --replay-from-kafka`: the figures computed again from the events that Kafka has, held against the
//! stored ones.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::client::{Client, Query as Parameters};
use api::{PeriodStatistics, TaskStarts};
use jiff::Timestamp;
use model::{Grain, JobEvent};
use store::statistics::{Query, Statistics as Replayed};
use streams::{Followed, Follower, From, Settings, Topic};

use crate::arguments::Statistics;
use crate::failure::Failure;
use crate::monitor;
use crate::print::{print_line, tell};

/// The grains that are stored; the others are made of them.
const STORED: [Grain; 3] = [Grain::Minute, Grain::Hour, Grain::Day];
/// How often the stored figures are asked for until no event came meanwhile.
const TRIES: usize = 20;
/// How long the brokers may have nothing while an event is missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that may wait for those before them.
const MAX_HELD: usize = 2_000_000;
/// Differences that are shown.
const SHOWN: usize = 20;

/// The stored figures as they are after an event.
struct Stored {
    /// The number of the event.
    latest: u64,
    periods: BTreeMap<&'static str, Vec<PeriodStatistics>>,
    tasks: BTreeMap<&'static str, Vec<TaskStarts>>,
}

pub(super) async fn run(grid: &Client, arguments: &Statistics, brokers: Option<&str>) -> Result<(), Failure> {
    let settings = monitor::settings(brokers)?;
    let stored = stored(grid).await?;
    let latest = stored.latest;
    let read = tokio::task::spawn_blocking(move || replay(&settings, latest));
    let (replayed, events) = read.await.map_err(|error| Failure::Failed(error.to_string()))??;
    tell(&format!("{events} events up to number {latest}"));
    if events < latest {
        tell(&format!("warning: {} events are not in Kafka", latest - events));
    }
    let mut differences = Vec::new();
    for grain in STORED {
        let (equal, different) = compare(grain, &stored, &replayed, arguments);
        print_line(&format!("{:<6}  {equal:>6} equal  {:>6} different", grain.as_str(), different.len()))?;
        differences.extend(different);
    }
    if differences.is_empty() {
        return Ok(());
    }
    differences.iter().take(SHOWN).try_for_each(|difference| print_line(difference))?;
    Err(Failure::Failed("the stored statistics are not those of the events in Kafka".to_owned()))
}

/// The stored figures of one moment.
async fn stored(grid: &Client) -> Result<Stored, Failure> {
    for _ in 0..TRIES {
        let before = latest(grid).await?;
        let (mut periods, mut tasks) = (BTreeMap::new(), BTreeMap::new());
        for grain in STORED {
            periods.insert(grain.as_str(), all_periods(grid, grain).await?);
            tasks.insert(grain.as_str(), all_tasks(grid, grain).await?);
        }
        if latest(grid).await? == before {
            return Ok(Stored { latest: before, periods, tasks });
        }
    }
    Err(Failure::Failed("events came whenever the stored statistics were read: try again when less happens".to_owned()))
}

/// The number of the newest event.
async fn latest(grid: &Client) -> Result<u64, Failure> {
    let Some(kafka) = grid.stats().await?.kafka else {
        return Err(Failure::Usage("the grid does not publish to Kafka".to_owned()));
    };
    Ok(kafka.published_event + kafka.unpublished_events)
}

fn parameters(grain: Grain, token: Option<String>) -> Parameters {
    let mut parameters = vec![("grain", grain.as_str().to_owned()), ("from", "1970-01-01".to_owned())];
    parameters.extend(token.map(|token| ("page_token", token)));
    parameters
}

async fn all_periods(grid: &Client, grain: Grain) -> Result<Vec<PeriodStatistics>, Failure> {
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let page = grid.statistics(&parameters(grain, token)).await?;
        all.extend(page.periods);
        token = page.next_page_token;
        if token.is_none() {
            return Ok(all);
        }
    }
}

async fn all_tasks(grid: &Client, grain: Grain) -> Result<Vec<TaskStarts>, Failure> {
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let page = grid.task_statistics(&parameters(grain, token)).await?;
        all.extend(page.tasks);
        token = page.next_page_token;
        if token.is_none() {
            return Ok(all);
        }
    }
}

/// The figures of the events up to a number, each counted once and in order, and how many they are.
fn replay(settings: &Settings, latest: u64) -> Result<(Replayed, u64), Failure> {
    let unreadable = |error| monitor::unreadable(settings, &error);
    let mut follower = Follower::start(settings, &[Topic::Events], From::Beginning, None).map_err(unreadable)?;
    let (mut replayed, mut held) = (Replayed::default(), BTreeMap::<u64, JobEvent>::new());
    let (mut next, mut events, mut last_at) = (1, 0, Instant::now());
    let mut count = |event: &JobEvent| {
        replayed.count(event);
        events += 1;
    };
    while next <= latest && last_at.elapsed() < PATIENCE {
        match follower.next(Duration::from_millis(200)).map_err(unreadable)? {
            Some(Followed::Event(event)) if event.seq >= next && event.seq <= latest => {
                held.insert(event.seq, event);
                last_at = Instant::now();
            }
            // Nothing more than what is missing can come.
            Some(Followed::End) if held.last_key_value().is_some_and(|(&seq, _)| seq == latest) => break,
            Some(_) | None => (),
        }
        while let Some(event) = held.remove(&next) {
            count(&event);
            next += 1;
        }
        if held.len() > MAX_HELD {
            return Err(Failure::Failed(format!("event {next} is not in Kafka, and {MAX_HELD} after it are")));
        }
    }
    held.values().for_each(&mut count);
    Ok((replayed, events))
}

/// How many figures are equal, and which are not.
fn compare(grain: Grain, stored: &Stored, replayed: &Replayed, arguments: &Statistics) -> (usize, Vec<String>) {
    let (periods, tasks) = (&stored.periods[grain.as_str()], &stored.tasks[grain.as_str()]);
    // Periods that began earlier are kept no longer.
    let oldest =
        if grain == Grain::Day { Timestamp::MIN } else { periods.first().map_or(Timestamp::MAX, |row| row.start) };
    let query = Query { grain, starts: oldest..Timestamp::MAX, kind: arguments.kind };
    let of_kind = |kind| arguments.kind.is_none_or(|wanted| wanted == kind);
    let again = replayed.periods(&query, None, usize::MAX);
    let again = again.iter().map(|row| PeriodStatistics::new(grain, row.start, row.kind, &row.counts));
    let again: BTreeMap<_, _> = again.map(|row| ((row.start, row.kind), row)).collect();
    let there = periods.iter().filter(|row| of_kind(row.kind));
    let there: BTreeMap<_, _> = there.map(|row| ((row.start, row.kind), row.clone())).collect();
    let (equal, mut different) = differences(grain, &there, &again);
    let again = replayed.tasks(&query, None, usize::MAX);
    let again: BTreeMap<_, _> = again.into_iter().map(|row| ((row.start, row.kind, row.task), row.starts)).collect();
    let there = tasks.iter().filter(|row| of_kind(row.kind));
    let there: BTreeMap<_, _> = there.map(|row| ((row.start, row.kind, row.task.clone()), row.starts)).collect();
    let (equal_tasks, different_tasks) = differences(grain, &there, &again);
    different.extend(different_tasks);
    (equal + equal_tasks, different)
}

fn differences<K, V>(grain: Grain, stored: &BTreeMap<K, V>, replayed: &BTreeMap<K, V>) -> (usize, Vec<String>)
where
    K: Ord + std::fmt::Debug,
    V: PartialEq,
{
    let wrong = |key: &K, what: &str| format!("{} {key:?}: {what}", grain.as_str());
    let mut different = Vec::new();
    for (key, value) in stored {
        match replayed.get(key) {
            Some(again) if again == value => (),
            Some(_) => different.push(wrong(key, "other figures")),
            None => different.push(wrong(key, "no events")),
        }
    }
    let equal = stored.len() - different.len();
    let unknown = replayed.keys().filter(|key| !stored.contains_key(key));
    different.extend(unknown.map(|key| wrong(key, "not stored")));
    (equal, different)
}
