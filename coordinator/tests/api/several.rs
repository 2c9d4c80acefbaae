//! Several coordinators over one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{CoordinatorList, CoordinatorRole, Job, LogPage};
use coordinator::config::Config;
use model::{EventKind, JobState, Labels};
use reqwest::StatusCode;
use serde_json::{Value, json};
use store::Shared;
use store::memory::{Memory, MemoryShared, StoreClock};
use store::shared::{Acquired, LEASE};
use uuid::Uuid;

use crate::helpers::{
    EventStream, PATIENCE, TestCoordinator, TestWorker, claim, config, numbered_tasks, pause, problem, read, sleeps,
    start_real_worker, with,
};
use crate::lost_claims::{claim_and_break, complete_and_break};

/// Coordinators over a store in memory, each with its own way to it.
pub(crate) struct Grid {
    pub(crate) coordinators: Vec<TestCoordinator>,
    ways: Vec<MemoryShared>,
    memory: Memory,
    /// Time of the store's clock, in seconds.
    seconds: Arc<AtomicU64>,
}

impl Grid {
    /// Starts them; the first one leads.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, config()).await
    }

    /// Starts coordinators with these settings.
    pub(crate) async fn start_with(count: usize, config: Config) -> Self {
        // No slow moment of the machine ends the leader's trust in its lease.
        Self::start_leased(count, config, Duration::from_hours(1)).await
    }

    /// Starts coordinators with leases of this duration by the store's clock, which stands still unless a test moves it.
    async fn start_leased(count: usize, config: Config, lease: Duration) -> Self {
        let (memory, seconds) = (Memory::new(), Arc::new(AtomicU64::new(0)));
        let time = Arc::clone(&seconds);
        let clock: StoreClock = Arc::new(move || Duration::from_secs(time.load(Ordering::SeqCst)));
        let mut grid = Self { coordinators: Vec::new(), ways: Vec::new(), memory, seconds };
        for number in 0..count {
            let way = grid.memory.shared(Arc::clone(&clock)).with_lease(lease);
            let own = Config {
                coordinator_id: Some(format!("coordinator-{number}")),
                recovery_ms: config.recovery_ms.max(2_500),
                drain_timeout_ms: 2_000,
                ..config.clone()
            };
            grid.coordinators.push(TestCoordinator::start_shared(&way, own));
            grid.ways.push(way);
            grid.until_leads("coordinator-0").await;
        }
        grid.until(|list| list.coordinators.len() == count).await;
        grid
    }

    pub(crate) fn worker(&self, id: &str, slots: u32) -> TestWorker {
        let addresses: Vec<_> = self.coordinators.iter().map(|coordinator| coordinator.internal).collect();
        start_real_worker(&addresses, id, slots, Labels::new())
    }

    async fn list(&self) -> CoordinatorList {
        let last = self.coordinators.last().expect("one");
        read(last.get("/v1/coordinators").await, 200).await
    }

    async fn until(&self, wanted: impl Fn(&CoordinatorList) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.list().await;
            if wanted(&list) {
                return;
            }
            assert!(Instant::now() < deadline, "{list:?}");
            pause().await;
        }
    }

    /// Takes the lease from the leader, which lives, for another coordinator: it has expired by a clock that is far ahead.
    fn give_lease_to(&self, instance: Uuid) {
        let ahead: StoreClock = Arc::new(|| Duration::from_hours(10_000));
        let acquired = self.memory.shared(ahead).leadership().acquire(instance).expect("a store");
        assert!(matches!(acquired, Acquired::Leads(_)), "{acquired:?}");
    }

    async fn until_leads(&self, id: &str) {
        self.until(|list| leaders(list) == [id]).await;
    }
}

/// Settings that give workers time to list their leases to the next leader. It waits all that time: it has just started and
/// may not know every worker.
fn patient() -> Config {
    Config { recovery_ms: 10_000, ..config() }
}

fn leaders(list: &CoordinatorList) -> Vec<&str> {
    let leads = list.coordinators.iter().filter(|coordinator| coordinator.role == CoordinatorRole::Leader);
    leads.map(|coordinator| coordinator.id.as_str()).collect()
}

#[actix_web::test]
async fn each_coordinator_lists_all_of_them_and_one_leads() {
    let grid = Grid::start(3).await;
    for coordinator in &grid.coordinators {
        let list: CoordinatorList = read(coordinator.get("/v1/coordinators").await, 200).await;
        let ids: Vec<_> = list.coordinators.iter().map(|coordinator| coordinator.id.as_str()).collect();
        assert_eq!(ids, ["coordinator-0", "coordinator-1", "coordinator-2"]);
        assert_eq!(leaders(&list), ["coordinator-0"]);
        let addresses = grid.coordinators.iter().map(|coordinator| coordinator.public.to_string());
        assert!(list.coordinators.iter().map(|coordinator| coordinator.public_address.clone()).eq(addresses));
        assert_eq!(coordinator.get("/readyz").await.status(), StatusCode::OK);
    }
    let alone = TestCoordinator::start(config());
    let list: CoordinatorList = read(alone.get("/v1/coordinators").await, 200).await;
    assert_eq!((list.coordinators.len(), leaders(&list).len()), (1, 1));
}

