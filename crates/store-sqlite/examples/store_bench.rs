//! Measures the store: `cargo run --release -p store-sqlite --example store_bench [directory [part]]`. The parts are latency,
//! leases, statistics, jobs, lives, payloads and tags. To compare two builds, run them in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, JobOptions, JobState};
use serde_json::value::RawValue;
use store::{Change, ChangeKind, CompletedAttempt, JobFilter, NewJob, ResultBody, Retention, Store};
use store_sqlite::StoreSettings;
use uuid::Uuid;

/// Busy time of the worker of an attempt.
const BUSY: Duration = Duration::from_millis(100);

/// Attempts from one event of progress to the next: about as many as end in a second of a busy grid.
const PROGRESS_EVERY: usize = 10_000;

/// Runs with and without statistics, and the tasks of each.
const STATISTICS_ROUNDS: usize = 9;
const STATISTICS_TASKS: u64 = 200_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(parent)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    runtime.block_on(async {
        let part = std::env::args().nth(2);
        let place = |name: &str| {
            let is_wanted = part.as_ref().is_none_or(|part| part == name);
            is_wanted.then(|| directory.path().join(name))
        };
        if let Some(place) = place("latency") {
            latency(&place).await?;
        }
        if let Some(place) = place("leases") {
            leases(&place).await?;
        }
        if let Some(place) = place("statistics") {
            statistics(&place).await?;
        }
        if let Some(place) = place("jobs") {
            many_jobs(&place).await?;
        }
        if let Some(place) = place("lives") {
            lives(&place).await?;
        }
        if let Some(place) = place("payloads") {
            many_payloads(&place).await?;
        }
        if let Some(place) = place("tags") {
            many_tags(&place).await?;
        }
        Ok(())
    })
}

fn open(data_dir: &Path) -> Result<Store, Failure> {
    Ok(store_sqlite::open(StoreSettings {
        data_dir: data_dir.to_owned(),
        results_url: None,
        retention: Retention::KEEP_ALL,
    })?)
}

