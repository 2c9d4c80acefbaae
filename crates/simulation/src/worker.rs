//! Simulated workers that leases are sent to: they hold leases of stored jobs as the real one does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use engine::{HeldLease, HeldState, LeaseOrder, Reconciled};
use model::{AttemptId, JobId};
use rand::RngExt;

use crate::coordinator::short;
use crate::network::Fate;
use crate::outcome::{Answer, SimOutcome};
use crate::plan::{MS, Micros, SECOND};
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
            age: Duration::from_micros(now - self.taken_at),
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

    pub(crate) fn heartbeat_due(&mut self, worker: usize, boot: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        self.give_orphans_up(worker);
        let now = self.now;
        let changes_connection = !self.is_calm && self.rng.random_bool(0.02);
        let this = &mut self.workers[worker];
        this.connection += u64::from(changes_connection);
        let (held, is_draining, connection) = (this.lists(now), this.is_draining, this.connection);
        let is_cut = this.is_cut;
        let run = self.run_number();
        if run > 0 {
            self.post(is_cut, Event::HeartbeatArrives { run, worker, boot, connection, held, is_draining });
        }
        let pause = if is_draining {
            SECOND / 5
        } else if run == 0 {
            self.rng.random_range(SECOND / 2..SECOND)
        } else {
            SECOND
        };
        self.after(pause, Event::HeartbeatDue { worker, boot });
        if is_draining && self.workers[worker].held.is_empty() {
            self.kill_worker(worker, "has drained");
        }
    }

    fn give_orphans_up(&mut self, worker: usize) {
        let (now, timeout) = (self.now, self.plan.orphan_timeout);
        let this = &self.workers[worker];
        if now - this.last_taken_at < timeout {
            return;
        }
        let old = this.held.values().filter(|held| held.order.outlives_connection && now - held.taken_at >= timeout);
        for attempt in old.map(|held| held.order.attempt).collect::<Vec<_>>() {
            self.note(format_args!("worker {worker}"), format_args!("gives {} up as an orphan", short(attempt)));
            self.audit.is_lossy = true;
            self.forget(worker, attempt, false);
        }
    }

    pub(crate) fn heartbeat_answered(&mut self, worker: usize, boot: u64, run: u64, reconciled: Reconciled) {
        let now = self.now;
        if !self.is_here(worker, boot) {
            return;
        }
        let this = &mut self.workers[worker];
        this.last_taken_at = now;
        if run < this.epoch {
            return;
        }
        this.epoch = run;
        for attempt in reconciled.settled {
            self.forget(worker, attempt, false);
        }
        for attempt in reconciled.deliver {
            let this = &self.workers[worker];
            let Some(held) = this.held.get(&attempt) else { continue };
            let (lease, report, is_cut) = (held.listed(now), held.outcome.clone(), this.is_cut);
            if report.is_some() {
                self.note(format_args!("worker {worker}"), format_args!("delivers {}", short(attempt)));
                self.post(is_cut, Event::ReportArrives { run, worker, boot, lease, report });
            }
        }
    }

    /// A report to the coordinator on a lease whose connection is gone: an outcome, or that it is given back.
    pub(crate) fn report_arrives(
        &mut self,
        run: u64,
        worker: usize,
        boot: u64,
        lease: &HeldLease,
        report: Option<SimOutcome>,
    ) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run) else { return };
        // The worker is found by its name, as in the real coordinator; an unknown worker counts as a pulling one.
        let key = coordinator.registrations.get(&worker).map(|known| known.key);
        let Some(key) = key else { return };
        let attempt = lease.attempt;
        if !self.hold(key, lease) || !self.count(attempt, report, true) {
            let is_cut = self.workers[worker].is_cut;
            self.post(is_cut, Event::ReportRefused { worker, boot, attempt });
        }
    }

    pub(crate) fn report_refused(&mut self, worker: usize, boot: u64, attempt: AttemptId) {
        if self.is_here(worker, boot) {
            let was_pending = self.audit.is_pending(attempt);
            self.forget(worker, attempt, false);
            if was_pending {
                self.violate(format!("{} is void for its worker while its outcome is not durable", short(attempt)));
            }
        }
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
                Some(outcome) => self.answer_after_delay(run, worker, attempt, Some(Answer::Ended(outcome))),
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
        let held = SimLease { order, taken_at: now, waiting: BTreeSet::from([run]), outcome: None, busy: 0 };
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
        let busy = self.compute_time(order.job, order.tasks.end - order.tasks.start);
        if let Some(held) = self.workers[worker].held.get_mut(&attempt) {
            held.busy = busy;
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

    /// Drains as on SIGTERM.
    pub(crate) fn drain_worker(&mut self, worker: usize) {
        let this = &mut self.workers[worker];
        if !this.is_up || std::mem::replace(&mut this.is_draining, true) {
            return;
        }
        let (boot, is_cut, run) = (this.boot, this.is_cut, self.run_number());
        self.note(format_args!("worker {worker}"), "drains");
        self.post(is_cut, Event::DeregisterArrives { run, worker, boot });
        let patience = self.rng.random_range(SECOND..8 * SECOND);
        self.after(patience, Event::DrainOver { worker, boot });
    }

    /// Gives back all leases that the worker still holds.
    pub(crate) fn drain_over(&mut self, worker: usize, boot: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        let (now, run) = (self.now, self.run_number());
        let is_cut = self.workers[worker].is_cut;
        for (attempt, held) in std::mem::take(&mut self.workers[worker].held) {
            let lease = held.listed(now);
            if held.waiting.is_empty() && held.order.outlives_connection && run > 0 {
                self.post(is_cut, Event::ReportArrives { run, worker, boot, lease, report: None });
            }
            for run in held.waiting {
                self.answer_after_delay(run, worker, attempt, Some(Answer::HandedBack));
            }
        }
        self.audit.is_lossy = true;
        self.kill_worker(worker, "ends");
    }

    pub(crate) fn kill_worker(&mut self, worker: usize, what: &str) {
        let this = &mut self.workers[worker];
        if !this.is_up {
            return;
        }
        this.is_up = false;
        let (connection, is_cut, held) = (this.connection, this.is_cut, std::mem::take(&mut this.held));
        self.note(format_args!("worker {worker}"), what);
        let run = self.run_number();
        self.post(is_cut, Event::HeartbeatClosed { run, worker, connection });
        for (attempt, held) in held {
            for run in held.waiting {
                self.answer_after_delay(run, worker, attempt, None);
            }
        }
        let pause = self.rng.random_range(100 * MS..8 * SECOND);
        self.after(pause, Event::WorkerStarts { worker });
    }

    /// The network does not reach a worker any more; its connections break at one end, at both or at none.
    pub(crate) fn cut(&mut self, worker: usize) {
        self.note("network", format_args!("worker {worker} is cut off"));
        self.workers[worker].is_cut = true;
        let (boot, run) = (self.workers[worker].boot, self.run_number());
        let waiting = |held: &SimLease| held.waiting.iter().map(|run| (held.order.attempt, *run)).collect::<Vec<_>>();
        let connections: Vec<_> = self.workers[worker].held.values().flat_map(waiting).collect();
        for (attempt, of) in connections {
            let delay = self.rng.random_range(0..2 * SECOND);
            if self.rng.random_bool(0.5) {
                self.after(delay, Event::ConnectionClosed { worker, boot, attempt, run: of });
            }
            if self.rng.random_bool(0.5) {
                self.after(delay, Event::LeaseBroken { run: of, attempt });
            }
        }
        if self.rng.random_bool(0.5) {
            let connection = self.workers[worker].connection;
            self.after(SECOND, Event::HeartbeatClosed { run, worker, connection });
            self.workers[worker].connection += 1;
        }
        let pause = self.rng.random_range(100 * MS..20 * SECOND);
        self.after(pause, Event::Heal { worker });
    }

    pub(crate) fn heal(&mut self, worker: usize) {
        if std::mem::take(&mut self.workers[worker].is_cut) {
            self.note("network", format_args!("worker {worker} is reachable again"));
        }
    }
}

fn describe(outcome: &SimOutcome) -> String {
    match outcome {
        SimOutcome::Done { value, .. } => format!("the value {}", value.unwrap_or(0)),
        SimOutcome::Failed => "a failure".to_owned(),
    }
}
