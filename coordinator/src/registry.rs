//! The workers that are registered now, and a queue with one stub for each of their free slots.
//!
//! A heartbeat touches the last-seen map and nothing else. A [`Stub`] is made once per slot and registration and cannot
//! be copied, so that a slot is never in the queue twice; one whose registration is gone is dropped where it is found.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::{DashMap, Entry};
use protocol::{BootId, Heartbeat, MAX_SLOTS_PER_WORKER, WorkerId, WorkerState};
use scheduler::WorkerKey;

/// Slots of all workers together; the bound of the queue of stubs.
const MAX_SLOTS: u64 = 65_536;

/// Pause of a worker after its first failure in a row; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The right to give one slot of one registration a lease.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) worker_id: WorkerId,
    pub(crate) key: WorkerKey,
    pub(crate) boot_id: BootId,
    pub(crate) address: SocketAddr,
}

/// What a heartbeat changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The worker was known.
    Again { key: WorkerKey },
    /// The worker is new, or another process under a known name: what `replaced` held is lost.
    New { key: WorkerKey, slots: u32, replaced: Option<WorkerKey> },
}

/// Why a heartbeat is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("port must not be 0")]
    NoPort,
    #[error("slots must be from 1 to {MAX_SLOTS_PER_WORKER}")]
    Slots,
    #[error("the workers have {MAX_SLOTS} slots together already")]
    Full,
}

/// One registered worker.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) key: WorkerKey,
    pub(crate) address: SocketAddr,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) last_seen_at: Instant,
    pub(crate) completed_tasks: u64,
    /// Numbers searched a second on one slot, lately.
    pub(crate) speed: Option<f64>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug)]
enum Standing {
    Ready { failures: u32 },
    Suspended { failures: u32, since: Instant, until: Instant, stubs: u32 },
    Draining,
}

/// The last-seen map and the queue of stubs.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: DashMap<WorkerId, Registration>,
    free: (async_channel::Sender<Stub>, async_channel::Receiver<Stub>),
    last_key: AtomicU64,
    evict_after: Duration,
    last_sweep_at: Mutex<Instant>,
}

/// How often [`Registry::sweep`] is to be called.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Registration {
    pub(crate) fn state(&self) -> WorkerState {
        match self.standing {
            Standing::Ready { .. } => WorkerState::Ready,
            Standing::Suspended { .. } => WorkerState::Suspended,
            Standing::Draining => WorkerState::Draining,
        }
    }

    fn stub(&self, worker_id: &WorkerId) -> Stub {
        let (key, boot_id, address) = (self.key, self.heartbeat.boot_id, self.address);
        Stub { worker_id: worker_id.clone(), key, boot_id, address }
    }
}

impl Registry {
    pub(crate) fn new(evict_after: Duration, now: Instant) -> Self {
        Self {
            workers: DashMap::new(),
            free: async_channel::unbounded(),
            last_key: AtomicU64::new(0),
            evict_after,
            last_sweep_at: Mutex::new(now),
        }
    }

