//! Measures the store in PostgreSQL beside the store in SQLite, with the same work: `cargo run --release -p store-postgres
//! --example database_bench [sqlite|postgres]`. Starts a server of its own with full durability in the directory for temporary
//! files, where SQLite has its file too.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, JobOptions, JobState};
use serde_json::value::RawValue;
use store::shared::{Acquired, LEASE};
use store::{Change, ChangeKind, CompletedAttempt, NewJob, ResultBody, Retention, Shared, Store};
use store_postgres::{PostgresStore, StoreSettings};
use tempfile::TempDir;
use test_postgres::Server;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error>;

/// Busy time of the worker of an attempt.
const BUSY: Duration = Duration::from_millis(100);
/// Attempts from one event of progress to the next: about as many as end in a second of a busy grid.
const PROGRESS_EVERY: usize = 10_000;
/// Runs with and without statistics, and the tasks of each.
const STATISTICS_ROUNDS: usize = 9;
const STATISTICS_TASKS: u64 = 200_000;

/// A store, and the processor time of the server beside this process.
struct MeasuredStore {
    name: &'static str,
    store: Arc<Store>,
    server: Option<(Server, PostgresStore, u32)>,
    _directory: TempDir,
}

fn main() -> Result<(), Failure> {
    let wanted = std::env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("| store | work | a second | CPU of the leader, µs each | CPU of PostgreSQL, µs each |");
    println!("|---|---|---|---|---|");
    for name in ["sqlite", "postgres"] {
        if wanted.as_ref().is_none_or(|wanted| wanted == name) {
            let place = if name == "sqlite" { sqlite()? } else { postgres()? };
            runtime.block_on(measure(&place))?;
        }
    }
    Ok(())
}

fn sqlite() -> Result<MeasuredStore, Failure> {
    let directory = TempDir::new()?;
    let settings = store_sqlite::StoreSettings {
        data_dir: directory.path().to_owned(),
        results_url: None,
        retention: Retention::KEEP_ALL,
    };
    Ok(MeasuredStore {
        name: "SQLite",
        store: Arc::new(store_sqlite::open(settings)?),
        server: None,
        _directory: directory,
    })
}

fn postgres() -> Result<MeasuredStore, Failure> {
    let directory = TempDir::new()?;
    let server = Server::start(&["fsync=on", "full_page_writes=on", "max_wal_size=2GB", "shared_buffers=256MB"]);
    let postmaster = fs::read_to_string(server.data_directory().join("postmaster.pid"))?;
    let pid = postmaster.lines().next().unwrap_or_default().parse()?;
    let results_url = url::Url::from_directory_path(directory.path()).ok();
    let patience = Duration::from_secs(10);
    let settings = StoreSettings { url: server.url("postgres"), results_url, lease: LEASE, patience };
    let shared = store_postgres::open(&settings)?;
    let Acquired::Leads(term) = shared.leadership().acquire(Uuid::new_v4())? else { return Err("it is led".into()) };
    let store = Arc::new(Store::start(shared.lead(term.epoch)?, Retention::KEEP_ALL)?);
    Ok(MeasuredStore { name: "PostgreSQL", store, server: Some((server, shared, pid)), _directory: directory })
}

/// Seconds of processor time of a process and its threads.
fn cpu(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // Ended children are those of the postmaster; a hundred ticks are a second on Linux.
    (ticks(11) + ticks(12)) / 100.0
}

impl MeasuredStore {
    /// Processor time of this process and of the server.
    fn used(&self) -> (f64, f64) {
        let Some((_, _, postmaster)) = &self.server else { return (cpu("self"), 0.0) };
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        (cpu("self"), children.split_whitespace().map(cpu).sum())
    }

    /// Runs work of so many pieces and prints what it took.
    async fn run(
        &self,
        name: &str,
        pieces: u64,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let (since, before) = (Instant::now(), self.used());
        work.await?;
        let (elapsed, after) = (since.elapsed().as_secs_f64(), self.used());
        let each = |before: f64, after: f64| format!("{:.1}", (after - before) * 1e6 / pieces as f64);
        let server = if self.server.is_some() { each(before.1, after.1) } else { "-".to_owned() };
        let rate = pieces as f64 / elapsed;
        println!("| {} | {name} | {rate:.0} | {} | {server} |", self.name, each(before.0, after.0));
        Ok(())
    }
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
        submitted_at: Timestamp::from_second(1_700_000_000 + (number % 1_000_000_000) as i64)?,
    })
}

