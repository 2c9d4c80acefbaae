//! Reports of pulling workers: they name the lease, and come late, twice, in any order and to later coordinators.

use std::ops::Range;
use std::time::Duration;

use engine::HeldLease;
use model::AttemptId;
use rand::RngExt;
use scheduler::WorkerKey;

use super::{HandBack, Payloads, Pulled, Puller};
use crate::audit::Division;
use crate::coordinator::short;
use crate::outcome::SimOutcome;
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::registrations::{named, puller_name};
use crate::world::{Event, World};

/// Interval at which a report that waits for a coordinator is sent.
const HELD_INTERVAL: Micros = 50 * MS;

/// A request of a pulling worker for its lease.
#[derive(Clone, Debug)]
pub(crate) enum PullReport {
    Renewal,
    Outcome(SimOutcome),
    /// All of its tasks are handed back.
    Return,
    /// The tasks from this one on are handed back.
    ReturnFrom(u64),
}

/// A report on its way.
#[derive(Clone, Debug)]
pub(crate) struct SentReport {
    puller: usize,
    boot: u64,
    /// The lease as the report names it.
    lease: HeldLease,
    report: PullReport,
    /// Whether a service between the two keeps the report until a coordinator takes it.
    is_held: bool,
}

/// The answer to such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullAnswer {
    Renewed,
    /// The lease is over: its outcome counts, or its tasks are taken back.
    Over,
    /// The lease ends at this task.
    EndsAt(u64),
    /// The lease cannot be divided.
    StaysWhole,
    /// The attempt holds other tasks than the report names.
    OtherTasks,
    /// The attempt holds no lease.
    Stale,
}

impl PullReport {
    /// Whether the report may be taken by two coordinators.
    fn may_be_held(&self) -> bool {
        !matches!(self, Self::Outcome(SimOutcome::Failed))
    }
}

impl Payloads {
    /// The payloads of the first tasks, as many as these.
    fn first(&self, tasks: &Range<u64>) -> Self {
        let most = usize::try_from(tasks.end - tasks.start).unwrap_or(usize::MAX);
        Self {
            given: self.given.iter().take(most).cloned().collect(),
            numbers: self.numbers.iter().take(most).copied().collect(),
        }
    }
}

impl Pulled {
    /// The tasks that reports name: those that are not handed back.
    fn named(&self) -> Range<u64> {
        let HeldLease { tasks, .. } = &self.lease;
        let kept = self.hand_back.map(|hand_back| tasks.start..hand_back.from).filter(|kept| !kept.is_empty());
        kept.unwrap_or_else(|| tasks.clone())
    }

    /// Whether the worker computes.
    fn computes(&self) -> bool {
        let goes_on = |hand_back: HandBack| hand_back.goes_on && hand_back.from > self.lease.tasks.start;
        self.outcome.is_none() && self.hand_back.is_none_or(goes_on)
    }

    /// The requests that are due at the coordinator of a run.
    fn reports(&mut self, run: u64) -> Vec<PullReport> {
        let computes = self.computes();
        let state = match &self.outcome {
            // A failure that was reported to an earlier coordinator may count already.
            Some(SimOutcome::Failed) if *self.told_in.get_or_insert(run) < run => PullReport::Return,
            Some(outcome) => PullReport::Outcome(outcome.clone()),
            None => PullReport::Renewal,
        };
        let Some(hand_back) = self.hand_back.as_mut() else { return vec![state] };
        hand_back.asked_in = run;
        match hand_back.from {
            from if from == self.lease.tasks.start => vec![PullReport::Return],
            from if computes || self.outcome.is_some() => vec![PullReport::ReturnFrom(from), state],
            from => vec![PullReport::ReturnFrom(from)],
        }
    }

    /// Forgets that tasks are to be handed back: the worker has the whole lease.
    fn keep_all(&mut self, now: Micros) {
        let Some(HandBack { all_done_at, .. }) = self.hand_back.take() else { return };
        // The outcome is of the other tasks alone.
        self.outcome = None;
        self.done_at = all_done_at.max(now);
    }
}

impl World {
    fn pulled(&mut self, puller: usize, boot: u64, attempt: AttemptId) -> Option<&mut Pulled> {
        let Puller { is_up, boot: current, work, .. } = &mut self.pullers[puller];
        work.as_mut().filter(|work| *is_up && *current == boot && work.lease.attempt == attempt)
    }

