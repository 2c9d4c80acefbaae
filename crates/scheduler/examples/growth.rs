//! What the scheduler's calls cost beside many jobs, leases, workers and slots that are not concerned.
//!
//! `cargo run --release -p scheduler --example growth`

use std::hint::black_box;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, JobKind, Labels, Requirements, Resources};
use scheduler::{History, JobSpec, Lane, Lease, LeaseSize, Order, Outcome, Policy, Scheduler, WorkerKey, WorkerSpec};
use uuid::Uuid;

const POLICY: Policy = Policy {
    lease_target: Duration::from_millis(100),
    lease_timeout: Duration::from_secs(60),
    aging_interval: Duration::from_secs(60),
};

const SLOTS: u64 = 65_536;
const JOBS: u64 = 100_000;
const ROUNDS: u32 = 20_000;

struct Bench {
    scheduler: Scheduler,
    now: Instant,
    last_id: u128,
}

impl Bench {
    fn new() -> Self {
        Self { scheduler: Scheduler::new(POLICY), now: Instant::now(), last_id: 0 }
    }

    fn id(&mut self) -> Uuid {
        self.last_id += 1;
        Uuid::from_u128(self.last_id)
    }

    fn join(&mut self, workers: std::ops::Range<u64>, slots: u32, labels: &Labels) {
        for key in workers {
            let kinds = vec![JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES, JobKind::SLEEP, JobKind::TASKS];
            let (labels, resources) = (labels.clone(), Resources::default());
            self.scheduler
                .worker_joined(WorkerKey(key), WorkerSpec { slots, kinds, labels, resources, is_reserved: false });
        }
    }

    fn submit(&mut self, spec: JobSpec) -> JobId {
        let job = JobId(self.id());
        self.scheduler.submit(job, spec, &History::default(), self.now).expect("a new job with tasks");
        job
    }

    fn claim(&mut self, lane: Lane) -> Option<Lease> {
        let attempt = AttemptId(self.id());
        self.scheduler.claim(lane, LeaseSize::Fitting, attempt, self.now).expect("a worker that is there")
    }

    fn complete(&mut self, lease: &Lease) {
        let outcome = Outcome { value: 0, busy: Duration::from_millis(50) };
        self.scheduler.complete(lease.attempt, outcome).expect("a lease that is held");
        while let Some(event) = self.scheduler.poll_event() {
            black_box(event);
        }
    }

    fn idle_all(&mut self, workers: std::ops::Range<u64>) {
        workers.for_each(|key| self.scheduler.slot_idle(lane(key)));
    }
}

fn lane(worker: u64) -> Lane {
    Lane { worker: WorkerKey(worker), slot: 0 }
}

fn with_label(value: &str) -> Labels {
    Labels::from([("zone".to_owned(), value.to_owned())])
}

fn report(what: &str, time: Duration, calls: u32) {
    println!("{what:72} {:>12.2?}", time / calls.max(1));
}

fn main() {
    leaving_worker();
    claims_beside_idle_slots(Order::FirstInFirstOut, "one job in order");
    claims_beside_idle_slots(Order::Stripes, "one job in stripes");
    claims_where_others_cannot_run_it();
    retries_that_idle_slots_must_leave_alone();
    ending_job();
    short_jobs();
}

/// Unfinished jobs of which the worker has run one lease each, when it leaves.
fn leaving_worker() {
    let mut bench = Bench::new();
    bench.join(0..2, 1, &Labels::new());
    for _ in 0..JOBS {
        bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 10));
    }
    for _ in 0..JOBS {
        let lease = bench.claim(lane(0)).expect("open tasks");
        bench.complete(&lease);
    }
    let started_at = Instant::now();
    bench.scheduler.worker_lost(WorkerKey(0), bench.now);
    report("a worker leaves that has worked on 100,000 unfinished jobs", started_at.elapsed(), 1);
}

/// An idle slot is found, claims, completes and is idle again, while the others are busy.
fn claims_beside_idle_slots(order: Order, what: &str) {
    let mut bench = Bench::new();
    bench.join(0..SLOTS, 1, &Labels::new());
    bench.idle_all(0..SLOTS);
    bench.submit(JobSpec { order, ..JobSpec::new(JobKind::COUNT_PRIMES, 1 << 40) });
    let (mut leases, started_at) = (std::collections::VecDeque::new(), Instant::now());
    while let Some(idle) = bench.scheduler.next_idle(bench.now) {
        leases.push_back((idle, bench.claim(idle).expect("open tasks")));
    }
    report(&format!("{what}: each of 65,536 idle slots found, and its first claim"), started_at.elapsed(), 65_536);
    let (mut claiming, mut all) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let (lane, lease) = leases.pop_front().expect("every slot is busy");
        let began = Instant::now();
        bench.complete(&lease);
        bench.scheduler.slot_idle(lane);
        let claims_at = Instant::now();
        let idle = bench.scheduler.next_idle(bench.now).expect("the slot that just fell idle");
        let lease = bench.claim(idle).expect("open tasks");
        claiming += claims_at.elapsed();
        all += began.elapsed();
        leases.push_back((idle, lease));
    }
    report(&format!("{what}: an idle slot found, and its claim, beside 65,535 busy slots"), claiming, ROUNDS);
    report(&format!("{what}: the same with completion and slot_idle"), all, ROUNDS);
}

