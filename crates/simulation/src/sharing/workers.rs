//! Workers, which never die here, and the coordinators' knowledge of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use engine::{Delivery, HeldLease, HeldState, LeaseFailure, LeaseOrder, Reconciled, WorkerAnnouncement};
use model::{AttemptId, BootId, JobId, JobKind, Labels, Resources, WorkerId};
use uuid::Uuid;
use workloads::Report;

use super::client::PLANNED_FAILURE;
use super::{Event, Sharing};
use crate::outcome::value_of;
use crate::plan::{Micros, SECOND};

/// Interval between heartbeats.
const INTERVAL: Micros = SECOND;

/// Duration of each task.
const TASK: Micros = 15_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SharedLeaseState {
    Running,
    Done,
    Failed,
}

/// A worker's report on a lease.
#[derive(Clone, Debug)]
pub(crate) struct WorkerReport {
    held: SharedLease,
    /// Whether the lease is given back without its outcome.
    is_given_back: bool,
}

/// A lease that a worker has.
#[derive(Clone, Debug)]
pub(crate) struct SharedLease {
    job: JobId,
    tasks: Range<u64>,
    slot: u32,
    taken_at: Micros,
    value: u128,
    state: SharedLeaseState,
    /// The highest epoch of the coordinators that may know the outcome.
    told_in: Option<u64>,
    /// The coordinator that sent it and waits for the answer.
    sender: (usize, u64, u64),
}

pub(crate) struct SharedWorker {
    slots: u32,
    /// The highest epoch that it has seen.
    seen: u64,
    held: BTreeMap<AttemptId, SharedLease>,
    /// Time at which each slot will have computed its leases.
    free_at: BTreeMap<u32, Micros>,
}

impl SharedWorker {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots, seen: 0, held: BTreeMap::new(), free_at: BTreeMap::new() }
    }

    pub(crate) fn name(&self, number: usize) -> WorkerId {
        WorkerId::try_from(format!("worker-{number}")).expect("letters and digits")
    }

    fn announcement(&self, number: usize) -> WorkerAnnouncement {
        WorkerAnnouncement {
            id: self.name(number),
            delivery: Delivery::Pushed { boot_id: BootId(Uuid::from_u128(number as u128)) },
            slots: self.slots,
            kinds: vec![JobKind::SUM_OF_PRIMES],
            labels: Labels::new(),
            resources: Resources::default(),
            is_reserved: false,
            leases_per_slot: 2,
        }
    }

    fn list(&self, now: Micros) -> Vec<HeldLease> {
        let lease = |(attempt, held): (&AttemptId, &SharedLease)| HeldLease {
            attempt: *attempt,
            job: held.job,
            tasks: held.tasks.clone(),
            slot: held.slot,
            age: Duration::from_micros(now - held.taken_at),
            state: if held.state == SharedLeaseState::Running { HeldState::Running } else { HeldState::Finished },
        };
        self.held.iter().map(lease).collect()
    }
}

impl Sharing {
    pub(crate) fn lease_arrives(&mut self, worker: usize, member: usize, boot: u64, epoch: u64, order: LeaseOrder) {
        let (attempt, now, delay) = (order.attempt, self.now, self.delay());
        let found = &mut self.workers[worker];
        if epoch < found.seen {
            return self.after(delay, Event::LeaseRefused { member, boot, epoch, attempt });
        }
        found.seen = epoch;
        found.held.retain(|attempt, _| !order.settled.contains(attempt));
        if found.held.contains_key(&attempt) {
            return self.violate("a lease arrives twice");
        }
        let free_at = found.free_at.get(&order.slot).copied().unwrap_or(0).max(now);
        let ends_at = free_at + TASK * (order.tasks.end - order.tasks.start);
        found.free_at.insert(order.slot, ends_at);
        let value = value_of(order.kind, &order.work).unwrap_or(0);
        let (job, tasks, slot) = (order.job, order.tasks.clone(), order.slot);
        let sender = (member, boot, epoch);
        let held = SharedLease {
            job,
            tasks,
            slot,
            taken_at: now,
            value,
            state: SharedLeaseState::Running,
            told_in: None,
            sender,
        };
        found.held.insert(attempt, held);
        self.note(format_args!("worker {worker} takes tasks {:?} of job {} in epoch {epoch}", order.tasks, order.job));
        if !self.second_attempts.contains(&attempt) {
            self.started(order.job, &order.tasks);
        }
        self.after(ends_at - now, Event::Computed { worker, attempt });
    }

    pub(crate) fn computed(&mut self, worker: usize, attempt: AttemptId) {
        let Some(held) = self.workers[worker].held.get(&attempt).cloned() else { return };
        let state = if self.fails(held.job, &held.tasks) { SharedLeaseState::Failed } else { SharedLeaseState::Done };
        let (member, boot, epoch) = held.sender;
        let held = SharedLease { state, told_in: Some(epoch), ..held };
        self.workers[worker].held.insert(attempt, held.clone());
        let delay = self.delay();
        if self.members[member].is_cut_from_workers {
            return self.after(delay, Event::LeaseBroken { member, boot, epoch, attempt });
        }
        let report = WorkerReport { held, is_given_back: false };
        self.after(delay, Event::OutcomeArrives { member, boot, worker, attempt, report, is_delivery: false });
    }