    /// Ends the computation of a lease once its time is over.
    pub(super) fn finish_computing(&mut self, puller: usize) {
        let (now, this) = (self.now, &self.pullers[puller]);
        let Some(work) = this.work.as_ref().filter(|work| work.computes() && work.done_at <= now) else { return };
        let (job, tasks, kind) = (work.lease.job, work.named(), work.kind);
        let (payloads, busy) = (work.payloads.first(&tasks), now - work.begun_at);
        let outcome = if self.fails(job, &tasks) {
            SimOutcome::Failed
        } else {
            let outcome = SimOutcome::pulled(kind, &tasks, &payloads.given, &payloads.numbers, busy);
            if self.rng.random_bool(0.5) { outcome.summed(kind) } else { outcome }
        };
        if let Some(work) = self.pullers[puller].work.as_mut() {
            work.outcome = Some(outcome);
        }
    }

    /// Renews the lease, or reports what has become of it.
    pub(super) fn report(&mut self, puller: usize) {
        let (run, this) = (self.run_number(), &mut self.pullers[puller]);
        let (boot, Some(work)) = (this.boot, this.work.as_mut()) else { return };
        let lease = HeldLease { age: Duration::ZERO, tasks: work.named(), ..work.lease.clone() };
        // Without a coordinator only reports are sent that wait for one.
        let reports = if run > 0 { work.reports(run) } else { vec![PullReport::Renewal] };
        for report in reports {
            let is_held = report.may_be_held() && self.plan.faults != Faults::None && self.rng.random_bool(0.3);
            let sent = SentReport { puller, boot, lease: lease.clone(), report, is_held };
            if run > 0 || is_held {
                self.send_report(run, sent);
            }
        }
    }

    fn send_report(&mut self, run: u64, sent: SentReport) {
        if self.plan.faults == Faults::All && !self.is_calm && self.rng.random_bool(0.1) {
            // A renewal is repeated, and then may come to two coordinators.
            let is_held = matches!(sent.report, PullReport::Renewal);
            let late = self.rng.random_range(0..8 * SECOND);
            self.after(late, Event::PullReportArrives { run, sent: SentReport { is_held, ..sent.clone() } });
        }
        self.post(false, Event::PullReportArrives { run, sent });
    }

    /// Hands tasks of the lease back that are not begun: all of them or the last ones.
    pub(crate) fn puller_hands_back(&mut self, puller: usize, boot: u64, attempt: AttemptId) {
        let now = self.now;
        let Some(work) = self.pulled(puller, boot, attempt) else { return };
        if work.outcome.is_some() || work.hand_back.is_some() || work.done_at <= now {
            return;
        }
        let (job, tasks, all_done_at) = (work.lease.job, work.lease.tasks.clone(), work.done_at);
        let from = self.rng.random_range(tasks.clone());
        let goes_on = self.rng.random_bool(0.5);
        let is_impatient = self.plan.faults == Faults::All && self.rng.random_bool(0.3);
        let until = if is_impatient { now + self.rng.random_range(MS..2 * SECOND) } else { Micros::MAX };
        self.note(format_args!("puller {puller}"), format_args!("hands back {} from task {from} on", short(attempt)));
        self.audit_not_started(job, &(from..tasks.end));
        if let Some(work) = self.pulled(puller, boot, attempt) {
            work.hand_back = Some(HandBack { from, asked_in: 0, goes_on, until, all_done_at });
            if goes_on {
                work.done_at = done_with(work, from, now);
            }
        }
        self.report(puller);
    }

    /// Keeps tasks that were to be handed back if no coordinator has answered for too long: none of them must wait for ever.
    pub(super) fn give_hand_back_up(&mut self, puller: usize) {
        let now = self.now;
        let Some(work) = self.pullers[puller].work.as_mut() else { return };
        let is_over = |hand_back: &HandBack| hand_back.until <= now && hand_back.from > work.lease.tasks.start;
        let Some(HandBack { from, .. }) = work.hand_back.filter(is_over) else { return };
        let (job, tasks, attempt) = (work.lease.job, from..work.lease.tasks.end, work.lease.attempt);
        work.keep_all(now);
        self.note(format_args!("puller {puller}"), format_args!("keeps all of {} after all", short(attempt)));
        self.audit_started(job, &tasks);
    }