/// Of 65,536 idle slots one can run what waits.
fn claims_where_others_cannot_run_it() {
    let mut bench = Bench::new();
    bench.join(0..SLOTS - 1, 1, &with_label("a"));
    bench.join(SLOTS - 1..SLOTS, 1, &with_label("b"));
    bench.idle_all(0..SLOTS);
    let requires = Requirements { labels: with_label("b"), ..Requirements::default() };
    bench.submit(JobSpec { requires, ..JobSpec::new(JobKind::COUNT_PRIMES, 1 << 40) });
    let mut time = Duration::ZERO;
    for _ in 0..ROUNDS {
        let started_at = Instant::now();
        let idle = bench.scheduler.next_idle(bench.now).expect("the slot that can run it");
        let lease = bench.claim(idle).expect("open tasks");
        time += started_at.elapsed();
        bench.complete(&lease);
        bench.scheduler.slot_idle(idle);
    }
    report("an idle slot found, and its claim, where 65,535 idle ones cannot run it", time, ROUNDS);
}

/// One worker with all the slots has failed what waits, and is offered in vain after each change.
fn retries_that_idle_slots_must_leave_alone() {
    let mut bench = Bench::new();
    bench.join(0..2, u32::try_from(SLOTS).expect("few"), &Labels::new());
    bench.submit(JobSpec { max_attempts: u32::MAX, ..JobSpec::new(JobKind::COUNT_PRIMES, 1) });
    let first = bench.claim(lane(0)).expect("the task");
    bench.scheduler.release(first.attempt, bench.now).expect("it is held");
    for slot in 0..u32::try_from(SLOTS).expect("few") {
        bench.scheduler.slot_idle(Lane { slot, ..lane(0) });
    }
    let (mut time, mut offers) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let job = bench.submit(JobSpec::new(JobKind::SLEEP, 1));
        bench.scheduler.cancel(job).expect("it waits");
        let started_at = Instant::now();
        while let Some(idle) = bench.scheduler.next_idle(bench.now) {
            offers += 1;
            assert!(bench.claim(idle).is_none(), "it is held back");
            bench.scheduler.slot_idle(idle);
        }
        time += started_at.elapsed();
    }
    report(&format!("65,536 idle slots that must leave what waits alone ({offers} offers), a change"), time, ROUNDS);
}

/// A job with one lease ends beside 100,000 leases of another.
fn ending_job() {
    let mut bench = Bench::new();
    bench.join(0..1, 1, &Labels::new());
    bench.submit(JobSpec { max_lease_tasks: 1, ..JobSpec::new(JobKind::COUNT_PRIMES, JOBS) });
    for number in 0..JOBS {
        let slot = u32::try_from(number).expect("few");
        let attempt = AttemptId(bench.id());
        bench.scheduler.claim(Lane { slot, ..lane(0) }, LeaseSize::AtMost(1), attempt, bench.now).expect("it is there");
    }
    let (mut ending, mut pausing) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let job = bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 1));
        bench.claim(Lane { slot: u32::MAX - round, ..lane(0) }).expect("its task");
        let started_at = Instant::now();
        bench.scheduler.pause(job).expect("it runs");
        pausing += started_at.elapsed();
        let started_at = Instant::now();
        bench.scheduler.cancel(job).expect("it is paused");
        ending += started_at.elapsed();
    }
    report("a job with one lease is paused beside 100,000 leases of another", pausing, ROUNDS);
    report("a job is canceled beside 100,000 leases of another", ending, ROUNDS);
}

/// Jobs of one task with requirements of their own, as requests bring them, beside many abilities and unfinished jobs.
fn short_jobs() {
    let mut bench = Bench::new();
    for number in 0..1_000 {
        bench.join(number..number + 1, 1, &with_label(&number.to_string()));
    }
    for _ in 0..JOBS {
        bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 10));
    }
    let wait = Some(Duration::from_secs(5));
    let started_at = Instant::now();
    for _ in 0..ROUNDS {
        let job = bench.submit(JobSpec { worker_wait: wait, ..JobSpec::new(JobKind::SUM_OF_PRIMES, 1) });
        black_box(bench.scheduler.poll_timeout());
        bench.scheduler.handle_timeout(bench.now);
        bench.scheduler.cancel(job).expect("it waits");
    }
    report("submit, timers and cancel beside 1,000 abilities and 100,000 jobs", started_at.elapsed(), ROUNDS);
}
