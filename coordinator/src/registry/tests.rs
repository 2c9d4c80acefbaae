//! The registry with time as an argument.

use model::DEFAULT_CHUNK_SIZE;
use store::Store;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::config::Config;

const EVICT_AFTER: Duration = Duration::from_secs(5);

struct Harness {
    registry: Registry,
    now: Instant,
    _data_dir: TempDir,
}

fn heartbeat(boot: u128, slots: u32) -> Heartbeat {
    Heartbeat {
        port: 1,
        boot_id: BootId(Uuid::from_u128(boot)),
        slots,
        running: 0,
        cpu_load: 0.0,
        free_memory_bytes: 0,
        version: String::new(),
        labels: model::Labels::new(),
        resources: model::Resources::default(),
        kinds: vec![model::JobKind::SumOfPrimes],
        is_draining: false,
        held: Vec::new(),
    }
}

fn origin(connection: u64) -> Origin {
    Origin { address: SocketAddr::from(([127, 0, 0, 1], 1)), connection }
}

fn name(id: &str) -> WorkerId {
    id.parse().expect("a worker id")
}

impl Harness {
    fn new() -> Self {
        let now = Instant::now();
        let data_dir = TempDir::new().expect("a directory");
        let config = Config { data_dir: data_dir.path().to_owned(), ..Config::default() };
        let store = Arc::new(Store::open(config.store_settings()).expect("a store"));
        let (grid, _) = Grid::new(config.policy(), DEFAULT_CHUNK_SIZE, Duration::from_secs(10), store);
        Self { registry: Registry::new(Arc::new(grid), EVICT_AFTER, now), now, _data_dir: data_dir }
    }

    fn register(&self, id: &str, boot: u128, slots: u32) -> Registered {
        self.registry.register(&name(id), origin(1), heartbeat(boot, slots), self.now).expect("a valid heartbeat")
    }

    /// Lets time pass second by second, with a sweep each.
    fn wait(&mut self, seconds: u64) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        for _ in 0..seconds {
            self.now += SWEEP_INTERVAL;
            evicted.extend(self.registry.sweep(self.now));
        }
        evicted
    }

    fn fail(&self) {
        let stub = self.take();
        self.registry.note_failure(&stub, self.now);
        self.registry.release(stub);
    }

    /// Lets the worker fail; answers after how many seconds with a heartbeat each it gets work again.
    fn fail_and_count_seconds(&mut self) -> u64 {
        self.fail();
        for seconds in 1.. {
            self.now += SWEEP_INTERVAL;
            self.register("one", 1, 1);
            self.registry.sweep(self.now);
            if self.registry.free_stubs() > 0 {
                return seconds;
            }
        }
        unreachable!("the pause has an end");
    }

    fn take(&self) -> Stub {
        self.registry.next_free().expect("a free slot")
    }
}

#[test]
fn a_worker_has_one_stub_for_each_slot_however_often_it_registers() {
    let grid = Harness::new();
    assert_eq!(grid.register("one", 1, 3), Registered::New);
    assert_eq!(grid.register("one", 1, 3), Registered::Again);
    assert_eq!(grid.registry.free_stubs(), 3);
    let stub = grid.take();
    assert_eq!(grid.register("one", 1, 3), Registered::Again);
    assert_eq!(grid.registry.free_stubs(), 2, "a slot at work is not queued by a heartbeat");
    grid.registry.release(stub);
    assert_eq!(grid.registry.free_stubs(), 3);
}

#[test]
fn a_worker_is_evicted_after_more_than_its_time_of_silence_with_its_stubs() {
    let mut grid = Harness::new();
    grid.register("one", 1, 2);
    assert!(grid.wait(5).is_empty());
    assert_eq!(grid.wait(1)[0].worker_id, name("one"));
    assert_eq!((grid.registry.free_stubs(), grid.registry.snapshot().len()), (0, 0));
}

#[test]
fn a_worker_evicted_while_busy_is_not_queued_when_its_lease_ends() {
    let mut grid = Harness::new();
    grid.register("one", 1, 1);
    let stub = grid.take();
    grid.wait(6);
    grid.registry.release(stub);
    assert_eq!(grid.registry.free_stubs(), 0);
    grid.register("one", 1, 1);
    assert_eq!(grid.registry.free_stubs(), 1, "back, and once only");
}

#[test]
fn a_restarted_worker_replaces_the_old_one_and_its_stubs() {
    let grid = Harness::new();
    grid.register("one", 1, 2);
    let old = grid.take();
    assert_eq!(grid.register("one", 2, 1), Registered::Replaced { had_left: false });
    let old_boot = old.boot_id;
    grid.registry.release(old);
    assert_ne!(grid.take().boot_id, old_boot);
    assert!(grid.registry.next_free().is_none());
}

