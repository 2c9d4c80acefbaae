//! Simulated workers that leases are sent to: they hold leases of stored jobs as the real one does.

mod faults;
mod heartbeats;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use engine::{HeldLease, HeldState, LeaseOrder};
use model::{AttemptId, JobId};

use crate::coordinator::short;
use crate::network::Fate;
use crate::outcome::{Answer, SimOutcome};
use crate::plan::Micros;
use crate::world::{Event, World};

/// Leases a slot may hold.
const LEASES_PER_SLOT: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct SimWorker {
    pub(crate) slots: u32,
    pub(crate) is_up: bool,
    /// Whether the network does not reach it.
    pub(crate) is_cut: bool,
    /// The number of the worker's process, from 1.
    pub(crate) boot: u64,
    is_draining: bool,
    /// The highest epoch that it has seen.
    epoch: u64,
    pub(crate) held: BTreeMap<AttemptId, SimLease>,
    lanes: Vec<SlotQueue>,
    connection: u64,
    last_taken_at: Micros,
    last_token: u64,
}

#[derive(Debug, Default)]
struct SlotQueue {
    waiting: VecDeque<AttemptId>,
    running: Option<(AttemptId, u64)>,
}

/// A lease: of a stored job, or of a request that lasts as long as its connection.
#[derive(Debug)]
pub(crate) struct SimLease {
    pub(crate) order: LeaseOrder,
    taken_at: Micros,
    /// Start of the computation.
    begun_at: Option<Micros>,
    /// The highest epoch of the coordinators that may know the outcome.
    told_in: Option<u64>,
    /// Coordinators whose connections wait for the outcome.
    waiting: BTreeSet<u64>,
    outcome: Option<SimOutcome>,
    busy: Micros,
}

impl SimWorker {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots, ..Self::default() }
    }

    fn lists(&self, now: Micros) -> Vec<HeldLease> {
        let stored = self.held.iter().filter(|(_, held)| held.order.outlives_connection);
        stored.map(|(_, held)| held.listed(now)).collect()
    }
}

impl SimLease {
    fn listed(&self, now: Micros) -> HeldLease {
        HeldLease {
            attempt: self.order.attempt,
            job: self.order.job,
            tasks: self.order.tasks.clone(),
            slot: self.order.slot,
            // A lease that waits for its slot grows no older.
            age: Duration::from_micros(self.begun_at.map_or(0, |begun_at| now - begun_at)),
            state: if self.outcome.is_some() { HeldState::Finished } else { HeldState::Running },
        }
    }
}

impl World {
    pub(crate) fn worker_starts(&mut self, worker: usize) {
        let now = self.now;
        let this = &mut self.workers[worker];
        if this.is_up {
            return;
        }
        let (slots, is_cut) = (this.slots, this.is_cut);
        *this =
            SimWorker { slots, is_cut, boot: this.boot + 1, is_up: true, last_taken_at: now, ..SimWorker::default() };
        this.lanes = (0..slots).map(|_| SlotQueue::default()).collect();
        let boot = this.boot;
        this.connection = boot << 32;
        self.note(format_args!("worker {worker}"), format_args!("starts as process {boot} with {slots} slots"));
        self.after(0, Event::HeartbeatDue { worker, boot });
    }

    fn is_verified(&self, job: JobId) -> bool {
        self.by_id.get(&job).is_some_and(|number| self.jobs[*number].new.options.verify.is_some())
    }

    fn is_here(&self, worker: usize, boot: u64) -> bool {
        self.workers[worker].is_up && self.workers[worker].boot == boot
    }

    pub(crate) fn lease_arrives(&mut self, run: u64, worker: usize, boot: u64, order: LeaseOrder) {
        let attempt = order.attempt;
        let this = &mut self.workers[worker];
        let refusal = if !this.is_up {
            return self.answer_after_delay(run, worker, attempt, None);
        } else if this.boot != boot {
            Some(Answer::Refused("it is another process"))
        } else if run < this.epoch {
            Some(Answer::Refused("its epoch is over"))
        } else {
            this.epoch = run;
            None
        };
        if refusal.is_some() {
            return self.answer_after_delay(run, worker, attempt, refusal);
        }
        for settled in &order.settled {
            self.forget(worker, *settled, false);
        }
        let now = self.now;
        let this = &mut self.workers[worker];
        if let Some(known) = this.held.get_mut(&attempt) {
            match known.outcome.clone() {
                Some(outcome) => {
                    known.told_in = known.told_in.max(Some(run));
                    self.answer_after_delay(run, worker, attempt, Some(Answer::Ended(outcome)));
                }
                None => drop(known.waiting.insert(run)),
            }
            return;
        }
        if this.is_draining
            || this.held.values().filter(|held| held.outcome.is_none()).count() >= LEASES_PER_SLOT * this.slots as usize
        {
            let answer = if this.is_draining { Answer::HandedBack } else { Answer::Refused("it is full") };
            return self.answer_after_delay(run, worker, attempt, Some(answer));
        }
        let slot = order.slot as usize % this.slots as usize;
        let waiting = BTreeSet::from([run]);
        let held = SimLease { order, taken_at: now, begun_at: None, told_in: None, waiting, outcome: None, busy: 0 };
        this.held.insert(attempt, held);
        this.lanes[slot].waiting.push_back(attempt);
        self.note(format_args!("worker {worker}"), format_args!("takes {}", short(attempt)));
        self.start_next(worker, slot);
    }