fn completed(job: JobId, first: u64, with_outcome: bool) -> Result<Change, Failure> {
    let at = Timestamp::from_second(1_700_000_000)?;
    let outcome = CompletedAttempt {
        attempt: AttemptId(Uuid::from_u128(u128::from(first))),
        worker: Some("worker-7c9f-12".to_owned()),
        allocated_at: at,
        running_at: at,
        completed_at: at,
        results: vec![RawValue::from_string(format!("{{\"answer\":{first}}}"))?],
    };
    let outcome = with_outcome.then_some(outcome);
    Ok(Change { job, at, kind: ChangeKind::Completed { tasks: first..first + 1, value: 1, busy: BUSY, outcome } })
}

async fn measure(place: &MeasuredStore) -> Result<(), Failure> {
    for (number, (name, tasks, with_outcome)) in
        [("tasks, batched, with outcomes", 400_000, true), ("tasks, batched, without", 1_000_000, false)]
            .into_iter()
            .enumerate()
    {
        let mut new = job(number as u128 + 1, tasks)?;
        if with_outcome {
            (new.kind, new.is_individual) = (JobKind::TASKS, true);
        }
        let job = new.id;
        place.store.submit(new).await?;
        // As eight workers would, each with a lease at hand, no two in order.
        let order = (0..tasks / 8).flat_map(|round| [5, 0, 3, 7, 1, 6, 2, 4].map(|n| round * 8 + n));
        let changes = order.map(|task| completed(job, task, with_outcome)).collect::<Result<Vec<_>, _>>()?;
        place.run(name, tasks, complete(&place.store, changes, true)).await?;
        assert_eq!(place.store.job(job).await?.map(|job| job.tasks_done), Some(tasks));
    }
    for (place_of_case, (clients, each)) in [(1_u64, 500_u64), (64, 300), (500, 100)].into_iter().enumerate() {
        let name = format!("submissions, {clients} at a time");
        let first = (place_of_case as u128 + 1) * 1_000_000_000;
        place.run(&name, clients * each, submit(&place.store, first, clients, each)).await?;
    }
    place.run("small jobs, whole lives, 100 at a time", 20_000, lives(&place.store)).await?;
    statistics(place).await
}

/// Measures the cost of statistics in a batch. Outcomes are counted with the next event of their job, so the same outcomes
/// without any event are the work without statistics; the difference includes the cost of an event and is an upper bound.
async fn statistics(place: &MeasuredStore) -> Result<(), Failure> {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..STATISTICS_ROUNDS {
        // In turns, and each first as often as the other.
        for turn in 0..2_usize {
            let is_counted = (turn + round) % 2 == 0;
            let mut new = job(50_000_000_000 + (2 * round + turn) as u128, STATISTICS_TASKS)?;
            (new.kind, new.is_individual) = (JobKind::TASKS, true);
            let id = new.id;
            place.store.submit(new).await?;
            let changes = (0..STATISTICS_TASKS).map(|task| completed(id, task, true));
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            let since = Instant::now();
            complete(&place.store, changes, is_counted).await?;
            rates[usize::from(is_counted)].push(STATISTICS_TASKS as f64 / since.elapsed().as_secs_f64());
        }
    }
    let [without, with] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    for (name, rate) in [("events and statistics", with), ("neither", without)] {
        println!("| {} | tasks, batched, with {name} | {rate:.0} | - | - |", place.name);
    }
    println!("| {} | what events and statistics cost, % | {:.1} | - | - |", place.name, 100.0 * (1.0 - with / without));
    Ok(())
}

/// With events of progress where the tasks are to be counted.
async fn complete(store: &Store, changes: Vec<Change>, is_counted: bool) -> Result<(), Failure> {
    for (number, change) in changes.into_iter().enumerate() {
        let (job, at) = (change.job, change.at);
        store.record(change);
        if is_counted && number.is_multiple_of(PROGRESS_EVERY) {
            store.record(Change { job, at, kind: ChangeKind::Progress });
        }
    }
    Ok(store.flush().await?)
}

async fn submit(store: &Arc<Store>, first: u128, clients: u64, each: u64) -> Result<(), Failure> {
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..each {
                    let Ok(new) = job(first + u128::from(client * each + number), 10) else { return };
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
    Ok(())
}

/// Small jobs from their submission to their end: every change but one is an event.
async fn lives(store: &Arc<Store>) -> Result<(), Failure> {
    let clients: Vec<_> = (0..100_u128)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..200 {
                    let Ok(new) = job(10_000_000_000 + client * 1000 + number, 1) else { return };
                    let (id, at) = (new.id, new.submitted_at);
                    let Ok(done) = completed(id, 0, false) else { return };
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
    Ok(store.flush().await?)
}
