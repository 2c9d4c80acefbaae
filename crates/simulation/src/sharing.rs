//! Several coordinators over one store, in virtual time: clocks that differ, coordinators that hang, die and are cut off from
//! the store or from their workers, answers of the store that are lost.
//!
//! Each coordinator is what the real one is made of: [`engine::Candidacy`], [`engine::Engine`] and the store's own decisions
//! in memory. No worker dies here, so that every task must be computed once, whoever leads, as long as coordinators reach
//! their workers.

mod client;
mod event;
mod leader;
mod member;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::AttemptId;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use store::memory::Memory;

use crate::plan::{MS, Micros, SECOND};
use crate::trace::Trace;
use crate::{Run, Violation};
use client::SharedJob;
pub(crate) use event::Event;
use member::{Member, Power};
use workers::SharedWorker;

/// Longest time from the last fault to the end of all jobs.
const SETTLING: Micros = 120 * SECOND;

/// More steps than any run needs.
const MAX_STEPS: u64 = 400_000;

/// The longest time without a leader once the faults have stopped.
const LONGEST_INTERREGNUM: Micros = 3 * SECOND;

pub(crate) struct Sharing {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) now: Micros,
    start: Instant,
    sequence: u64,
    events: BTreeMap<(Micros, u64), Event>,
    pub(crate) memory: Memory,
    store_clock: Arc<AtomicU64>,
    pub(crate) members: Vec<Member>,
    pub(crate) workers: Vec<SharedWorker>,
    pub(crate) jobs: Vec<SharedJob>,
    /// The highest epoch in which a coordinator has acted.
    pub(crate) acted: u64,
    busy: Micros,
    /// Whether coordinators are cut off from their workers: then tasks may run twice.
    pub(crate) has_cuts: bool,
    /// Attempts at tasks that another worker takes too long for: that they run again is no fault.
    pub(crate) second_attempts: BTreeSet<AttemptId>,
    /// Share of the store's answers that are lost.
    pub(crate) lost_answers: f64,
    /// Batches that the store has applied, by epoch and number.
    pub(crate) applied: BTreeSet<(u64, u64)>,
    leaderless_since: Option<Micros>,
    pub(crate) is_calm: bool,
    trace: Trace,
    violation: Option<String>,
    steps: u64,
}

/// Runs a seed. With `is_traced` its trace is printed.
#[must_use]
pub fn run_shared(seed: u64, is_traced: bool) -> Run {
    let mut world = Sharing::new(seed, is_traced);
    let panicked = crate::caught(|| world.run());
    let failure = panicked.or_else(|| world.violation.take());
    let hash = world.trace.hash();
    let failure = failure.map(|what| Violation { what, trace: world.trace.take() });
    Run { seed, steps: world.steps, hash, failure }
}