fn job(number: u128, tasks: u64) -> Result<NewJob, Failure> {
    let mut options = JobOptions::default();
    options.tags.insert("user".to_owned(), format!("user-{}", number % 1000));
    Ok(NewJob {
        id: JobId(Uuid::from_u128(number)),
        kind: JobKind::SUM_OF_PRIMES,
        is_individual: false,
        payloads: model::Payloads::default(),
        options,
        params: RawValue::from_string(r#"{"a":10,"b":9999999}"#.to_owned())?,
        tasks,
        fingerprint: [0; 32],
        idempotency_key: None,
        submitted_at: Timestamp::from_second(1_700_000_000 + number as i64)?,
    })
}

fn payload_job(number: u128, tasks: u64) -> Result<NewJob, Failure> {
    let mut new = job(number, tasks)?;
    (new.kind, new.is_individual) = (JobKind::TASKS, true);
    new.payloads = (0..tasks).map(|n| RawValue::from_string(n.to_string())).collect::<Result<_, _>>()?;
    new.params = RawValue::from_string(format!(r#"{{"count":{tasks}}}"#))?;
    Ok(new)
}

fn completed(job: JobId, first: u64, count: u64, with_outcome: bool) -> Result<Change, Failure> {
    let answer = || RawValue::from_string(format!("{{\"answer\":{first}}}"));
    let at = Timestamp::from_second(1_700_000_000)?;
    let outcome = CompletedAttempt {
        attempt: AttemptId(Uuid::from_u128(u128::from(first))),
        worker: Some("worker-7c9f-12".to_owned()),
        allocated_at: at,
        running_at: at,
        completed_at: at,
        results: if with_outcome { (0..count).map(|_| answer()).collect::<Result<_, _>>()? } else { Vec::new() },
    };
    let kind = ChangeKind::Completed {
        tasks: first..first + count,
        value: 1,
        busy: BUSY,
        outcome: with_outcome.then_some(outcome),
    };
    Ok(Change { job, at, kind })
}

async fn latency(data_dir: &Path) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let mut latencies = Vec::new();
    for number in 1..=500 {
        let new = job(number, 10)?;
        let since = Instant::now();
        store.submit(new).await?;
        latencies.push(since.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    latencies.sort();
    println!("submit, one at a time: p50 {:?}, p99 {:?}, max {:?}", latencies[249], latencies[494], latencies[499]);
    let store = std::sync::Arc::new(store);
    let since = Instant::now();
    let clients: Vec<_> = (1..=64_u128)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let Ok(new) = job(client * 1000 + number, 10) else { return };
                    if let Err(error) = store.submit(new).await {
                        println!("{error}");
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await?;
    }
    println!("submit, 64 at a time: {:.0} a second", 6400.0 / since.elapsed().as_secs_f64());
    Ok(())
}

async fn leases(data_dir: &Path) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let cases = [
        ("1 task, with outcomes", 1, 600_000, true),
        ("1 task, without", 1, 2_000_000, false),
        ("1000 tasks, with outcomes", 1000, 2000, true),
        ("1000 tasks, without", 1000, 1_000_000, false),
    ];
    for (number, (name, size, leases, with_outcome)) in cases.into_iter().enumerate() {
        let new = if with_outcome {
            payload_job(number as u128, size * leases)?
        } else {
            job(number as u128, size * leases)?
        };
        let job = new.id;
        store.submit(new).await?;
        // As eight workers would, each with a lease at hand, no two in order.
        let order: Vec<_> = (0..leases / 8).flat_map(|round| [5, 0, 3, 7, 1, 6, 2, 4].map(|n| round * 8 + n)).collect();
        let changes: Vec<_> =
            order.iter().map(|lease| completed(job, lease * size, size, with_outcome)).collect::<Result<_, _>>()?;
        let since = Instant::now();
        for (number, change) in changes.into_iter().enumerate() {
            let at = change.at;
            store.record(change);
            if number.is_multiple_of(PROGRESS_EVERY) {
                store.record(Change { job, at, kind: ChangeKind::Progress });
            }
        }
        let queued = since.elapsed();
        store.flush().await?;
        let rate = order.len() as f64 / since.elapsed().as_secs_f64();
        println!(
            "leases of {name}: {rate:.0} a second, {:.0} tasks a second (queued in {queued:?})",
            rate * size as f64
        );
        assert_eq!(store.job(job).await?.map(|job| job.tasks_done), Some(leases * size));
    }
    Ok(())
}

/// Measures the cost of statistics in a batch. Outcomes are counted with the next event of their job, so the same outcomes
/// without any event are the work without statistics; the difference includes the cost of an event and is an upper bound.
async fn statistics(data_dir: &Path) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..STATISTICS_ROUNDS {
        // In turns, and each first as often as the other.
        for turn in 0..2_usize {
            let is_counted = (turn + round) % 2 == 0;
            let new = payload_job(1 + (2 * round + turn) as u128, STATISTICS_TASKS)?;
            let job = new.id;
            store.submit(new).await?;
            let changes = (0..STATISTICS_TASKS).map(|task| completed(job, task, 1, true));
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            let since = Instant::now();
            for (number, change) in changes.into_iter().enumerate() {
                let at = change.at;
                store.record(change);
                if is_counted && number.is_multiple_of(PROGRESS_EVERY) {
                    store.record(Change { job, at, kind: ChangeKind::Progress });
                }
            }
            store.flush().await?;
            rates[usize::from(is_counted)].push(STATISTICS_TASKS as f64 / since.elapsed().as_secs_f64());
        }
    }
    let [without, with] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!(
        "tasks with outcomes, medians of {STATISTICS_ROUNDS}: {with:.0} a second with events and statistics, {without:.0} \
         without either: {:.1} % less",
        100.0 * (1.0 - with / without)
    );
    Ok(())
}

async fn many_jobs(data_dir: &Path) -> Result<(), Failure> {
    let store = std::sync::Arc::new(open(data_dir)?);
    let since = Instant::now();
    let clients: Vec<_> = (0..100_u128)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..1000 {
                    let Ok(new) = job(client * 1000 + number, 100) else { return };
                    let Ok(change) = completed(new.id, 10, 10, false) else { return };
                    if let Err(error) = store.submit(new).await {
                        println!("{error}");
                    }
                    store.record(change);
                }
            })
        })
        .collect();
    for client in clients {
        client.await?;
    }
    store.flush().await?;
    println!("100,000 jobs submitted by 100 clients in {:?}", since.elapsed());
    drop(store);
    let since = Instant::now();
    let store = open(data_dir)?;
    let opened = since.elapsed();
    let since = Instant::now();
    let unfinished = store.unfinished().await?;
    println!("opened in {opened:?}, unfinished() of {} jobs in {:?}", unfinished.len(), since.elapsed());
    let tag = ("user".to_owned(), Some("user-7".to_owned()));
    for filter in [
        JobFilter::default(),
        JobFilter { tags: vec![tag.clone()], ..JobFilter::default() },
        JobFilter { tags: vec![tag], states: vec![model::JobState::Failed], ..JobFilter::default() },
        JobFilter { tags: vec![("user".to_owned(), None)], kind: Some(JobKind::TASKS), ..JobFilter::default() },
    ] {
        let since = Instant::now();
        let found = store.jobs(filter.clone(), None, 100).await?;
        println!("jobs({filter:?}): {} in {:?}", found.len(), since.elapsed());
    }
    Ok(())
}