#[actix_web::test]
async fn coordinators_that_have_stopped_are_not_listed_any_more() {
    let mut grid = Grid::start(3).await;
    // The leader, then one that follows.
    for left in [2, 1] {
        grid.coordinators.remove(0).stop().await;
        let list = grid.list().await;
        assert_eq!(list.coordinators.len(), left, "{list:?}");
    }
}

#[actix_web::test]
async fn a_standby_takes_jobs_and_shows_them_and_their_events() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let _worker = grid.worker("one", 1);
    let job = standby.submit(&json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 10_000_000}})).await;
    let mut events = EventStream::open(standby, &format!("/v1/jobs/{}/events", job.id), None).await;
    assert_eq!(events.rest().await, [EventKind::Submitted, EventKind::Started, EventKind::Succeeded]);
    assert_eq!(standby.result(job.id).await["sum"], "3203324994356");
    assert_eq!(standby.job(job.id).await.state, JobState::Succeeded);
    // The number of an event is the same everywhere.
    let mut again = EventStream::open(&grid.coordinators[0], &format!("/v1/jobs/{}/events", job.id), Some(1)).await;
    assert_eq!(again.rest().await, [EventKind::Started, EventKind::Succeeded]);
}

#[actix_web::test]
async fn the_same_key_is_the_same_job_at_every_coordinator() {
    let grid = Grid::start(2).await;
    let submit = async |coordinator: &TestCoordinator, status| -> Job {
        let url = format!("http://{}/v1/jobs", coordinator.public);
        let request = coordinator.client.post(url).header("Idempotency-Key", "one").json(&numbered_tasks(3));
        read(request.send().await.expect("an answer"), status).await
    };
    let first = submit(&grid.coordinators[1], 201).await;
    assert_eq!(submit(&grid.coordinators[0], 200).await.id, first.id);
    assert_eq!(submit(&grid.coordinators[1], 200).await.id, first.id);
}

#[actix_web::test]
async fn a_standby_passes_on_what_only_the_leader_can_do() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let job = standby.submit(&with(numbered_tasks(2), &json!({"priority": 7}))).await.id;
    let claimed = standby.claimed("puller", &json!({"wait_seconds": 30.0, "max_tasks": 1})).await;
    assert_eq!(claimed.job, job);
    standby.complete(&claimed, &json!(["done"])).await;
    // The state `running` is stored a little later.
    standby.job_in(job, JobState::Running).await;
    let explained: Value = read(standby.get(&format!("/v1/jobs/{job}/explain")).await, 200).await;
    assert_eq!(explained["state"], "running");
    let stats: Value = read(standby.get("/v1/stats").await, 200).await;
    assert_eq!(stats["tasks"]["succeeded"], 1, "{stats}");
    assert_eq!(standby.workers().await[0].completed_tasks, 1);
    assert_eq!(standby.act(job, "cancel").await.status(), StatusCode::OK);
    assert_eq!(grid.coordinators[0].job(job).await.state, JobState::Canceled);
    problem(standby.act(job, "resume").await, 409).await;
    let _worker = grid.worker("one", 1);
    let sum: Value = read(standby.get("/sum-of-primes?a=1&b=1000000").await, 200).await;
    assert_eq!(sum["sum"], "37550402023");
    let metrics = standby.get_internal("/metrics").await.text().await.expect("text");
    assert!(
        metrics.contains("divvy_leader 0") && !metrics.contains(r#"forwarded_requests_total{outcome="answered"} 0"#)
    );
}

#[actix_web::test]
async fn what_was_passed_on_goes_no_further() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let request = standby.client.get(format!("http://{}/v1/stats", standby.public)).header("divvy-passed-on", "x");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["divvy-not-leading"], "1");
    problem(response, 503).await;
}

#[actix_web::test]
async fn the_next_coordinator_leads_when_the_leader_stops_and_no_task_runs_twice() {
    let mut grid = Grid::start_with(2, patient()).await;
    let worker = grid.worker("one", 2);
    let job = grid.coordinators[1].submit(&sleeps(1.5, 4)).await.id;
    // Longer than a worker may go unseen before it is no longer asked for its leases.
    grid.coordinators[0].job_when(job, |job| job.tasks.running == 2).await;
    let waiting = {
        let (client, public) = (grid.coordinators[1].client.clone(), grid.coordinators[1].public);
        let url = format!("http://{public}/sum-of-primes?a=1&b=20000000&priority=9");
        tokio::spawn(async move { client.get(url).send().await.expect("an answer") })
    };
    let leader = grid.coordinators.remove(0);
    leader.stop().await;
    grid.until_leads("coordinator-1").await;
    let sum: Value = read(waiting.await.expect("no panic"), 200).await;
    assert_eq!(sum["sum"], "12272577818052");
    let standby = &grid.coordinators[0];
    let done = standby.job_in(job, JobState::Succeeded).await;
    assert_eq!((done.tasks.succeeded, done.attempts), (4, 4), "{done:?}");
    drop(worker);
}