impl Sharing {
    fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (members, workers, jobs) = (rng.random_range(2..5), rng.random_range(1..4), rng.random_range(2..9));
        let busy = rng.random_range(8..30) * SECOND;
        let mut world = Self {
            now: 0,
            start: Instant::now() + Duration::from_hours(48),
            sequence: 0,
            events: BTreeMap::new(),
            memory: Memory::new(),
            store_clock: Arc::default(),
            members: Vec::new(),
            workers: Vec::new(),
            jobs: Vec::new(),
            acted: 0,
            busy,
            has_cuts: rng.random_bool(0.3),
            lost_answers: [0.0, 0.02, 0.2][rng.random_range(0..3)],
            second_attempts: BTreeSet::new(),
            applied: BTreeSet::new(),
            leaderless_since: None,
            is_calm: false,
            trace: Trace::new(is_traced),
            violation: None,
            steps: 0,
            rng,
        };
        for _ in 0..members {
            world.add_member();
        }
        for _ in 0..workers {
            let slots = world.rng.random_range(1..4);
            world.workers.push(SharedWorker::new(slots));
        }
        for worker in 0..workers {
            world.after(MS, Event::HeartbeatDue { worker });
        }
        for _ in 0..jobs {
            world.plan_job(busy);
        }
        world.after(2 * SECOND, Event::Fault);
        world
    }

    fn run(&mut self) {
        while self.violation.is_none() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return self.violate("the run does not end");
            }
            let Some(((at, _), event)) = self.events.pop_first() else {
                return self.violate("nothing happens any more");
            };
            self.now = at;
            self.store_clock.store(at, Ordering::Relaxed);
            if !self.is_calm && at >= self.busy {
                self.calm_down();
            }
            self.handle(event);
            self.check_leader();
            if self.is_calm && self.steps.is_multiple_of(64) && self.is_over() {
                return self.check_end();
            }
            if self.now > self.busy + SETTLING {
                return self.violate("not everything is over in time");
            }
        }
    }

    fn handle(&mut self, event: Event) {
        // A process that hangs takes no events; they wait until it wakes up.
        if let Some(member) = event.member()
            && self.members[member].power == Power::Hangs
        {
            return self.members[member].inbox.push(event);
        }
        match event {
            Event::CandidacyDue { member, boot } => self.candidacy_due(member, boot),
            Event::StoreAsked { member, boot, question, asked_at } => {
                self.store_asked(member, boot, question, asked_at);
            }
            Event::StoreAnswered { member, boot, answer, asked_at } => {
                self.store_answered(member, boot, answer, asked_at);
            }
            Event::EngineDue { member, boot, epoch } => self.engine_due(member, boot, epoch),
            Event::BatchDue { member, boot, epoch } => self.batch_due(member, boot, epoch),
            Event::BatchArrives { member, boot, epoch } => self.batch_arrives(member, boot, epoch),
            Event::BatchAnswered { member, boot, epoch, answer } => self.batch_answered(member, boot, epoch, answer),
            Event::EventsDue { member, boot, epoch } => self.events_due(member, boot, epoch),
            Event::LeaseArrives { worker, member, boot, epoch, order } => {
                self.lease_arrives(worker, member, boot, epoch, *order);
            }
            Event::LeaseUndeliverable { member, boot, epoch, attempt } => {
                self.lease_ended(member, boot, epoch, attempt, leader::End::Undeliverable);
            }
            Event::LeaseBroken { member, boot, epoch, attempt } => {
                self.lease_ended(member, boot, epoch, attempt, leader::End::Broken);
            }
            Event::LeaseRefused { member, boot, epoch, attempt } => {
                self.lease_ended(member, boot, epoch, attempt, leader::End::Refused);
            }
            Event::Computed { worker, attempt } => self.computed(worker, attempt),
            Event::OutcomeArrives { member, boot, worker, attempt, report, is_delivery } => {
                self.outcome_arrives(member, boot, worker, attempt, report, is_delivery);
            }
            Event::StopArrives { worker, epoch, attempt } => self.stop_arrives(worker, epoch, attempt),
            Event::HeartbeatDue { worker } => self.heartbeat_due(worker),
            Event::HeartbeatArrives { member, boot, worker, seen, held } => {
                self.heartbeat_arrives(member, boot, worker, seen, &held);
            }
            Event::HeartbeatAnswered { worker, member, boot, epoch, reconciled } => {
                self.heartbeat_answered(worker, member, boot, epoch, reconciled);
            }
            Event::AnnounceArrives { worker, epoch } => self.announce_arrives(worker, epoch),
            Event::Submit { job } => self.submit(job),
            Event::Fault => self.fault(),
            Event::Starts { member } => self.start_member(member),
            Event::Wakes { member } => self.wake(member),
            Event::StoreHeals { member } => self.cut_from_store(member, false),
            Event::WorkersHeal { member } => self.members[member].is_cut_from_workers = false,
        }
    }

    /// A fault of one coordinator, mostly of the leader.
    fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let next = self.rng.random_range(SECOND..6 * SECOND);
        self.after(next, Event::Fault);
        let leader = self.members.iter().position(|member| member.term.is_some());
        let any = self.rng.random_range(0..self.members.len());
        let member = leader.filter(|_| self.rng.random_bool(0.7)).unwrap_or(any);
        let pause = self.rng.random_range(200 * MS..5 * SECOND);
        match self.rng.random_range(0..if self.has_cuts { 5 } else { 4 }) {
            0 => self.kill(member, pause),
            1 => self.hang(member, pause),
            2 => self.stop_in_order(member),
            3 => {
                self.cut_from_store(member, true);
                self.after(pause, Event::StoreHeals { member });
            }
            _ => {
                self.note(format_args!("member {member} is cut off from its workers"));
                self.members[member].is_cut_from_workers = true;
                self.after(pause, Event::WorkersHeal { member });
            }
        }
    }

    fn calm_down(&mut self) {
        self.note("the faults stop");
        (self.is_calm, self.lost_answers) = (true, 0.0);
        for member in 0..self.members.len() {
            self.cut_from_store(member, false);
            self.members[member].is_cut_from_workers = false;
            match self.members[member].power {
                Power::Up => (),
                Power::Hangs => self.wake(member),
                Power::Down => self.start_member(member),
            }
        }
    }

    /// A coordinator acts as the leader: it sends, settles or acknowledges. None of an earlier epoch may after that.
    pub(crate) fn act(&mut self, member: usize, epoch: u64) {
        if epoch < self.acted {
            let acted = self.acted;
            self.violate(format!("member {member} acts in epoch {epoch} after epoch {acted} has begun"));
        }
        self.acted = self.acted.max(epoch);
    }

    fn check_leader(&mut self) {
        let now = self.now;
        let leads = (0..self.members.len()).any(|member| self.members[member].is_trusted(self.local(member, now)));
        if leads || !self.is_calm {
            self.leaderless_since = None;
        } else if now - *self.leaderless_since.get_or_insert(now) > LONGEST_INTERREGNUM {
            self.violate("no coordinator leads");
        }
    }

    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// The transit time of a message.
    pub(crate) fn delay(&mut self) -> Micros {
        let most = if self.rng.random_bool(0.9) { 2 * MS } else { 60 * MS };
        self.rng.random_range(100..most)
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        self.trace.note(self.now, "", what);
    }

    pub(crate) fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.trace.note(self.now, "VIOLATION", &what);
        self.violation.get_or_insert(what);
    }
}