/// Small jobs from their submission to their end: every change but one is an event.
async fn lives(data_dir: &Path) -> Result<(), Failure> {
    let store = std::sync::Arc::new(open(data_dir)?);
    let since = Instant::now();
    let clients: Vec<_> = (0..100_u128)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..500 {
                    let Ok(new) = job(client * 1000 + number, 1) else { return };
                    let (id, at) = (new.id, new.submitted_at);
                    let Ok(done) = completed(id, 0, 1, false) else { return };
                    if let Err(error) = store.submit(new).await {
                        println!("{error}");
                    }
                    let result = RawValue::from_string("1".to_owned()).ok().map(ResultBody::Inline);
                    store.record(Change { job: id, at, kind: ChangeKind::Started });
                    store.record(done);
                    let end = ChangeKind::Ended { state: JobState::Succeeded, result, error: None };
                    store.record(Change { job: id, at, kind: end });
                }
            })
        })
        .collect();
    for client in clients {
        client.await?;
    }
    store.flush().await?;
    println!("small jobs, whole lives: {:.0} a second", 50_000.0 / since.elapsed().as_secs_f64());
    Ok(())
}

/// The worst filter: every tag has many jobs, and no job has all of them.
async fn many_tags(data_dir: &Path) -> Result<(), Failure> {
    let store = std::sync::Arc::new(open(data_dir)?);
    let tag = |tag: usize, value: u128| (format!("tag-{tag:02}"), value.to_string());
    let mut submissions = Vec::new();
    for number in 0..50_000 {
        let mut new = job(number, 1)?;
        new.options.tags = (0..32).map(|place| tag(place, if place < 30 { 0 } else { number % 2 })).collect();
        let store = store.clone();
        submissions.push(tokio::spawn(async move { store.submit(new).await.is_ok() }));
    }
    for submission in submissions {
        assert!(submission.await?);
    }
    let tags = (0..32).map(|place| tag(place, if place < 31 { 0 } else { 1 })).map(|(name, value)| (name, Some(value)));
    let filter = JobFilter { tags: tags.collect(), ..JobFilter::default() };
    let since = Instant::now();
    let found = store.jobs(filter, None, 100).await?;
    println!("32 tags that no job has all of, 50,000 jobs: {} in {:?}", found.len(), since.elapsed());
    Ok(())
}

async fn many_payloads(data_dir: &Path) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let new = payload_job(1, 10_000_000)?;
    let job = new.id;
    let before = memory_now()?;
    let since = Instant::now();
    store.submit(new).await?;
    println!(
        "10,000,000 payloads submitted in {:?}, {} more MiB at the peak",
        since.elapsed(),
        peak_memory()? - before
    );
    let since = Instant::now();
    for task in 0..1_000_000 {
        store.payloads(job, task..task + 1).await?;
    }
    println!("payloads one by one: {:.0} a second", 1e6 / since.elapsed().as_secs_f64());
    for first in (0..10_000_000).step_by(1000) {
        store.record(completed(job, first, 1000, true)?);
    }
    store.flush().await?;
    let before = memory_now()?;
    let since = Instant::now();
    store.compose_result(job).await?;
    println!("result of 10,000,000 tasks in {:?}, {} more MiB at the peak", since.elapsed(), peak_memory()? - before);
    Ok(())
}

/// The memory that the process has, in MiB, from which its peak counts anew.
fn memory_now() -> Result<u64, Failure> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    peak_memory()
}

/// The most memory that the process had, in MiB.
fn peak_memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}
