//! Simulated workers that pull: one claim at a time, renewed while it computes, reported until the report is answered.

mod reports;

use std::time::Duration;

use engine::{ClaimId, HeldLease, HeldState, PulledLease};
use model::{AttemptId, JobKind};
use rand::RngExt;
use serde_json::value::RawValue;

pub(crate) use reports::{PullAnswer, SentReport};

use crate::audit::Division;
use crate::coordinator::short;
use crate::disk::is_composed;
use crate::outcome::SimOutcome;
use crate::plan::{MS, Micros, SECOND};
use crate::world::{Event, World};

/// Longest wait of a claim for tasks.
const CLAIM_WAIT: Micros = 15 * SECOND;

#[derive(Debug, Default)]
pub(crate) struct Puller {
    pub(crate) is_up: bool,
    boot: u64,
    work: Option<Pulled>,
    /// Time of the last request without an answer.
    asked_at: Option<Micros>,
}

#[derive(Debug)]
struct Pulled {
    lease: HeldLease,
    kind: JobKind,
    payloads: Payloads,
    begun_at: Micros,
    done_at: Micros,
    outcome: Option<SimOutcome>,
    /// The coordinator that was told first that the tasks failed.
    told_in: Option<u64>,
    hand_back: Option<HandBack>,
}

/// The payloads of a lease's tasks: numbers those of the kind `tasks`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payloads {
    given: Vec<Box<RawValue>>,
    numbers: Vec<u64>,
}

/// A request to take tasks back, until its answer comes.
#[derive(Clone, Copy, Debug)]
struct HandBack {
    /// The first of the tasks.
    from: u64,
    /// The coordinator that was asked last: the answer of an earlier one says nothing about the lease of this one.
    asked_in: u64,
    /// Whether the worker computes and reports the other tasks meanwhile.
    goes_on: bool,
    /// Time at which the worker gives the request up, and keeps the tasks.
    until: Micros,
    /// The end of the computation of all tasks.
    all_done_at: Micros,
}

impl Puller {
    pub(crate) fn attempt(&self) -> Option<AttemptId> {
        self.work.as_ref().map(|work| work.lease.attempt)
    }
}

impl World {
    pub(crate) fn puller_starts(&mut self, puller: usize) {
        let boot = self.pullers[puller].boot + 1;
        self.pullers[puller] = Puller { is_up: true, boot, ..Puller::default() };
        self.note(format_args!("puller {puller}"), format_args!("starts as process {boot}"));
        self.after(0, Event::PullerActs { puller, boot });
    }

    pub(crate) fn kill_puller(&mut self, puller: usize) {
        if std::mem::take(&mut self.pullers[puller].is_up) {
            self.note(format_args!("puller {puller}"), "is killed");
            self.pullers[puller].work = None;
            let pause = self.rng.random_range(SECOND..20 * SECOND);
            self.after(pause, Event::PullerStarts { puller });
        }
    }

    fn is_pulling(&self, puller: usize, boot: u64) -> bool {
        self.pullers[puller].is_up && self.pullers[puller].boot == boot
    }

    /// Claims, renews or reports, and looks again after a while.
    pub(crate) fn puller_acts(&mut self, puller: usize, boot: u64) {
        if !self.is_pulling(puller, boot) {
            return;
        }
        let (now, run) = (self.now, self.run_number());
        self.finish_computing(puller);
        let this = &mut self.pullers[puller];
        match &this.work {
            Some(work) => {
                let pause = if work.done_at <= now { SECOND } else { SECOND.min(work.done_at - now) };
                self.give_hand_back_up(puller);
                self.report(puller);
                self.after(pause.max(MS), Event::PullerActs { puller, boot });
            }
            None if this.asked_at.is_some_and(|at| now - at < CLAIM_WAIT + 2 * SECOND) && run > 0 => {
                self.after(SECOND, Event::PullerActs { puller, boot });
            }
            None => {
                this.asked_at = (run > 0).then_some(now);
                if run > 0 {
                    let max_tasks = self.rng.random_range(1..20);
                    // A claim that is sent twice would lease twice: each is one request.
                    let delay = self.delay();
                    self.after(delay, Event::ClaimArrives { run, puller, boot, max_tasks });
                }
                self.after(SECOND, Event::PullerActs { puller, boot });
            }
        }
    }

