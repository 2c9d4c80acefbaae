//! An engine with its clock. Effects are compared as lines of text.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{AttemptId, BootId, JobId, JobKind, JobOptions, Labels, Resources, WorkerId};
use scheduler::{Policy, WorkerKey};
use serde_json::value::RawValue;
use store::{ChangeKind, NewJob, UnfinishedJob};
use uuid::Uuid;
use workloads::Report;

use crate::{
    Delivery, Effect, Engine, HeldLease, HeldState, LeaseOrder, Now, Reconciled, Settings, WorkerAnnouncement,
};

pub(super) const RECOVERY: Duration = Duration::from_millis(2_500);
pub(super) const MAX_UNSTORED: u64 = 20;

pub(super) struct Harness {
    pub(super) engine: Engine,
    pub(super) now: Now,
    /// The last orders, by job and first task.
    pub(super) orders: Vec<LeaseOrder>,
}

pub(super) fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::of_epoch(1)
    }

    pub(super) fn of_epoch(epoch: u64) -> Self {
        // Ages reach back.
        let now = Now { instant: Instant::now() + Duration::from_hours(1), at: Timestamp::UNIX_EPOCH };
        let policy = Policy {
            lease_target: Duration::from_millis(40),
            lease_timeout: Duration::from_secs(30),
            aging_interval: Duration::from_secs(10),
        };
        let settings = Settings {
            policy,
            chunk_size: NonZeroU64::new(10_000_000).expect("not zero"),
            worker_wait: Duration::from_secs(10),
            max_unstored: MAX_UNSTORED,
            recovery: RECOVERY,
            epoch,
            instance: 7,
            secret: 11,
        };
        Self { engine: Engine::new(settings, now), now, orders: Vec::new() }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now =
            Now { instant: self.now.instant + time, at: self.now.at.saturating_add(time).expect("a short time") };
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<String> {
        self.advance(time);
        self.engine.handle_timeout(self.now);
        self.effects()
    }

    /// The effects since the last time, in their order; every invariant holds after them.
    pub(super) fn effects(&mut self) -> Vec<String> {
        let effects = self.engine.take_effects();
        self.engine.check();
        effects.into_iter().map(|effect| self.line(effect)).collect()
    }

    fn line(&mut self, effect: Effect) -> String {
        let name = |job: JobId| job.0.as_u128();
        match effect {
            Effect::Store(change) => format!("store {} {}", name(change.job), describe(&change.kind)),
            Effect::Send(order) => {
                let worker = number(order.worker);
                let line = format!("send {} {:?} to {worker}.{}", name(order.job), order.tasks, order.slot);
                self.orders.push(*order);
                line
            }
            Effect::Revoke { attempt, worker, reason, outlives_connection } => {
                let order = self.orders.iter().find(|order| order.attempt == attempt);
                let tasks = order.map(|order| order.tasks.clone()).unwrap_or_default();
                let how = if outlives_connection { "stop" } else { "close" };
                format!("{how} {tasks:?} at {} because {reason:?}", number(worker))
            }
            Effect::Answer { job, answer } => format!("answer {} {answer:?}", name(job)),
            Effect::Deliver { claim, lease } => {
                format!("deliver {} {:?} to claim {}", name(lease.job), lease.tasks, claim.0)
            }
            Effect::Suspended { worker, reason } => format!("suspend {worker}: {reason}"),
            Effect::Lacks { worker, kind } => format!("{worker} lacks {kind}"),
            Effect::Compose { job } => format!("compose {}", name(job)),
        }
    }

    pub(super) fn order(&self, number: u128, first: u64) -> LeaseOrder {
        let found = self.orders.iter().rev().find(|order| order.job == job(number) && order.tasks.start == first);
        found.expect("it was sent").clone()
    }

    pub(super) fn attempt(&self, number: u128, first: u64) -> AttemptId {
        self.order(number, first).attempt
    }

    pub(super) fn complete(&mut self, attempt: AttemptId) -> Vec<String> {
        self.complete_with(attempt, 1)
    }

    pub(super) fn complete_with(&mut self, attempt: AttemptId, value: u128) -> Vec<String> {
        let report = Report { value: Some(value), results: Vec::new() };
        self.engine.complete(attempt, report, Duration::from_millis(40), self.now).expect("it holds a lease");
        self.effects()
    }

    pub(super) fn worker(&mut self, name: &str, slots: u32, held: &[HeldLease]) -> (WorkerKey, Reconciled) {
        let delivery = Delivery::Pushed { boot_id: BootId(Uuid::nil()) };
        self.announce(name, delivery, slots, vec![JobKind::SUM_OF_PRIMES, JobKind::SLEEP], held)
    }

    pub(super) fn puller(&mut self, name: &str) -> WorkerKey {
        self.puller_of(name, JobKind::TASKS)
    }

    pub(super) fn puller_of(&mut self, name: &str, kind: JobKind) -> WorkerKey {
        self.announce(name, Delivery::Pulled, 1, vec![kind], &[]).0
    }

    fn announce(
        &mut self,
        name: &str,
        delivery: Delivery,
        slots: u32,
        kinds: Vec<JobKind>,
        held: &[HeldLease],
    ) -> (WorkerKey, Reconciled) {
        let announcement = WorkerAnnouncement {
            id: WorkerId::try_from(name.to_owned()).expect("a name"),
            delivery,
            slots,
            kinds,
            labels: Labels::new(),
            resources: Resources::default(),
            is_reserved: false,
            leases_per_slot: 2,
        };
        self.engine.join(announcement, held, self.now)
    }

    /// A stored job: `sleep` of one second a task, or `tasks`.
    pub(super) fn stored(&self, number: u128, kind: JobKind, tasks: u64) -> UnfinishedJob {
        let params = match kind {
            JobKind::TASKS => format!(r#"{{"count":{tasks}}}"#),
            JobKind::SLEEP => format!(r#"{{"seconds":1,"tasks":{tasks}}}"#),
            _ => format!(r#"{{"a":0,"b":{}}}"#, tasks * 10_000_001 - 1),
        };
        let new = NewJob {
            id: job(number),
            kind,
            is_individual: kind != JobKind::SUM_OF_PRIMES,
            payloads: model::Payloads::default(),
            options: JobOptions::default(),
            params: RawValue::from_string(params).expect("JSON"),
            tasks,
            fingerprint: [0; 32],
            idempotency_key: None,
            submitted_at: self.now.at,
        };
        new.accepted()
    }

    pub(super) fn take_up(&mut self, number: u128, kind: JobKind, tasks: u64) -> Vec<String> {
        let stored = self.stored(number, kind, tasks);
        self.engine.take_up(stored, self.now).expect("a job");
        self.effects()
    }
}

/// The number of a registration within its coordinator's epoch.
fn number(worker: WorkerKey) -> u64 {
    worker.0 & u64::from(u32::MAX)
}

fn describe(kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::Started => "started".to_owned(),
        ChangeKind::Completed { tasks, value, .. } => format!("completed {tasks:?} {value}"),
        ChangeKind::Checked { tasks, value, .. } => format!("checked {tasks:?} {value}"),
        ChangeKind::AttemptFailed { tasks, failures, worker, .. } => format!("failed {tasks:?} {failures} at {worker}"),
        ChangeKind::TasksFailed { tasks, failures, .. } => format!("gave up {tasks:?} after {failures}"),
        ChangeKind::Ended { state, error, .. } => {
            format!("ended {state}{}", error.as_ref().map_or_else(String::new, |error| format!(": {error}")))
        }
        ChangeKind::Reopened { tasks, value, notice, .. } => format!("reopened {tasks:?} {value}: {notice}"),
        ChangeKind::Compared { is_mismatch, .. } => {
            format!("compared{}", if *is_mismatch { ", a mismatch" } else { "" })
        }
        ChangeKind::Progress => "progress".to_owned(),
        ChangeKind::WorkDone { billionths } => format!("work done {billionths}"),
        ChangeKind::Retried => "retried".to_owned(),
        ChangeKind::Paused | ChangeKind::Resumed | ChangeKind::Canceled => "a client's change".to_owned(),
    }
}

/// A lease as its worker lists it.
pub(super) fn held(order: &LeaseOrder, state: HeldState) -> HeldLease {
    let LeaseOrder { attempt, job, tasks, slot, .. } = order.clone();
    HeldLease { attempt, job, tasks, slot, age: Duration::from_secs(1), state }
}