#[test]
fn a_coordinator_that_was_away_evicts_nobody() {
    let mut grid = Harness::new();
    grid.register("one", 1, 1);
    grid.wait(4);
    grid.now += Duration::from_secs(3600);
    assert!(grid.wait(1).is_empty());
    assert_eq!(grid.wait(1).len(), 1, "silence is counted on where it was left");
}

#[test]
fn a_failed_worker_waits_for_a_heartbeat() {
    let mut grid = Harness::new();
    grid.register("one", 1, 1);
    grid.fail();
    grid.wait(4);
    assert!(grid.registry.next_free().is_none(), "the pause is over, but it has not shown that it lives");
    grid.register("one", 1, 1);
    grid.registry.sweep(grid.now);
    grid.take();
}

#[test]
fn the_pause_of_a_worker_that_fails_grows_until_it_succeeds() {
    let mut grid = Harness::new();
    grid.register("one", 1, 1);
    assert_eq!([(); 7].map(|()| grid.fail_and_count_seconds()), [1, 1, 2, 4, 8, 16, 30]);
    let stub = grid.take();
    assert!(!grid.registry.is_proven(&stub));
    grid.registry.note_success(&stub, 1, Some(Searched { numbers: 1.0, seconds: 1.0 }));
    assert!(grid.registry.is_proven(&stub));
    grid.registry.release(stub);
    assert_eq!(grid.fail_and_count_seconds(), 1);
}

#[test]
fn a_worker_whose_heartbeat_connection_closed_waits_for_its_next_heartbeat() {
    let mut grid = Harness::new();
    grid.register("one", 1, 1);
    grid.register("one", 1, 1);
    grid.registry.note_disconnect(&name("one"), 1, grid.now);
    grid.wait(1);
    assert!(grid.registry.next_free().is_none());
    grid.register("one", 1, 1);
    grid.take();
}

#[test]
fn a_connection_that_closes_after_another_took_over_or_carried_one_heartbeat_shows_nothing() {
    let grid = Harness::new();
    grid.register("one", 1, 1);
    grid.register("one", 1, 1);
    let again = grid.registry.register(&name("one"), origin(2), heartbeat(1, 1), grid.now);
    assert_eq!(again, Ok(Registered::Again));
    grid.registry.note_disconnect(&name("one"), 1, grid.now);
    grid.registry.note_disconnect(&name("one"), 2, grid.now);
    grid.take();
}

#[test]
fn a_suspended_worker_with_stubs_in_the_queue_gets_no_work_and_loses_no_stub() {
    let mut grid = Harness::new();
    grid.register("one", 1, 3);
    let stub = grid.take();
    grid.registry.note_failure(&stub, grid.now);
    grid.registry.release(stub);
    assert!(grid.registry.next_free().is_none());
    grid.wait(1);
    grid.register("one", 1, 3);
    grid.registry.sweep(grid.now);
    assert_eq!(grid.registry.free_stubs(), 3);
}

#[test]
fn a_worker_that_says_goodbye_gets_no_more_work() {
    let mut grid = Harness::new();
    grid.register("one", 1, 2);
    let stub = grid.take();
    let stranger = BootId(Uuid::from_u128(2));
    assert!(!grid.registry.deregister(&name("one"), stranger, grid.now), "another process");
    assert!(grid.registry.deregister(&name("one"), stub.boot_id, grid.now));
    grid.registry.release(stub);
    assert!(grid.registry.next_free().is_none());
    grid.register("one", 1, 2);
    assert!(grid.registry.next_free().is_none(), "a heartbeat does not bring it back");
    let evicted = grid.wait(6);
    assert!(evicted.len() == 1 && evicted[0].had_left);
}

#[test]
fn a_worker_that_drains_is_not_taken_by_a_coordinator_that_does_not_know_it() {
    let grid = Harness::new();
    let leaving = Heartbeat { is_draining: true, ..heartbeat(1, 1) };
    let registered = grid.registry.register(&name("one"), origin(1), leaving, grid.now);
    assert_eq!(registered, Ok(Registered::Leaving));
    assert!(grid.registry.snapshot().is_empty());
}

#[test]
fn the_pool_has_a_bound() {
    let grid = Harness::new();
    for number in 0..MAX_SLOTS / u64::from(MAX_SLOTS_PER_WORKER) {
        grid.register(&format!("worker-{number}"), 1, MAX_SLOTS_PER_WORKER);
    }
    let one_more = grid.registry.register(&name("one-more"), origin(1), heartbeat(1, 1), grid.now);
    assert_eq!(one_more, Err(RegisterError::Full));
}

#[test]
fn a_short_lease_says_little_of_a_workers_speed() {
    let mut speed = Speed::default();
    assert_eq!(speed.numbers_per_second(), None);
    speed.learn(Searched { numbers: 1e9, seconds: 0.1 });
    speed.learn(Searched { numbers: 5e6, seconds: 1e-6 });
    let shown = speed.numbers_per_second().expect("it is known");
    assert!((1e10..1.1e10).contains(&shown), "{shown}");
}
