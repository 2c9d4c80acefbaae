//! A coordinator that stops ends endless requests, and loses nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

use crate::helpers::{EventStream, PATIENCE, TestCoordinator, claim, config, numbered_tasks, pause, problem};

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
