//! Random operations on the scheduler.

use std::time::Duration;

use model::{Affinity, JobKind, Priority, Requirements};
use proptest::prelude::*;

use super::super::harness::{labels, slots, spec};
use crate::{JobSpec, OnExhausted, Order, WorkerSpec};

/// The kinds of the jobs.
pub(super) const KINDS: [JobKind; 2] = [JobKind::SUM_OF_PRIMES, JobKind::TASKS];

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Job(JobOperation),
    Worker(WorkerOperation),
    Lease(LeaseOperation),
    GiveOut,
    Wait { ms: u64 },
}

/// An operation on a live job.
#[derive(Clone, Debug)]
pub(super) enum JobOperation {
    Submit { tasks: u64, shape: usize, priority: u8 },
    Cancel { pick: usize },
    Pause { pick: usize },
    Continue { pick: usize },
    Retry { pick: usize },
    Reopen { pick: usize },
}

/// An operation on a worker, or a slot of it.
#[derive(Clone, Debug)]
pub(super) enum WorkerOperation {
    Join { slots: u32, shape: usize },
    Lose { pick: usize },
    Retire { pick: usize },
    Suspend { pick: usize },
    Resume { pick: usize },
    SetAside { pick: usize },
    Lack { pick: usize, kind: usize },
    Idle { pick: usize, slot: u32 },
    Gone { pick: usize, slot: u32 },
}

/// An operation on a lease.
#[derive(Clone, Debug)]
pub(super) enum LeaseOperation {
    Claim { pick: usize, slot: u32, size: Option<u64> },
    Renew { pick: usize },
    RestartLimit { pick: usize },
    Overtake { pick: usize, other: usize, age_ms: u64 },
    DemandRenewals { pick: usize },
    Report { pick: usize },
    Complete { pick: usize },
    Fail { pick: usize },
    Release { pick: usize },
    Shorten { pick: usize, tasks: u64 },
    Contest { pick: usize },
    Adopt { pick: usize, worker: usize, from: u64, tasks: u64, age_ms: u64 },
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let pick = 0usize..64;
    prop_oneof![
        2 => (1u64..200, 0usize..16, 1u8..=9)
            .prop_map(|(tasks, shape, priority)| Operation::Job(JobOperation::Submit { tasks, shape, priority })),
        1 => pick.clone().prop_map(|pick| Operation::Job(JobOperation::Cancel { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Job(JobOperation::Pause { pick })),
        2 => pick.clone().prop_map(|pick| Operation::Job(JobOperation::Continue { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Job(JobOperation::Retry { pick })),
        2 => (1u32..4, 0usize..8).prop_map(|(slots, shape)| Operation::Worker(WorkerOperation::Join { slots, shape })),
        1 => pick.clone().prop_map(|pick| Operation::Worker(WorkerOperation::Lose { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Worker(WorkerOperation::Retire { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Worker(WorkerOperation::Suspend { pick })),
        2 => pick.clone().prop_map(|pick| Operation::Worker(WorkerOperation::Resume { pick })),
        8 => (pick.clone(), 0u32..3, prop::option::of(1u64..50))
            .prop_map(|(pick, slot, size)| Operation::Lease(LeaseOperation::Claim { pick, slot, size })),
        1 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Renew { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::RestartLimit { pick })),
        6 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Complete { pick })),
        2 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Fail { pick })),
        2 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Release { pick })),
        2 => (pick.clone(), 0u64..20).prop_map(|(pick, tasks)| Operation::Lease(LeaseOperation::Shorten { pick, tasks })),
        2 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Contest { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Worker(WorkerOperation::SetAside { pick })),
        1 => (pick.clone(), 0usize..2).prop_map(|(pick, kind)| Operation::Worker(WorkerOperation::Lack { pick, kind })),
        1 => pick.clone().prop_map(|pick| Operation::Job(JobOperation::Reopen { pick })),
        2 => (pick.clone(), pick.clone(), 0u64..200, 1u64..8, 0u64..90_000)
            .prop_map(|(pick, worker, from, tasks, age_ms)| Operation::Lease(LeaseOperation::Adopt { pick, worker, from, tasks, age_ms })),
        2 => (pick.clone(), pick.clone(), 0u64..30_000)
            .prop_map(|(pick, other, age_ms)| Operation::Lease(LeaseOperation::Overtake { pick, other, age_ms })),
        1 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::DemandRenewals { pick })),
        1 => pick.clone().prop_map(|pick| Operation::Lease(LeaseOperation::Report { pick })),
        4 => (pick.clone(), 0u32..3).prop_map(|(pick, slot)| Operation::Worker(WorkerOperation::Idle { pick, slot })),
        1 => (pick, 0u32..3).prop_map(|(pick, slot)| Operation::Worker(WorkerOperation::Gone { pick, slot })),
        2 => Just(Operation::GiveOut),
        1 => (0u64..30_000).prop_map(|ms| Operation::Wait { ms }),
    ]
}

/// Jobs of every order, with and without requirements, wishes, a limit to their leases, a rise and a last task that waits.
pub(super) fn shaped(tasks: u64, shape: usize, priority: u8) -> JobSpec {
    let affinity = |key: &str| Affinity { key: Some(key.to_owned()), ..Affinity::default() };
    JobSpec {
        priority: Priority::try_from(priority).expect("1 to 9"),
        kind: KINDS[shape % 2],
        order: [Order::Stripes, Order::FirstInFirstOut][shape / 2 % 2],
        on_exhausted: [OnExhausted::FailJob, OnExhausted::SkipTask][shape / 4 % 2],
        requires: match shape {
            1 | 2 => Requirements { labels: labels(&[("zone", "a")]), ..Requirements::default() },
            3 => Requirements { labels: labels(&[("zone", "b")]), ..Requirements::default() },
            _ => Requirements::default(),
        },
        affinity: match shape {
            4..8 => affinity("one"),
            8..12 => affinity("two"),
            _ => Affinity::default(),
        },
        max_lease_tasks: if shape == 5 { 1 } else { u64::MAX },
        task_timeout: (shape == 6).then_some(Duration::from_secs(20)),
        setup: Duration::from_millis(if shape > 11 { 30 } else { 0 }),
        last_task_waits: shape == 10,
        rise: [0.0, 0.3, 1.0][shape % 3],
        ..spec(tasks)
    }
}

pub(super) fn shaped_worker(count: u32, shape: usize) -> WorkerSpec {
    let zone = ["a", "b", "c"][shape % 3];
    let kinds = if shape < 6 {
        vec![JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES, JobKind::SLEEP, JobKind::TASKS]
    } else {
        vec![JobKind::SUM_OF_PRIMES]
    };
    WorkerSpec { labels: labels(&[("zone", zone)]), kinds, ..slots(count) }
}

/// Whether a worker of these shapes can run a job of these shapes.
pub(super) fn serves(worker: &WorkerSpec, spec: &JobSpec) -> bool {
    worker.kinds.contains(&spec.kind)
        && spec.requires.labels.iter().all(|label| worker.labels.iter().any(|own| own == label))
}
