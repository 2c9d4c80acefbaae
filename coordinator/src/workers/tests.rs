use engine::LeaseOrder;
use model::{AttemptId, DEFAULT_CHUNK_SIZE, JobId, JobState, Resources, TaskCounts};
use store::memory::Memory;
use store::{JobRecord, Retention, Store, Verified, WriteError};
use tokio::task::yield_now;
use uuid::Uuid;
use workloads::Report;

use super::*;
use crate::accepting::{Accepting, Proposal, Ready, submit_to};
use crate::clock::now;
use crate::config::Config;
use crate::driver::{Outgoing, Queues};
use crate::job_view;
use crate::submission;

/// Workers without connections, and a store in memory.
struct Grid {
    memory: Memory,
    store: Arc<Store>,
    driver: Arc<Driver>,
    queues: Queues,
    workers: Workers,
}

impl Grid {
    fn new() -> Self {
        let memory = Memory::new();
        let store = Arc::new(memory.store(Retention::KEEP_ALL).expect("a thread"));
        let engine = Engine::new(Config::default().engine_settings(1), now());
        let (driver, queues) = Driver::new(engine, Arc::clone(&store));
        let workers = Workers::new(Duration::from_secs(60), Instant::now());
        workers.begin_term(&driver);
        Self { memory, store, driver, queues, workers }
    }

    /// The heartbeat of a process that takes leases at a port.
    fn beat(&self, port: u16, held: Vec<api::HeldLease>) -> (Registered, HeartbeatAnswer) {
        beat_at(&self.workers, port, held, Instant::now())
    }

    /// A lease of one task of a stored job of so many.
    async fn leased(&self, tasks: u64) -> Box<LeaseOrder> {
        let accepting = self.accepted(tasks).await;
        self.take_up(&accepting)
    }