    fn start_next(&mut self, worker: usize, slot: usize) {
        let this = &mut self.workers[worker];
        let lane = &mut this.lanes[slot];
        if lane.running.is_some() {
            return;
        }
        let Some(attempt) = lane.waiting.pop_front() else { return };
        this.last_token += 1;
        let (token, boot) = (this.last_token, this.boot);
        lane.running = Some((attempt, token));
        let Some(order) = this.held.get(&attempt).map(|held| held.order.clone()) else { return };
        let busy = self.compute_time(order.job, &order.tasks);
        if let Some(held) = self.workers[worker].held.get_mut(&attempt) {
            (held.busy, held.begun_at) = (busy, Some(self.now));
        }
        self.note(format_args!("worker {worker}"), format_args!("computes {}", short(attempt)));
        self.audit_started(order.job, &order.tasks);
        self.after(busy, Event::Computed { worker, boot, slot, token });
    }

    pub(crate) fn computed(&mut self, worker: usize, boot: u64, slot: usize, token: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        let Some((attempt, _)) = self.workers[worker].lanes[slot].running.take_if(|(_, running)| *running == token)
        else {
            return;
        };
        if let Some(held) = self.workers[worker].held.get(&attempt) {
            let (order, busy) = (held.order.clone(), held.busy);
            let outcome = if self.fails(order.job, &order.tasks) {
                SimOutcome::Failed
            } else {
                let honest = SimOutcome::pushed(order.kind, &order.work, busy);
                if worker == 0 && self.is_verified(order.job) { honest.lie() } else { honest }
            };
            let this = &mut self.workers[worker];
            let waiting = this.held.get_mut(&attempt).map(|held| {
                held.outcome = Some(outcome.clone());
                held.told_in = held.waiting.last().copied();
                std::mem::take(&mut held.waiting)
            });
            if !order.outlives_connection {
                this.held.remove(&attempt);
            }
            self.note(
                format_args!("worker {worker}"),
                format_args!("has {} of {}", describe(&outcome), short(attempt)),
            );
            for run in waiting.unwrap_or_default() {
                self.answer_after_delay(run, worker, attempt, Some(Answer::Ended(outcome.clone())));
            }
        }
        self.start_next(worker, slot);
    }

    /// Answers the request of a lease; nothing: the process is gone.
    fn answer_after_delay(&mut self, run: u64, worker: usize, attempt: AttemptId, answer: Option<Answer>) {
        let is_cut = self.workers[worker].is_cut;
        match (self.fate(is_cut), answer) {
            (Fate::Arrives(delay), Some(answer)) => self.after(delay, Event::LeaseAnswered { run, attempt, answer }),
            (Fate::Arrives(delay) | Fate::Broken(delay), _) => self.after(delay, Event::LeaseBroken { run, attempt }),
            (Fate::Silent, _) => (),
        }
    }

    pub(crate) fn stop_arrives(&mut self, worker: usize, boot: u64, attempt: AttemptId, epoch: u64) {
        let this = &mut self.workers[worker];
        if this.is_up && this.boot == boot && epoch >= this.epoch {
            this.epoch = epoch;
            self.forget(worker, attempt, true);
        }
    }

    /// The coordinator's end of a lease's connection is closed.
    pub(crate) fn connection_closed(&mut self, worker: usize, boot: u64, attempt: AttemptId, run: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        let Some(held) = self.workers[worker].held.get_mut(&attempt) else { return };
        held.waiting.remove(&run);
        if !held.order.outlives_connection {
            self.forget(worker, attempt, true);
        }
    }

    /// Stops and forgets an attempt; a connection that waits for it is told.
    fn forget(&mut self, worker: usize, attempt: AttemptId, was_told: bool) {
        let Some(held) = self.workers[worker].held.remove(&attempt) else { return };
        let why = if was_told { "stops" } else { "forgets" };
        self.note(format_args!("worker {worker}"), format_args!("{why} {}", short(attempt)));
        for run in held.waiting {
            self.answer_after_delay(run, worker, attempt, Some(Answer::Refused("the attempt was revoked or settled")));
        }
        let slot = held.order.slot as usize % self.workers[worker].slots as usize;
        let lane = &mut self.workers[worker].lanes[slot];
        lane.waiting.retain(|waiting| *waiting != attempt);
        if lane.running.take_if(|(running, _)| *running == attempt).is_some() {
            self.start_next(worker, slot);
        }
    }
}

fn describe(outcome: &SimOutcome) -> String {
    match outcome {
        SimOutcome::Done { value, .. } => format!("the value {}", value.unwrap_or(0)),
        SimOutcome::Failed => "a failure".to_owned(),
    }
}
