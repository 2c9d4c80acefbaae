//! A coordinator that stops ends endless requests, and loses nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use api::LeaseRequest;

use coordinator::config::Config;
use model::EventKind;
use serde_json::{Value, json};
use store::backend::Reading;
use store::memory::{Memory, MemoryShared, StoreClock};
use store::shared::{Losing, MemberStatus};
use store::{Epoch, FollowerParts, Leadership, LeadershipError, Parts, Shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::helpers::{
    EventStream, PATIENCE, TestCoordinator, claim, compute, config, numbered_tasks, pause, problem, start_worker,
};

/// Much longer than anything here should take.
fn patient() -> Config {
    Config { drain_timeout_ms: 30_000, ..config() }
}

#[actix_web::test]
async fn streams_and_waits_end_at_once() {
    let grid = TestCoordinator::start(patient());
    let job = grid.submit(&numbered_tasks(1)).await;
    let mut of_job = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await;
    let mut of_all = EventStream::open(&grid, "/v1/events?after=0", None).await;
    // Both requests have begun.
    assert_eq!(of_job.next().await.expect("an event").kind, EventKind::Submitted);
    assert_eq!(of_all.next().await.expect("an event").kind, EventKind::Submitted);
    let url = format!("http://{}/v1/jobs/{}/result?wait=60s", grid.public, job.id);
    let result = tokio::spawn(grid.client.get(url).send());
    let url = format!("http://{}/v1/worker/claim", grid.internal);
    let waiting = claim("one", &json!({"wait_seconds": 60, "kinds": ["sleep"]}));
    let claim = tokio::spawn(grid.client.post(url).json(&waiting).send());
    // The last of the two is known when its worker is.
    grid.wait_for_pulling(1).await;
    let stopped_at = Instant::now();
    let data_dir = grid.stop().await;
    assert!(stopped_at.elapsed() < Duration::from_secs(15), "it took {:?}", stopped_at.elapsed());
    assert_eq!((of_job.next().await, of_all.next().await), (None, None));
    // Either it was answered, or it came too late to be.
    if let Ok(answer) = result.await.expect("no panic") {
        problem(answer, 503).await;
    }
    if let Ok(answer) = claim.await.expect("no panic") {
        problem(answer, 503).await;
    }
    let grid = TestCoordinator::start_on(data_dir, config()).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    assert_eq!(claimed.job, job.id);
}

/// Time after which a stopping thread without clients has ended: it looks for clients once a second, and its end cannot be seen
/// from outside.
const THREAD_LOOKS: Duration = Duration::from_millis(1500);

/// Leases that the worker of the next test may still answer.
static ALLOWED: Mutex<u32> = Mutex::new(0);
static IS_ALLOWED: Condvar = Condvar::new();

fn allow(leases: u32) {
    *ALLOWED.lock().expect("no panic") += leases;
    IS_ALLOWED.notify_all();
}

fn compute_once_allowed(lease: LeaseRequest) -> HttpResponse {
    let allowed = IS_ALLOWED.wait_while(ALLOWED.lock().expect("no panic"), |allowed| *allowed == 0);
    *allowed.expect("no panic") -= 1;
    compute(lease)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

/// Asks for the sum of the primes up to 10.
async fn ask(connection: &mut TcpStream) {
    let address = connection.peer_addr().expect("connected");
    let request = format!("GET /sum-of-primes?a=1&b=10 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it listens");
}

async fn answer(mut connection: TcpStream) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).await.expect("an answer");
    text
}

/// Waits until work for so many slots is there.
async fn slots_are_wanted(grid: &TestCoordinator, slots: u32) {
    let line = format!("divvy_wanted_slots {slots}");
    let since = Instant::now();
    while !grid.get_internal("/metrics").await.text().await.expect("text").lines().any(|found| found == line) {
        assert!(since.elapsed() < PATIENCE, "not {slots} jobs");
        pause().await;
    }
}