    /// Notes that a worker lives at `address`. A new one has its stubs queued by [`Self::admit`].
    pub(crate) fn register(
        &self,
        worker_id: WorkerId,
        address: SocketAddr,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<Registered, RegisterError> {
        check(&heartbeat)?;
        let slots_now = self.slots();
        let mut entry = match self.workers.entry(worker_id) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let registration = self.new_registration(slots_now, address, heartbeat, now)?;
                let (key, slots) = (registration.key, registration.heartbeat.slots);
                entry.insert(registration);
                return Ok(Registered::New { key, slots, replaced: None });
            }
        };
        let known = entry.get_mut();
        if is_same_run(known, address, &heartbeat) {
            (known.heartbeat, known.last_seen_at) = (heartbeat, now);
            return Ok(Registered::Again { key: known.key });
        }
        let registration = self.new_registration(slots_now, address, heartbeat, now)?;
        let (key, slots) = (registration.key, registration.heartbeat.slots);
        let replaced = Some(entry.insert(registration).key);
        Ok(Registered::New { key, slots, replaced })
    }

    /// Queues the stubs of a new worker, once the scheduler knows it.
    pub(crate) fn admit(&self, worker_id: &WorkerId, key: WorkerKey) {
        let Some(registration) = self.current(worker_id, key) else { return };
        for _ in 0..registration.heartbeat.slots {
            self.queue(registration.stub(worker_id));
        }
        self.drop_stale_stubs();
    }

    /// Stops giving leases to a worker that is going; its registration stays until it falls silent.
    pub(crate) fn deregister(&self, worker_id: &WorkerId, boot_id: BootId) -> Option<WorkerKey> {
        let mut registration = self.workers.get_mut(worker_id)?;
        if registration.heartbeat.boot_id != boot_id {
            return None;
        }
        registration.standing = Standing::Draining;
        Some(registration.key)
    }

    /// The next free slot of a worker that is there and ready.
    pub(crate) fn next_free(&self) -> Option<Stub> {
        while let Ok(stub) = self.free.1.try_recv() {
            if self.is_ready(&stub) {
                return Some(stub);
            }
            self.release(stub);
        }
        None
    }

    /// Slots in the queue, stale ones included.
    pub(crate) fn free_stubs(&self) -> usize {
        self.free.1.len()
    }

    /// Whether the slot's worker is there and may get a lease.
    pub(crate) fn is_ready(&self, stub: &Stub) -> bool {
        let registration = self.workers.get(&stub.worker_id);
        registration.is_some_and(|found| found.key == stub.key && matches!(found.standing, Standing::Ready { .. }))
    }

    /// Puts a slot back that has nothing to do. One of a suspended worker waits for the end of the pause.
    pub(crate) fn release(&self, stub: Stub) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        if registration.key != stub.key {
            return;
        }
        match &mut registration.standing {
            Standing::Ready { .. } => self.queue(stub),
            Standing::Suspended { stubs, .. } => *stubs += 1,
            Standing::Draining => (),
        }
    }

    /// Counts a completed lease, which ends a row of failures.
    pub(crate) fn note_success(&self, stub: &Stub, tasks: u64, speed: f64) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        if registration.key != stub.key {
            return;
        }
        registration.completed_tasks += tasks;
        registration.speed = Some(registration.speed.map_or(speed, |earlier| f64::midpoint(earlier, speed)));
        if let Standing::Ready { failures } = &mut registration.standing {
            *failures = 0;
        }
    }

    /// Suspends a worker whose lease failed: it gets nothing until it has shown that it lives and a pause has passed,
    /// which grows with every failure in a row.
    pub(crate) fn note_failure(&self, stub: &Stub, now: Instant) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        let Standing::Ready { failures } = registration.standing else { return };
        if registration.key == stub.key {
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
            let failures = failures + 1;
            registration.standing = Standing::Suspended { failures, since: now, until: now + pause, stubs: 0 };
        }
    }

    /// Suspends a worker whose heartbeat connection closed until its next heartbeat: its process is probably gone, and
    /// where its address went with it, a lease sent there would wait for the connect timeout.
    pub(crate) fn note_disconnect(&self, worker_id: &WorkerId, key: WorkerKey, now: Instant) {
        let Some(mut registration) = self.workers.get_mut(worker_id) else { return };
        if registration.key == key
            && let Standing::Ready { failures } = registration.standing
        {
            registration.standing = Standing::Suspended { failures, since: now, until: now, stubs: 0 };
        }
    }

    /// Removes who was silent for too long and ends pauses that are over; answers who was removed.
    ///
    /// A sweep that comes late means that this process was away, not the workers: they get that time credited.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<(WorkerId, WorkerKey, WorkerState)> {
        let away = self.time_away(now);
        let mut evicted = Vec::new();
        self.workers.retain(|worker_id, registration| {
            registration.last_seen_at = (registration.last_seen_at + away).min(now);
            let silent = now.saturating_duration_since(registration.last_seen_at);
            if silent > self.evict_after {
                evicted.push((worker_id.clone(), registration.key, registration.state()));
                return false;
            }
            self.end_pause(worker_id, registration, now);
            true
        });
        if !evicted.is_empty() {
            self.drop_stale_stubs();
        }
        evicted
    }

    /// All registrations, by name.
    pub(crate) fn snapshot(&self) -> Vec<(WorkerId, Registration)> {
        let mut workers: Vec<_> =
            self.workers.iter().map(|worker| (worker.key().clone(), worker.value().clone())).collect();
        workers.sort_by(|(one, _), (other, _)| one.cmp(other));
        workers
    }

    fn new_registration(
        &self,
        slots_now: u64,
        address: SocketAddr,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<Registration, RegisterError> {
        if slots_now + u64::from(heartbeat.slots) > MAX_SLOTS {
            return Err(RegisterError::Full);
        }
        Ok(Registration {
            key: WorkerKey(self.last_key.fetch_add(1, Ordering::Relaxed) + 1),
            address,
            heartbeat,
            last_seen_at: now,
            completed_tasks: 0,
            speed: None,
            standing: Standing::Ready { failures: 0 },
        })
    }

    fn slots(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.heartbeat.slots)).sum()
    }

    fn current(&self, worker_id: &WorkerId, key: WorkerKey) -> Option<Registration> {
        self.workers.get(worker_id).filter(|registration| registration.key == key).map(|found| found.clone())
    }

    fn queue(&self, stub: Stub) {
        // The channel is never closed: this holds both ends.
        let _ = self.free.0.try_send(stub);
    }

    fn end_pause(&self, worker_id: &WorkerId, registration: &mut Registration, now: Instant) {
        let Standing::Suspended { failures, since, until, stubs } = registration.standing else { return };
        if registration.last_seen_at > since && until <= now {
            registration.standing = Standing::Ready { failures };
            for _ in 0..stubs {
                self.queue(registration.stub(worker_id));
            }
        }
    }

    /// Without this a worker that restarts again and again would fill the queue of a coordinator without jobs.
    fn drop_stale_stubs(&self) {
        for _ in 0..self.free_stubs() {
            let Ok(stub) = self.free.1.try_recv() else { return };
            if self.current(&stub.worker_id, stub.key).is_some() {
                self.queue(stub);
            }
        }
    }

    fn time_away(&self, now: Instant) -> Duration {
        let mut last_sweep_at = self.last_sweep_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since_last = now.saturating_duration_since(*last_sweep_at);
        *last_sweep_at = now;
        if since_last > 2 * SWEEP_INTERVAL { since_last - SWEEP_INTERVAL } else { Duration::ZERO }
    }
}