    /// A stored job of so many tasks.
    async fn accepted(&self, tasks: u64) -> Accepting {
        let params = format!(r#"{{"seconds":0.0,"tasks":{tasks},"tasks_per_lease":1}}"#);
        let body = format!(r#"{{"kind":"sleep","params":{params}}}"#);
        let (job, fingerprints) = submission::read(body.as_bytes(), DEFAULT_CHUNK_SIZE, None).expect("a job");
        let id = Some(JobId(Uuid::from_u128(1)));
        let proposal = Proposal { id, idempotency_key: None, job, fingerprints, reservation: None };
        let accepting = self.driver.view(|engine| proposal.into_new(Ready::Engine(engine))).expect("valid");
        submit_to(&self.store, &accepting.new, &accepting.earlier).await.expect("it is stored");
        accepting
    }

    /// Makes a stored job known; returns its first lease.
    fn take_up(&self, accepting: &Accepting) -> Box<LeaseOrder> {
        self.driver.input(|engine, now| engine.take_up(accepting.new.accepted(), now)).expect("a job");
        match self.queues.outgoing.try_recv() {
            Ok(Outgoing::Lease(order, _)) => order,
            other => panic!("{other:?}"),
        }
    }
}

fn heartbeat(port: u16, held: Vec<api::HeldLease>) -> Heartbeat {
    Heartbeat {
        port,
        boot_id: BootId(Uuid::nil()),
        slots: 1,
        running: 0,
        cpu_load: 0.0,
        free_memory_bytes: 0,
        labels: Labels::new(),
        resources: Resources::default(),
        kinds: vec![JobKind::SLEEP],
        abilities: Labels::new(),
        version: String::new(),
        is_draining: false,
        programs: api::ProgramAbilities::default(),
        held,
        epoch: 1,
    }
}

/// A heartbeat of the worker that comes at `now`.
fn beat_at(workers: &Workers, port: u16, held: Vec<api::HeldLease>, now: Instant) -> (Registered, HeartbeatAnswer) {
    register_at(workers, heartbeat(port, held), now)
}

fn register_at(workers: &Workers, heartbeat: Heartbeat, now: Instant) -> (Registered, HeartbeatAnswer) {
    let port = heartbeat.port;
    let origin = Origin { address: SocketAddr::from(([127, 0, 0, 1], port)), connection: port.into() };
    workers.register(&worker_id(), origin, heartbeat, now).expect("taken")
}

fn worker_id() -> WorkerId {
    "one".parse().expect("a name")
}

fn held(order: &LeaseOrder, state: api::HeldState) -> Vec<api::HeldLease> {
    vec![api::HeldLease {
        attempt: order.attempt,
        job: order.job,
        first: order.tasks.start,
        beyond: order.tasks.end,
        epoch: 1,
        slot: order.slot,
        elapsed_ms: 0,
        state,
    }]
}

#[tokio::test]
async fn a_lease_whose_outcome_waits_for_a_store_that_fails_does_not_expire() {
    let grid = Grid::new();
    grid.beat(1, Vec::new());
    let before_all = now();
    let order = grid.leased(1).await;
    // A renewal from before the lease does not prolong it.
    let renewed = || grid.driver.input(|engine, _| engine.renew(order.attempt, before_all));
    let expires_at = || renewed().expect("it is leased");
    let beat = || grid.beat(1, held(&order, api::HeldState::Finished)).1.deliver;
    let at_first = expires_at();
    assert_eq!(beat(), [order.attempt]);
    assert_eq!(expires_at(), at_first, "it is to be delivered in time");
    grid.memory.set_failing(Some(WriteError::Unavailable("it is away".to_owned())));
    while !grid.driver.is_store_failing() {
        yield_now().await;
    }
    assert_eq!(beat(), [order.attempt]);
    assert!(expires_at() > at_first);
    grid.memory.set_failing(None);
}

#[tokio::test]
async fn a_lease_whose_outcome_waits_at_its_worker_does_not_expire_while_others_wait_for_room() {
    let grid = Grid::new();
    grid.beat(1, Vec::new());
    let before_all = now();
    let order = grid.leased(1).await;
    let expires_at = || grid.driver.input(|engine, _| engine.renew(order.attempt, before_all)).expect("it is leased");
    let at_first = expires_at();
    grid.driver.outcome_waits(AttemptId(Uuid::nil()));
    assert_eq!(grid.beat(1, held(&order, api::HeldState::Finished)).1.deliver, [order.attempt]);
    assert!(expires_at() > at_first);
}

#[tokio::test]
async fn the_figures_of_a_job_go_on_while_nothing_can_be_stored() {
    // A job that goes on, and one that is over.
    for tasks in [3, 1] {
        let grid = Grid::new();
        grid.beat(1, Vec::new());
        let order = grid.leased(tasks).await;
        grid.memory.set_failing(Some(WriteError::Unavailable("it is locked".to_owned())));
        let completed =
            grid.driver.input(|engine, now| engine.complete(order.attempt, Report::default(), Duration::ZERO, now));
        completed.expect("it holds the lease");
        while !grid.driver.is_store_failing() {
            yield_now().await;
        }
        let record = grid.store.job(order.job).await.expect("readable").expect("it is stored");
        assert_eq!(record.tasks_done, 0, "its progress is not stored");
        let shown = grid.driver.view(|engine| job_view::live(record, engine));
        assert_eq!((shown.tasks.succeeded, shown.tasks.total), (1, tasks));
        assert_ne!(shown.attempts, 0, "one has ended");
        grid.memory.set_failing(None);
    }
}

/// Checks that a job's tasks by state add up.
fn add_up(job: &api::Job) -> bool {
    let TaskCounts { total, pending, running, succeeded, failed } = job.tasks;
    pending + running + succeeded + failed == total
}

#[tokio::test]
async fn a_job_whose_tasks_run_is_running_from_the_time_of_its_first_lease_on_before_its_start_is_stored() {
    let grid = Grid::new();
    grid.beat(1, Vec::new());
    let accepting = grid.accepted(1).await;
    grid.memory.hold_commits(true);
    let order = grid.take_up(&accepting);
    let record = grid.store.job(order.job).await.expect("readable").expect("it is stored");
    let shown = || grid.driver.view(|engine| job_view::live(record.clone(), engine));
    let at_first = shown();
    grid.driver
        .input(|engine, now| engine.complete(order.attempt, Report::default(), Duration::ZERO, now))
        .expect("it holds the lease");
    let has_ended = grid.driver.view(|engine| engine.last_figures(order.job).is_some());
    let at_last = shown();
    grid.memory.hold_commits(false);
    assert_eq!((record.state, record.started_at), (JobState::Queued, None), "its start is not stored");
    assert_eq!((at_first.state, at_first.tasks.running), (JobState::Running, 1));
    assert!(at_first.started_at.is_some());
    assert!(has_ended, "its end is not stored");
    assert_eq!((at_last.state, at_last.tasks.succeeded), (JobState::Running, 1));
    assert_eq!(at_last.started_at, at_first.started_at);
}

#[tokio::test]
async fn no_task_of_a_job_runs_whose_pause_or_end_is_stored_before_the_engine_hears_of_it() {
    let grid = Grid::new();
    grid.beat(1, Vec::new());
    let order = grid.leased(3).await;
    let record = grid.store.job(order.job).await.expect("readable").expect("it is stored");
    for state in [JobState::Paused, JobState::Canceled, JobState::Failed] {
        let record = JobRecord { state, ..record.clone() };
        let shown = grid.driver.view(|engine| job_view::live(record, engine));
        assert_eq!((shown.state, shown.tasks.running, shown.tasks.pending), (state, 0, 3));
        assert!(add_up(&shown), "{:?}", shown.tasks);
    }
}

#[tokio::test]
async fn a_job_that_is_over_shows_the_share_of_its_work_and_not_of_its_tasks() {
    let grid = Grid::new();
    let accepting = grid.accepted(4).await;
    let record = grid.store.job(accepting.new.id).await.expect("readable").expect("it is stored");
    let verified = Verified { work_done: Some(700_000_000), ..Verified::default() };
    let failed = JobRecord { state: JobState::Failed, tasks_done: 1, verified, ..record };
    let fraction = |record| job_view::stored(record, DEFAULT_CHUNK_SIZE).progress.fraction;
    assert!((fraction(failed.clone()) - 0.7).abs() < 1e-9);
    assert!((fraction(JobRecord { state: JobState::Running, ..failed }) - 0.25).abs() < 1e-9);
}

#[tokio::test]
async fn a_job_that_does_not_run_has_no_rate_and_no_time_left() {
    let grid = Grid::new();
    grid.beat(1, Vec::new());
    let mut order = grid.leased(1_000).await;
    let start = now();
    for second in 1..=2 {
        let complete = |engine: &mut Engine, _| {
            let at = engine::Now { instant: start.instant + Duration::from_secs(second), ..start };
            let completed = engine.complete(order.attempt, Report::default(), Duration::ZERO, at);
            engine.tick(at);
            completed
        };
        grid.driver.input(complete).expect("it holds the lease");
        let Ok(Outgoing::Lease(next, _)) = grid.queues.outgoing.try_recv() else { panic!("there are more tasks") };
        order = next;
    }
    grid.store.flush().await.expect("room");
    let record = grid.store.job(order.job).await.expect("readable").expect("it is stored");
    let shown = |record| grid.driver.view(|engine| job_view::live(record, engine)).progress;
    let rates = |progress: api::JobProgress| (progress.tasks_per_second.is_some(), progress.seconds_left.is_some());
    assert_eq!(rates(shown(record.clone())), (true, true));
    assert_eq!(rates(shown(JobRecord { state: JobState::Paused, ..record.clone() })), (false, false));
    let mut sweeps = (1..).map(|sweep| start.instant + SWEEP_INTERVAL * sweep);
    sweeps.find(|now| !grid.workers.sweep(*now).is_empty()).expect("the worker is removed");
    assert_eq!(rates(shown(record)), (false, false), "no worker can run it");
}

#[tokio::test]
async fn a_process_that_is_seen_at_another_address_keeps_its_leases_and_gets_the_next_there() {
    let grid = Grid::new();
    assert_eq!(grid.beat(1, Vec::new()).0, Registered::New);
    let order = grid.leased(1).await;
    let (registered, answer) = grid.beat(2, held(&order, api::HeldState::Running));
    assert_eq!((registered, answer.settled.len()), (Registered::Known, 0));
    assert!(grid.driver.view(|engine| engine.is_leased(order.attempt)));
    let view = grid.driver.view(|engine| engine.job(order.job)).expect("it runs");
    assert_eq!(view.attempts, 1, "none has failed");
    let destination = grid.workers.destination(&worker_id(), order.worker).expect("the same registration");
    assert_eq!(destination.address.port(), 2);
}

#[test]
fn a_worker_can_run_what_all_of_its_slots_have_the_memory_for() {
    let start = Instant::now();
    let workers = Workers::new(Duration::from_secs(5), start);
    let resources = Resources { cpus: 8, memory_bytes: 1_000 };
    register_at(&workers, Heartbeat { slots: 4, resources, ..heartbeat(1, Vec::new()) }, start);
    let can_run = |bytes| {
        workers.can_run(JobKind::SLEEP, &Requirements { slot_memory_bytes: Some(bytes), ..Requirements::default() })
    };
    assert_eq!((can_run(250), can_run(251)), (true, false));
}

#[test]
fn a_worker_is_removed_by_the_first_sweep_after_the_time_of_silence() {
    let (silence, start) = (Duration::from_secs(5), Instant::now());
    let workers = Workers::new(silence, start);
    beat_at(&workers, 1, Vec::new(), start);
    let last_beat_at = start + SWEEP_INTERVAL;
    assert!(workers.sweep(last_beat_at).is_empty());
    beat_at(&workers, 1, Vec::new(), last_beat_at);
    let mut sweeps = (1..=20).map(|sweep| last_beat_at + SWEEP_INTERVAL * sweep);
    let removed_at = sweeps.find(|now| !workers.sweep(*now).is_empty()).expect("it is removed");
    assert_eq!(removed_at - last_beat_at, silence + SWEEP_INTERVAL);
}

#[test]
fn no_worker_is_removed_because_its_coordinator_was_away() {
    let (silence, start) = (Duration::from_secs(5), Instant::now());
    let workers = Workers::new(silence, start);
    beat_at(&workers, 1, Vec::new(), start);
    assert!(workers.sweep(start + Duration::from_secs(60)).is_empty());
}
