//! Simulated workers that pull: one claim at a time, renewed while it computes, reported until the report is answered.

use std::time::Duration;

use engine::{ClaimId, HeldLease, HeldState, PulledLease};
use model::{AttemptId, JobKind};
use rand::RngExt;

use crate::coordinator::short;
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
    outcome: SimOutcome,
    done_at: Micros,
    /// The coordinator that was told first that the tasks failed.
    told_in: Option<u64>,
}

/// A request of a pulling worker for its lease.
#[derive(Clone, Debug)]
pub(crate) enum PullReport {
    Renewal,
    Outcome(SimOutcome),
    Return,
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
        let this = &mut self.pullers[puller];
        match &mut this.work {
            Some(work) => {
                let is_done = work.done_at <= now;
                let lease = HeldLease { age: Duration::ZERO, ..work.lease.clone() };
                let (outcome, until_done) = (work.outcome.clone(), work.done_at.saturating_sub(now));
                if is_done && run > 0 {
                    work.told_in.get_or_insert(run);
                }
                // A failure that was reported to an earlier coordinator may count already.
                let is_given_back =
                    matches!(outcome, SimOutcome::Failed) && work.told_in.is_some_and(|told_in| told_in < run);
                let report = match (is_done, is_given_back) {
                    (false, _) => PullReport::Renewal,
                    (true, false) => PullReport::Outcome(outcome),
                    (true, true) => PullReport::Return,
                };
                if run > 0 {
                    self.post(false, Event::PullReportArrives { run, puller, boot, lease, report });
                }
                let pause = if is_done { SECOND } else { SECOND.min(until_done) };
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
            self.audit_claim(lease.attempt);
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
    pub(crate) fn deliver_claim(&mut self, puller: usize, boot: u64, lease: PulledLease) {
        let (attempt, tasks) = (lease.attempt, lease.tasks.clone());
        self.note(
            "coordinator",
            format_args!("leases {} (job {} tasks {tasks:?}) to puller {puller}", short(attempt), self.name(lease.job)),
        );
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let run = coordinator.run;
        let payloads =
            if lease.kind == JobKind::TASKS { coordinator.disk.payloads(lease.job, &tasks) } else { Vec::new() };
        let delay = self.delay();
        let is_lost = !self.is_calm && self.rng.random_bool(self.plan.loss);
        if is_lost || !self.is_pulling(puller, boot) {
            return self.audit.is_lossy = true;
        }
        self.after(delay, Event::Claimed { puller, boot, run, lease: Some(lease), payloads });
    }

    pub(crate) fn claimed(&mut self, puller: usize, boot: u64, _: u64, lease: Option<PulledLease>, payloads: Vec<u64>) {
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
        let outcome = if self.fails(job, &tasks) {
            SimOutcome::Failed
        } else {
            SimOutcome::pulled(kind, &tasks, given.as_deref(), &payloads, busy)
        };
        self.note(format_args!("puller {puller}"), format_args!("computes {}", short(attempt)));
        self.audit_started(job, &tasks);
        let lease = HeldLease { attempt, job, tasks, slot: 0, age: Duration::ZERO, state: HeldState::Running };
        self.pullers[puller].work = Some(Pulled { lease, outcome, done_at: self.now + busy, told_in: None });
        self.after(busy, Event::PullerActs { puller, boot });
    }

    pub(crate) fn pull_report_arrives(
        &mut self,
        run: u64,
        puller: usize,
        boot: u64,
        lease: &HeldLease,
        report: PullReport,
    ) {
        if self.run_number() != run {
            return;
        }
        let Some(key) = self.puller_key(puller, false) else { return };
        let attempt = lease.attempt;
        let is_taken = self.hold(key, lease)
            && match &report {
                PullReport::Outcome(outcome) => self.count(attempt, Some(outcome.clone()), false),
                PullReport::Return => self.count(attempt, None, false),
                PullReport::Renewal => {
                    self.input(|engine, now| engine.renew(attempt, now)).is_some_and(|renewed| renewed.is_ok())
                }
            };
        let was_renewal = matches!(report, PullReport::Renewal);
        self.post(false, Event::PullReportAnswered { puller, boot, attempt, is_taken, was_renewal });
    }

    pub(crate) fn pull_report_answered(
        &mut self,
        puller: usize,
        boot: u64,
        attempt: AttemptId,
        is_taken: bool,
        was_renewal: bool,
    ) {
        if !self.is_pulling(puller, boot) || self.pullers[puller].attempt() != Some(attempt) {
            return;
        }
        // A report that was taken is over; a refused one is void.
        if !(is_taken && was_renewal) {
            self.pullers[puller].work = None;
            self.after(MS, Event::PullerActs { puller, boot });
        }
    }
}