fn check(heartbeat: &Heartbeat) -> Result<(), RegisterError> {
    if heartbeat.port == 0 {
        return Err(RegisterError::NoPort);
    }
    if !(1..=MAX_SLOTS_PER_WORKER).contains(&heartbeat.slots) {
        return Err(RegisterError::Slots);
    }
    Ok(())
}

fn is_same_run(registration: &Registration, address: SocketAddr, heartbeat: &Heartbeat) -> bool {
    let known = &registration.heartbeat;
    known.boot_id == heartbeat.boot_id && known.slots == heartbeat.slots && registration.address == address
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const EVICT_AFTER: Duration = Duration::from_secs(5);

    struct Harness {
        registry: Registry,
        now: Instant,
    }

    fn heartbeat(boot: u128, slots: u32) -> Heartbeat {
        let boot_id = BootId(Uuid::from_u128(boot));
        Heartbeat { port: 1, boot_id, slots, running: 0, cpu_load: 0.0, free_memory_bytes: 0, version: String::new() }
    }

    fn name(id: &str) -> WorkerId {
        id.parse().expect("a worker id")
    }

    impl Harness {
        fn new() -> Self {
            let now = Instant::now();
            Self { registry: Registry::new(EVICT_AFTER, now), now }
        }

        fn register(&self, id: &str, boot: u128, slots: u32) -> Registered {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let registered = self.registry.register(name(id), address, heartbeat(boot, slots), self.now);
            let registered = registered.expect("a valid heartbeat");
            if let Registered::New { key, .. } = registered {
                self.registry.admit(&name(id), key);
            }
            registered
        }

        /// Lets time pass second by second, with a sweep each.
        fn wait(&mut self, seconds: u64) -> Vec<WorkerKey> {
            let mut evicted = Vec::new();
            for _ in 0..seconds {
                self.now += SWEEP_INTERVAL;
                evicted.extend(self.registry.sweep(self.now).into_iter().map(|(_, key, _)| key));
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
        assert!(matches!(grid.register("one", 1, 3), Registered::New { slots: 3, replaced: None, .. }));
        assert_eq!(grid.register("one", 1, 3), Registered::Again { key: WorkerKey(1) });
        assert_eq!(grid.registry.free_stubs(), 3);
        let stub = grid.take();
        assert_eq!(grid.register("one", 1, 3), Registered::Again { key: WorkerKey(1) });
        assert_eq!(grid.registry.free_stubs(), 2, "a slot at work is not queued by a heartbeat");
        grid.registry.release(stub);
        assert_eq!(grid.registry.free_stubs(), 3);
    }

    #[test]
    fn a_worker_is_evicted_after_more_than_its_time_of_silence_with_its_stubs() {
        let mut grid = Harness::new();
        grid.register("one", 1, 2);
        assert_eq!(grid.wait(5), []);
        assert_eq!(grid.wait(1), [WorkerKey(1)]);
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
        let Registered::New { key, replaced, .. } = grid.register("one", 2, 1) else { panic!("a new process") };
        assert_eq!(replaced, Some(old.key));
        grid.registry.release(old);
        assert_eq!(grid.take().key, key);
        assert!(grid.registry.next_free().is_none());
    }

    #[test]
    fn a_coordinator_that_was_away_evicts_nobody() {
        let mut grid = Harness::new();
        grid.register("one", 1, 1);
        grid.wait(4);
        grid.now += Duration::from_secs(3600);
        assert_eq!(grid.wait(1), []);
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
        grid.registry.note_success(&stub, 1, 1.0);
        grid.registry.release(stub);
        assert_eq!(grid.fail_and_count_seconds(), 1);
    }

    #[test]
    fn a_worker_whose_heartbeat_connection_closed_waits_for_its_next_heartbeat() {
        let mut grid = Harness::new();
        grid.register("one", 1, 1);
        grid.registry.note_disconnect(&name("one"), WorkerKey(1), grid.now);
        grid.wait(1);
        assert!(grid.registry.next_free().is_none());
        grid.register("one", 1, 1);
        grid.registry.sweep(grid.now);
        grid.take();
        grid.registry.note_disconnect(&name("one"), WorkerKey(7), grid.now);
        assert_eq!(grid.registry.snapshot()[0].1.state(), WorkerState::Ready, "that was an older registration's");
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
        assert_eq!(grid.registry.deregister(&name("one"), BootId(Uuid::from_u128(2))), None, "another process");
        assert_eq!(grid.registry.deregister(&name("one"), stub.boot_id), Some(stub.key));
        grid.registry.release(stub);
        assert!(grid.registry.next_free().is_none());
        grid.now += EVICT_AFTER;
        let evicted = grid.registry.sweep(grid.now + SWEEP_INTERVAL);
        assert!(evicted.is_empty(), "time away is credited");
        assert_eq!(grid.wait(7).len(), 1);
    }

    #[test]
    fn the_pool_has_a_bound() {
        let grid = Harness::new();
        for number in 0..MAX_SLOTS / u64::from(MAX_SLOTS_PER_WORKER) {
            grid.register(&format!("worker-{number}"), 1, MAX_SLOTS_PER_WORKER);
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let one_more = grid.registry.register(name("one-more"), address, heartbeat(1, 1), grid.now);
        assert_eq!(one_more, Err(RegisterError::Full));
    }
}