#[actix_web::test]
async fn a_sum_is_answered_though_the_thread_that_sends_its_lease_ends_first() {
    let grid = TestCoordinator::start(patient());
    let (heartbeat, serving) = start_worker(compute_once_allowed);
    assert_eq!(grid.register("one", &heartbeat).await.status(), 200);
    // Connections go to the two threads in turns: the first one to a thread, the second and the last one to the other.
    let mut last = connect(grid.public).await;
    let mut others = [connect(grid.public).await, connect(grid.public).await, connect(grid.public).await];
    ask(&mut others[0]).await;
    slots_are_wanted(&grid, 1).await;
    ask(&mut others[2]).await;
    slots_are_wanted(&grid, 2).await;
    ask(&mut last).await;
    slots_are_wanted(&grid, 3).await;
    // The thread that reads the outcomes of the first two sums sends the lease of the last one, and then has no client.
    allow(2);
    let [first, unused, second] = others;
    drop(unused);
    for connection in [first, second] {
        let text = answer(connection).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains(r#""sum":"17""#), "{text}");
    }
    let (internal, client) = (grid.internal, grid.client.clone());
    let last = tokio::spawn(answer(last));
    let stopping = tokio::spawn(grid.stop());
    let told_at = Instant::now();
    while !last.is_finished() {
        let url = format!("http://{internal}/worker/register/one");
        // The coordinator may have stopped meanwhile.
        let _ = client.put(url).json(&heartbeat).send().await;
        if told_at.elapsed() > THREAD_LOOKS {
            allow(1);
        }
        pause().await;
    }
    let text = last.await.expect("no panic");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains(r#""sum":"17""#), "{text}");
    stopping.await.expect("no panic");
    serving.abort();
}

#[actix_web::test]
async fn the_store_is_closed_by_then() {
    let grid = TestCoordinator::start(config());
    grid.submit(&numbered_tasks(1)).await;
    let data_dir = grid.stop().await;
    // SQLite deletes its write-ahead log with the last connection.
    assert!(data_dir.path().join("divvy.db").exists());
    assert!(!data_dir.path().join("divvy.db-wal").exists(), "a connection is open");
}

/// A store in memory that reports lost commits once `lost` is notified.
struct LosesCommits {
    way: MemoryShared,
    lost: Arc<Notify>,
}

impl Shared for LosesCommits {
    fn leadership(&self) -> Box<dyn Leadership> {
        self.way.leadership()
    }

    fn lead(&self, epoch: Epoch) -> Result<Parts, LeadershipError> {
        self.way.lead(epoch)
    }

    fn follow(&self) -> Result<FollowerParts, LeadershipError> {
        self.way.follow()
    }

    fn lost(&self) -> Losing {
        let lost = Arc::clone(&self.lost);
        Box::pin(async move {
            lost.notified().await;
            "the store has lost commits".to_owned()
        })
    }

    fn members(&self) -> Reading<'_, Vec<MemberStatus>> {
        self.way.members()
    }
}

#[actix_web::test]
async fn a_coordinator_that_cannot_go_on_ends_its_other_parts() {
    let clock: StoreClock = Arc::new(|| Duration::ZERO);
    let (way, lost) = (Memory::new().shared(clock), Arc::new(Notify::new()));
    let store = LosesCommits { way: way.clone(), lost: Arc::clone(&lost) };
    let grid = TestCoordinator::start_over(Arc::new(store), config());
    let members = async || way.members().await.expect("a store in memory");
    let deadline = Instant::now() + PATIENCE;
    while members().await.is_empty() {
        assert!(Instant::now() < deadline, "it never announced itself");
        pause().await;
    }
    // An idle connection, which a listener that goes on keeps for longer than this test waits.
    let mut idle = TcpStream::connect(grid.public).await.expect("it listens");
    let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", grid.public);
    idle.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = [0; 1024];
    assert_ne!(idle.read(&mut answer).await.expect("an answer"), 0);
    lost.notify_one();
    let error = grid.failure().await;
    assert!(error.to_string().contains("the store has lost commits"), "{error:#}");
    let ended = async { while matches!(idle.read(&mut answer).await, Ok(1..)) {} };
    timeout(PATIENCE, ended).await.expect("the connection ends with the listener");
    while !members().await.is_empty() {
        assert!(Instant::now() < deadline + PATIENCE, "it never left");
        pause().await;
    }
}
