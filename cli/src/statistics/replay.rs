//! `divvy statistics --replay-from-kafka`: the figures computed again from the events that Kafka has, held against the
//! stored ones.
//!
//! Events go on while the stored figures are read, page by page. Each row is what the events up to some number count, and
//! that number lies between the newest event before the first page and the newest after the last one. So a row is right if
//! it equals the computed one after any of these events.

mod check;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::client::{Client, Query as Parameters};
use api::{PeriodStatistics, TaskStarts};
use model::{Grain, JobEvent, counted};
use streams::{Followed, Follower, From, Settings, Topic};

use crate::arguments::Statistics;
use crate::failure::Failure;
use crate::monitor;
use crate::print::{print_line, tell};
use check::Check;

/// The grains that are stored; the others are made of them.
const STORED: [Grain; 3] = [Grain::Minute, Grain::Hour, Grain::Day];
/// An event can be read a moment before its number is told.
const TELLING: Duration = Duration::from_secs(1);
/// Longest silence of the brokers while an event is missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that may wait for those before them.
const MAX_HELD: usize = 2_000_000;
/// Differences that are shown.
const SHOWN: usize = 20;

/// The stored figures of a grain.
struct Rows {
    periods: Vec<PeriodStatistics>,
    tasks: Vec<TaskStarts>,
}

pub(super) async fn run(grid: &Client, arguments: &Statistics, brokers: Option<&str>) -> Result<(), Failure> {
    let settings = monitor::settings(brokers)?;
    let (kind, first) = (arguments.kind, latest(grid).await?);
    let mut check = Check::new(first, kind);
    for grain in STORED {
        // Old rows may be deleted meanwhile: starts whose period is no longer there are left out.
        let tasks = all_tasks(grid, grain).await?;
        let periods = all_periods(grid, grain).await?;
        check.add(grain, Rows { periods, tasks });
    }
    tokio::time::sleep(TELLING).await;
    let last = latest(grid).await?;
    let read = tokio::task::spawn_blocking(move || replay(&settings, last, &mut check).map(|found| (check, found)));
    let (check, Replayed { events, missing }) = read.await.map_err(|error| Failure::Failed(error.to_string()))??;
    let during =
        if last > first { format!(", {} of them while the figures were read", last - first) } else { String::new() };
    tell(&format!("{} up to number {last}{during}", counted(events, "event", "events")));
    if events < last {
        let lost = counted(last - events, "event is", "events are");
        tell(&format!(
            "warning: {lost} not in Kafka, the first with number {missing}: their figures are stored and not counted"
        ));
    }
    let mut differences = Vec::new();
    for grain in STORED {
        let (equal, different) = check.outcome(grain);
        print_line(&format!("{:<6}  {equal:>6} equal  {:>6} different", grain.as_str(), different.len()))?;
        differences.extend(different);
    }
    if differences.is_empty() {
        return Ok(());
    }
    differences.iter().take(SHOWN).try_for_each(|difference| print_line(difference))?;
    Err(Failure::Failed("the stored statistics are not those of the events in Kafka".to_owned()))
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

/// The events that were found.
struct Replayed {
    /// How many.
    events: u64,
    /// The number of the first one that was not found.
    missing: u64,
}

/// Counts the events up to a number, each once and in order.
fn replay(settings: &Settings, latest: u64, check: &mut Check) -> Result<Replayed, Failure> {
    let started = Follower::start(settings, &[Topic::Events], From::Beginning, None);
    let mut follower = started.map_err(|error| monitor::unreadable(settings, &error))?;
    let without_leader = follower.partitions_without_leader();
    if without_leader > 0 {
        let partitions = counted(without_leader, "partition has", "partitions have");
        return Err(Failure::Failed(format!(
            "{partitions} no leader in Kafka, and their events cannot be read: try again when the brokers are back"
        )));
    }
    let mut held = BTreeMap::<u64, JobEvent>::new();
    let (mut next, mut events, mut last_at) = (1, 0, Instant::now());
    while next <= latest && last_at.elapsed() < PATIENCE {
        match monitor::next(&mut follower, settings, Duration::from_millis(200))? {
            Some(Followed::Event(event)) if event.seq >= next && event.seq <= latest => {
                held.insert(event.seq, event);
                last_at = Instant::now();
            }
            // Only missing events can still come.
            Some(Followed::End) if held.last_key_value().is_some_and(|(&seq, _)| seq == latest) => break,
            Some(_) | None => (),
        }
        while let Some(event) = held.remove(&next) {
            check.count(&event);
            events += 1;
            next += 1;
        }
        if held.len() > MAX_HELD {
            return Err(Failure::Failed(format!("event {next} is not in Kafka, and {MAX_HELD} after it are")));
        }
    }
    for event in held.values() {
        check.count(event);
        events += 1;
    }
    check.end();
    Ok(Replayed { events, missing: next })
}