#[actix_web::test]
async fn a_leader_that_cannot_reach_the_store_steps_down_and_comes_back_as_a_standby() {
    let grid = Grid::start_leased(2, patient(), LEASE).await;
    let _worker = grid.worker("one", 1);
    let (old, new) = (&grid.coordinators[0], &grid.coordinators[1]);
    let job = old.submit(&sleeps(0.2, 40)).await.id;
    old.job_when(job, |job| job.tasks.succeeded > 2).await;
    grid.ways[0].cut(true);
    let deadline = Instant::now() + PATIENCE;
    while !old.get_internal("/metrics").await.text().await.expect("text").contains("divvy_leader 0") {
        assert!(Instant::now() < deadline, "it leads on");
        pause().await;
    }
    // The old leader's trust ends before its lease.
    grid.seconds.fetch_add(2, Ordering::SeqCst);
    grid.until_leads("coordinator-1").await;
    assert_eq!(old.get("/v1/jobs").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let done = new.job_in(job, JobState::Succeeded).await;
    assert_eq!((done.tasks.succeeded, done.attempts), (40, 40), "{done:?}");
    grid.ways[0].cut(false);
    let sum: Value = read(old.get("/sum-of-primes?a=1&b=1000000").await, 200).await;
    assert_eq!(sum["sum"], "37550402023");
    assert_eq!(leaders(&grid.list().await), ["coordinator-1"]);
}

#[actix_web::test]
async fn a_standby_that_has_nothing_to_commit_stops_cleanly_while_it_cannot_reach_the_store() {
    let mut grid = Grid::start(2).await;
    grid.ways[1].cut(true);
    let standby = grid.coordinators.remove(1);
    let deadline = Instant::now() + PATIENCE;
    while standby.get("/readyz").await.status() == StatusCode::OK {
        assert!(Instant::now() < deadline, "it does not find out");
        pause().await;
    }
    standby.stop().await;
}

#[actix_web::test]
async fn a_claim_that_waits_gets_its_task_from_the_next_leader() {
    let mut grid = Grid::start(2).await;
    let (client, internal) = (grid.coordinators[1].client.clone(), grid.coordinators[1].internal);
    let body = claim("puller", &json!({"wait_seconds": 30.0}));
    let request = client.post(format!("http://{internal}/v1/worker/claim")).json(&body);
    let claiming = tokio::spawn(async move { request.send().await.expect("an answer") });
    let deadline = Instant::now() + PATIENCE;
    while grid.coordinators[0].workers().await.is_empty() {
        assert!(Instant::now() < deadline, "the claim never came to the leader");
        pause().await;
    }
    grid.coordinators.remove(0).stop().await;
    grid.until_leads("coordinator-1").await;
    let job = grid.coordinators[0].submit(&numbered_tasks(1)).await.id;
    let claimed: Value = read(claiming.await.expect("no panic"), 200).await;
    assert_eq!(claimed["job"], job.0.to_string());
}

#[actix_web::test]
async fn a_claim_that_a_standby_passed_on_and_that_never_came_to_its_worker_is_no_attempt() {
    let grid = Grid::start(2).await;
    let (leader, standby) = (&grid.coordinators[0], &grid.coordinators[1]);
    let job = leader.submit(&with(numbered_tasks(2), &json!({"max_attempts": 1}))).await.id;
    claim_and_break(standby.internal, "only").await;
    leader.job_when(job, |job| job.tasks.running == 0).await;
    let first = standby.claimed("only", &Value::Null).await;
    // The claim that comes with a completion as well.
    complete_and_break(standby.internal, &first).await;
    leader.job_when(job, |job| (job.tasks.succeeded, job.tasks.running) == (1, 0)).await;
    let second = standby.claimed("only", &Value::Null).await;
    standby.complete(&second, &json!(["done"])).await;
    let done = leader.job_in(job, JobState::Succeeded).await;
    assert_eq!(done.attempts, 2, "{done:?}");
}

#[actix_web::test]
async fn a_wait_for_logs_goes_on_at_the_next_leader() {
    let grid = Grid::start(2).await;
    let (old, next) = (&grid.coordinators[0], grid.list().await.coordinators[1].instance);
    let job = old.submit(&numbered_tasks(1)).await.id;
    let epoch = |page: &LogPage| {
        let (epoch, _) = page.cursor.split_once('-').expect("an epoch and a change");
        epoch.parse::<u64>().expect("a number")
    };
    let first: LogPage = read(old.get(&format!("/v1/jobs/{job}/logs")).await, 200).await;
    let path = format!("/v1/jobs/{job}/logs?after={}&wait=60", first.cursor);
    let waiting = async {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = old.get(&path).await;
            // The next leader may take its time to begin.
            if response.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
                return read::<LogPage>(response, 200).await;
            }
            pause().await;
        }
    };
    let taking_over = async {
        // Answered after the request that waits has been sent.
        assert_eq!(old.get("/livez").await.status(), StatusCode::OK);
        grid.give_lease_to(next);
    };
    let (page, ()) = tokio::join!(waiting, taking_over);
    assert!(epoch(&page) > epoch(&first), "{page:?} after {first:?}");
}