    pub(crate) fn claim_arrives(&mut self, run: u64, puller: usize, boot: u64, max_tasks: u64) {
        if self.coordinator.as_ref().is_none_or(|found| found.run != run || found.is_stopping) {
            if self.is_pulling(puller, boot) {
                self.pullers[puller].asked_at = None;
            }
            return;
        }
        let Some(key) = self.puller_key(puller, true) else { return };
        if let Some(lease) = self.input(|engine, now| engine.claim(key, max_tasks, now)).flatten() {
            self.audit_claim(key, lease.attempt);
            return self.deliver_claim(puller, boot, lease);
        }
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        coordinator.last_claim += 1;
        let claim = ClaimId(coordinator.last_claim);
        coordinator.claims.insert(claim, (puller, boot));
        self.input(|engine, now| engine.wait_for_tasks(claim, key, max_tasks, now));
        // The request may break before.
        let wait =
            if self.is_calm || self.rng.random_bool(0.8) { CLAIM_WAIT } else { self.rng.random_range(0..CLAIM_WAIT) };
        self.after(wait, Event::ClaimEnds { run, claim });
    }

    pub(crate) fn claim_ends(&mut self, run: u64, claim: ClaimId) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run) else { return };
        if let Some((puller, boot)) = coordinator.claims.remove(&claim) {
            self.input(|engine, _| engine.forget_claim(claim));
            let delay = self.delay();
            self.after(delay, Event::Claimed { puller, boot, run, lease: None, payloads: Vec::new() });
        }
    }

    /// A claim is answered with tasks: their payloads are read where the engine does not have them.
    pub(crate) fn deliver_claim(&mut self, puller: usize, boot: u64, mut lease: PulledLease) {
        let are_too_long = is_composed(lease.kind) && self.rng.random_bool(0.1);
        if are_too_long && lease.tasks.end - lease.tasks.start > 1 {
            let beyond = self.rng.random_range(lease.tasks.start + 1..lease.tasks.end);
            if self.divide(lease.attempt, beyond, Division::Undelivered) == Some(true) {
                lease.tasks.end = beyond;
            }
        }
        let (attempt, tasks) = (lease.attempt, lease.tasks.clone());
        self.note(
            "coordinator",
            format_args!("leases {} (job {} tasks {tasks:?}) to puller {puller}", short(attempt), self.name(lease.job)),
        );
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let run = coordinator.run;
        let mut payloads =
            if is_composed(lease.kind) { coordinator.disk.payloads(lease.job, &tasks) } else { Vec::new() };
        let sim = self.by_id.get(&lease.job).map(|number| &self.jobs[*number]);
        if let Some(sim) = sim.filter(|sim| tasks.end == sim.new.tasks)
            && let Some((last, input)) = payloads.last_mut().zip(sim.fold_input)
        {
            *last = input;
        }
        let delay = self.delay();
        let is_lost = !self.is_calm && self.rng.random_bool(self.plan.loss);
        if is_lost || !self.is_pulling(puller, boot) {
            return self.audit.is_lossy = true;
        }
        self.after(delay, Event::Claimed { puller, boot, run, lease: Some(lease), payloads });
    }

    pub(crate) fn claimed(&mut self, puller: usize, boot: u64, _: u64, lease: Option<PulledLease>, numbers: Vec<u64>) {
        if !self.is_pulling(puller, boot) {
            return;
        }
        self.pullers[puller].asked_at = None;
        let Some(PulledLease { job, attempt, kind, tasks, payloads: given, .. }) = lease else { return };
        if self.pullers[puller].work.is_some() {
            // A claim that was given up is answered late: its lease expires.
            return;
        }
        let busy = self.compute_time(job, &tasks);
        self.note(format_args!("puller {puller}"), format_args!("computes {}", short(attempt)));
        self.audit_started(job, &tasks);
        // A worker that is too slow for the time limit computes on.
        let is_in_time = self.time_limit(job, &tasks).is_none_or(|limit| busy < limit);
        if is_in_time && !self.is_calm && self.rng.random_bool(0.15) {
            let pause = self.rng.random_range(0..busy);
            self.after(pause, Event::PullerHandsBack { puller, boot, attempt });
        }
        let lease = HeldLease { attempt, job, tasks, slot: 0, age: Duration::ZERO, state: HeldState::Running };
        let payloads = Payloads { given: given.unwrap_or_default(), numbers };
        let (begun_at, done_at) = (self.now, self.now + busy);
        self.pullers[puller].work =
            Some(Pulled { lease, kind, payloads, begun_at, done_at, outcome: None, told_in: None, hand_back: None });
        self.after(busy, Event::PullerActs { puller, boot });
    }
}