    pub(crate) fn pull_report_arrives(&mut self, run: u64, sent: SentReport) {
        let current = self.run_number();
        if current != run {
            if !sent.is_held {
                return;
            }
            if current == 0 {
                return self.after(HELD_INTERVAL, Event::PullReportArrives { run, sent });
            }
            // It may take a lease up that has ended, or of which another worker has a part.
            let work = self.pulled(sent.puller, sent.boot, sent.lease.attempt);
            let is_present = work.is_some_and(|work| work.named() == sent.lease.tasks);
            self.audit.is_lossy |= !is_present;
        }
        let SentReport { puller, boot, lease, report, .. } = sent;
        let Some(key) = self.puller_key(puller, false) else { return };
        let answer = self.answer_to_puller(puller, key, &lease, report);
        let (attempt, named) = (lease.attempt, lease.tasks);
        self.post(false, Event::PullReportAnswered { run: current, puller, boot, attempt, named, answer });
    }

    fn answer_to_puller(&mut self, puller: usize, key: WorkerKey, lease: &HeldLease, report: PullReport) -> PullAnswer {
        let (attempt, named) = (lease.attempt, named(puller_name(puller), lease));
        if !self.hold(key, &named, lease) {
            return PullAnswer::Stale;
        }
        match report {
            PullReport::Renewal => {
                let renewed = self.input(|engine, now| engine.renew(attempt, now));
                if renewed.is_some_and(|renewed| renewed.is_ok()) { PullAnswer::Renewed } else { PullAnswer::Stale }
            }
            PullReport::Outcome(outcome) => {
                self.divide_at_named(attempt, named.tasks.end);
                let is_about = self.input(|engine, _| engine.is_about(attempt, Some(&named))).unwrap_or(false);
                if matches!(outcome, SimOutcome::Done { .. }) && !is_about {
                    self.note(
                        "coordinator",
                        format_args!("{} holds other tasks than {:?}", short(attempt), named.tasks),
                    );
                    return PullAnswer::OtherTasks;
                }
                self.count(attempt, Some(outcome), false);
                PullAnswer::Over
            }
            PullReport::Return => {
                self.account_dividing(attempt, lease.tasks.start, Division::HandedBack);
                self.count(attempt, None, false);
                PullAnswer::Over
            }
            PullReport::ReturnFrom(beyond) => match self.divide(attempt, beyond, Division::HandedBack) {
                Some(true) => PullAnswer::EndsAt(beyond),
                Some(false) => PullAnswer::StaysWhole,
                None => PullAnswer::Stale,
            },
        }
    }

    pub(crate) fn pull_report_answered(
        &mut self,
        run: u64,
        (puller, boot): (usize, u64),
        attempt: AttemptId,
        named: &Range<u64>,
        answer: PullAnswer,
    ) {
        let now = self.now;
        let Some(work) = self.pulled(puller, boot, attempt) else { return };
        match answer {
            PullAnswer::Renewed => (),
            PullAnswer::Over | PullAnswer::Stale => {
                self.pullers[puller].work = None;
                self.after(MS, Event::PullerActs { puller, boot });
            }
            PullAnswer::EndsAt(beyond) => {
                let hand_back = work.hand_back.take_if(|asked| asked.asked_in == run && asked.from == beyond);
                let Some(HandBack { goes_on, .. }) = hand_back else { return };
                if !goes_on {
                    work.done_at = done_with(work, beyond, now);
                }
                work.lease.tasks.end = beyond;
                work.payloads = work.payloads.first(&work.lease.tasks);
            }
            PullAnswer::StaysWhole => {
                let start = work.lease.tasks.start;
                let asked = work.hand_back.filter(|asked| asked.asked_in == run && asked.from > start);
                let Some(HandBack { from, .. }) = asked else { return };
                let (job, rest) = (work.lease.job, from..work.lease.tasks.end);
                work.keep_all(now);
                self.audit_started(job, &rest);
            }
            PullAnswer::OtherTasks => {
                // Tasks that a worker has kept after all are another's. Where it waits for an answer, that comes.
                if work.hand_back.is_none() && work.lease.tasks == *named {
                    let (job, tasks, from) = (work.lease.job, named.clone(), named.start);
                    let all_done_at = work.done_at;
                    work.hand_back =
                        Some(HandBack { from, asked_in: 0, goes_on: false, until: Micros::MAX, all_done_at });
                    self.audit_not_started(job, &tasks);
                    self.report(puller);
                }
            }
        }
    }
}

/// The end of a computation that stops before the task `from`.
fn done_with(work: &Pulled, from: u64, now: Micros) -> Micros {
    let Range { start, end } = work.lease.tasks;
    now.max(work.begun_at + (work.done_at - work.begun_at) * (from - start) / (end - start))
}
