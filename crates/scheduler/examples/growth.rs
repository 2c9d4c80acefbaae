//! Measures the cost of the scheduler's calls beside many jobs, leases, workers and slots that are not concerned.
//!
//! `cargo run --release -p scheduler --example growth`

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, JobKind, Labels, Requirements, Resources};
use scheduler::{
    ComputedValue, History, JobSpec, Lane, Lease, LeaseSize, Order, Policy, Scheduler, WorkerKey, WorkerSpec,
};
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
            let id = format!("worker-{key}").parse().expect("a name");
            self.scheduler
                .worker_joined(WorkerKey(key), WorkerSpec { id, slots, kinds, labels, resources, is_reserved: false });
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
        let tasks = u32::try_from(lease.tasks.end - lease.tasks.start).expect("few");
        let outcome = ComputedValue { value: 0, busy: Duration::from_millis(1) * tasks };
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

/// Times of single calls. The median leaves out those in which the machine did something else.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn of<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let started_at = Instant::now();
        let result = call();
        self.0.push(started_at.elapsed());
        result
    }

    fn report(mut self, what: &str) {
        self.0.sort_unstable();
        let (median, most) = (self.0[self.0.len() / 2], self.0[self.0.len() * 99 / 100]);
        println!("{what:78} {median:>10.2?} {most:>10.2?}");
    }
}

fn main() {
    println!("{:78} {:>10} {:>10}", "", "median", "99 %");
    leaving_worker();
    claims_beside_busy_slots(Order::FirstInFirstOut, "in order");
    claims_beside_busy_slots(Order::Stripes, "in stripes");
    claims_where_others_cannot_run_it();
    slots_that_must_leave_it_alone();
    ending_job();
    short_jobs();
}

/// Workers that have run one lease of each of many unfinished jobs leave.
fn leaving_worker() {
    let mut bench = Bench::new();
    bench.join(0..2, 1, &Labels::new());
    for _ in 0..JOBS {
        bench.submit(JobSpec { max_lease_tasks: 1, ..JobSpec::new(JobKind::COUNT_PRIMES, 10) });
    }
    for _ in 0..JOBS {
        let lease = bench.claim(lane(0)).expect("open tasks");
        bench.complete(&lease);
    }
    bench.claim(lane(0)).expect("open tasks");
    let mut times = Times::default();
    times.of(|| bench.scheduler.worker_lost(WorkerKey(0), bench.now));
    times.report("a worker leaves that has worked on 100,000 unfinished jobs");
}

/// An idle slot is found, claims, completes and is idle again, while the others are busy.
fn claims_beside_busy_slots(order: Order, what: &str) {
    let mut bench = Bench::new();
    bench.join(0..SLOTS, 1, &Labels::new());
    bench.idle_all(0..SLOTS);
    bench.submit(JobSpec { order, ..JobSpec::new(JobKind::COUNT_PRIMES, 1 << 40) });
    let (mut leases, mut first) = (VecDeque::new(), Times::default());
    for _ in 0..SLOTS {
        let (idle, lease) = first.of(|| {
            let idle = bench.scheduler.next_idle(bench.now).expect("an idle slot");
            (idle, bench.claim(idle).expect("open tasks"))
        });
        leases.push_back((idle, lease));
    }
    first.report(&format!("{what}: an idle slot of 65,536 found, and its first claim"));
    let (mut claims, mut ends) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let (lane, lease) = leases.pop_front().expect("every slot is busy");
        ends.of(|| {
            bench.complete(&lease);
            bench.scheduler.slot_idle(lane);
        });
        let next = claims.of(|| {
            let idle = bench.scheduler.next_idle(bench.now).expect("the slot that just fell idle");
            (idle, bench.claim(idle).expect("open tasks"))
        });
        leases.push_back(next);
    }
    claims.report(&format!("{what}: an idle slot found, and its claim, beside 65,535 busy ones"));
    ends.report(&format!("{what}: its completion, and the slot idle again"));
}

/// Of 65,536 idle slots one can run the waiting tasks.
fn claims_where_others_cannot_run_it() {
    let mut bench = Bench::new();
    bench.join(0..SLOTS - 1, 1, &with_label("a"));
    bench.join(SLOTS - 1..SLOTS, 1, &with_label("b"));
    bench.idle_all(0..SLOTS);
    let requires = Requirements { labels: with_label("b"), ..Requirements::default() };
    bench.submit(JobSpec { requires, ..JobSpec::new(JobKind::COUNT_PRIMES, 1 << 40) });
    let mut claims = Times::default();
    for _ in 0..ROUNDS {
        let (idle, lease) = claims.of(|| {
            let idle = bench.scheduler.next_idle(bench.now).expect("the slot that can run it");
            (idle, bench.claim(idle).expect("open tasks"))
        });
        bench.complete(&lease);
        bench.scheduler.slot_idle(idle);
    }
    claims.report("an idle slot found, and its claim, where 65,535 idle ones cannot run it");
}

/// A worker with 65,536 idle slots has handed back the waiting tasks, and is offered them in vain after each change.
fn slots_that_must_leave_it_alone() {
    let mut bench = Bench::new();
    let slots = u32::try_from(SLOTS).expect("few");
    bench.join(0..2, slots, &Labels::new());
    bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 1));
    let first = bench.claim(lane(0)).expect("the task");
    bench.scheduler.release(first.attempt, bench.now).expect("it is held");
    (0..slots).for_each(|slot| bench.scheduler.slot_idle(Lane { slot, ..lane(0) }));
    let mut offers = Times::default();
    for _ in 0..ROUNDS {
        let job = bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 1));
        bench.scheduler.cancel(job).expect("it waits");
        offers.of(|| {
            while let Some(idle) = bench.scheduler.next_idle(bench.now) {
                assert!(bench.claim(idle).is_none(), "it is held back");
                bench.scheduler.slot_idle(idle);
            }
        });
    }
    offers.report("all offers after a change to 65,536 idle slots that must leave it alone");
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
    let (mut ends, mut pauses) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        let lane = Lane { slot: u32::MAX - round, ..lane(0) };
        let job = bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 1));
        bench.claim(lane).expect("its task");
        pauses.of(|| bench.scheduler.pause(job).expect("it runs"));
        bench.scheduler.resume(job, bench.now).expect("it is paused");
        bench.claim(lane).expect("its task");
        ends.of(|| bench.scheduler.cancel(job).expect("it runs"));
    }
    pauses.report("a job with one lease is paused beside 100,000 leases of another");
    ends.report("a job with one lease is canceled beside 100,000 leases of another");
}

/// Jobs of one task, as requests bring them, beside many abilities and unfinished jobs.
fn short_jobs() {
    let mut bench = Bench::new();
    for number in 0..1_000 {
        bench.join(number..number + 1, 1, &with_label(&number.to_string()));
    }
    for _ in 0..JOBS {
        bench.submit(JobSpec::new(JobKind::COUNT_PRIMES, 10));
    }
    let (worker_wait, mut jobs) = (Some(Duration::from_secs(5)), Times::default());
    for _ in 0..ROUNDS {
        jobs.of(|| {
            let job = bench.submit(JobSpec { worker_wait, ..JobSpec::new(JobKind::SUM_OF_PRIMES, 1) });
            black_box(bench.scheduler.poll_timeout());
            bench.scheduler.handle_timeout(bench.now);
            bench.scheduler.cancel(job).expect("it waits");
        });
    }
    jobs.report("submit, timers and cancel beside 1,000 abilities and 100,000 jobs");
}