    /// The answer to a lease, or a delivery that the leader has asked for.
    pub(crate) fn outcome_arrives(
        &mut self,
        member: usize,
        boot: u64,
        worker: usize,
        attempt: AttemptId,
        report: WorkerReport,
        is_delivery: bool,
    ) {
        if !self.is_up(member, boot) || (!is_delivery && !self.take_sent(member, attempt)) {
            return;
        }
        if !self.members[member].is_trusted(self.local_now(member)) {
            return;
        }
        let WorkerReport { held, is_given_back } = report;
        let lease = HeldLease {
            attempt,
            job: held.job,
            tasks: held.tasks.clone(),
            slot: held.slot,
            age: Duration::ZERO,
            state: HeldState::Running,
        };
        let key = self.members[member].term.as_ref().and_then(|term| term.registered.get(&worker).copied());
        let report = Report { value: Some(held.value), results: Vec::new() };
        let busy = Duration::from_micros(TASK * (held.tasks.end - held.tasks.start));
        self.input(member, |engine, now| {
            let is_held = engine.lease(attempt, now).is_some()
                || (!engine.has_ended(attempt) && key.is_some_and(|key| engine.adopt_reported(key, &lease, now)));
            let failure = LeaseFailure::TaskFailed(PLANNED_FAILURE.to_owned());
            // A late outcome is refused.
            is_held.then(|| match (held.state, is_given_back) {
                (SharedLeaseState::Failed, true) => engine.release(attempt, now).is_ok(),
                (SharedLeaseState::Failed, false) => engine.fail(attempt, failure, now).is_ok(),
                (SharedLeaseState::Running | SharedLeaseState::Done, _) => {
                    engine.complete(attempt, report, busy, now).is_ok()
                }
            })
        });
    }

    pub(crate) fn stop_arrives(&mut self, worker: usize, epoch: u64, attempt: AttemptId) {
        let worker = &mut self.workers[worker];
        if epoch >= worker.seen {
            worker.seen = epoch;
            worker.held.remove(&attempt);
        }
    }

    pub(crate) fn heartbeat_due(&mut self, worker: usize) {
        self.send_heartbeats(worker);
        self.after(INTERVAL, Event::HeartbeatDue { worker });
    }

    fn send_heartbeats(&mut self, worker: usize) {
        let (seen, held) = (self.workers[worker].seen, self.workers[worker].list(self.now));
        for member in 0..self.members.len() {
            if !self.members[member].is_cut_from_workers {
                let (boot, held, delay) = (self.members[member].boot, held.clone(), self.delay());
                self.after(delay, Event::HeartbeatArrives { member, boot, worker, seen, held });
            }
        }
    }

    /// A coordinator that has begun to lead asks for the list.
    pub(crate) fn announce_arrives(&mut self, worker: usize, epoch: u64) {
        if epoch >= self.workers[worker].seen {
            self.workers[worker].seen = epoch;
            self.send_heartbeats(worker);
        }
    }

    pub(crate) fn heartbeat_arrives(&mut self, member: usize, boot: u64, worker: usize, seen: u64, held: &[HeldLease]) {
        if !self.is_up(member, boot) || !self.members[member].is_trusted(self.local_now(member)) {
            return;
        }
        let (announcement, name) = (self.workers[worker].announcement(worker), self.workers[worker].name(worker));
        let Some(term) = self.members[member].term.as_ref() else { return };
        let (epoch, known) = (term.epoch, term.registered.get(&worker).copied());
        let reconciled = match known {
            Some(key) => self.input(member, |engine, now| engine.heartbeat(key, held, now)),
            None => {
                let joined = self.input(member, |engine, now| engine.join(announcement, held, now));
                joined.map(|(key, reconciled)| {
                    if let Some(term) = self.members[member].term.as_mut() {
                        term.registered.insert(worker, key);
                    }
                    reconciled
                })
            }
        };
        self.input(member, |engine, now| engine.listed(&name, seen, now));
        let Some(reconciled) = reconciled else { return };
        self.act(member, epoch);
        if !self.members[member].is_cut_from_workers {
            let delay = self.delay();
            self.after(delay, Event::HeartbeatAnswered { worker, member, boot, epoch, reconciled });
        }
    }

    pub(crate) fn heartbeat_answered(
        &mut self,
        worker: usize,
        member: usize,
        boot: u64,
        epoch: u64,
        reconciled: Reconciled,
    ) {
        let found = &mut self.workers[worker];
        if epoch < found.seen {
            return;
        }
        found.seen = epoch;
        let Reconciled { settled, deliver } = reconciled;
        found.held.retain(|attempt, _| !settled.contains(attempt));
        for attempt in deliver {
            let Some(held) = self.workers[worker].held.get_mut(&attempt) else { continue };
            if held.state == SharedLeaseState::Running || self.members[member].is_cut_from_workers {
                continue;
            }
            // A failure that was reported to an earlier coordinator may count already.
            let is_given_back =
                held.state == SharedLeaseState::Failed && held.told_in.is_some_and(|told_in| told_in < epoch);
            if !is_given_back {
                held.told_in = held.told_in.max(Some(epoch));
            }
            let (report, delay) = (WorkerReport { held: held.clone(), is_given_back }, self.delay());
            self.after(delay, Event::OutcomeArrives { member, boot, worker, attempt, report, is_delivery: true });
        }
    }
}
