//! All parts of a run, the virtual clock and the queue of events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use engine::{ClaimId, HeldLease, LeaseOrder, Now, PulledLease, Reconciled};
use jiff::Timestamp;
use model::{AttemptId, JobId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use scheduler::WorkerKey;
use store::memory::Memory;

use crate::asks::Asked;
use crate::audit::Audit;
use crate::client::Action;
use crate::coordinator::Coordinator;
use crate::jobs::SimJob;
use crate::outcome::{Answer, SimOutcome};
use crate::plan::{Faults, Micros, Plan, SECOND};
use crate::puller::{PullAnswer, Puller, SentReport};
use crate::trace::Trace;
use crate::worker::SimWorker;

/// Longest time from the last fault to the end of all jobs.
pub(crate) const SETTLING: Micros = 1_800 * SECOND;

/// More steps than any run needs: a run that takes more goes round in circles.
const MAX_STEPS: u64 = 3_000_000;

/// 2026-01-01T00:00:00Z in seconds.
const EPOCH_START: i64 = 1_767_225_600;

/// Something that happens at a moment. `run` is the coordinator's epoch, `boot` the worker's process: what is meant for
/// an earlier one has no effect.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    LeaseArrives { run: u64, worker: usize, boot: u64, order: Box<LeaseOrder> },
    LeaseUndeliverable { run: u64, attempt: AttemptId },
    LeaseBroken { run: u64, attempt: AttemptId },
    LeaseAnswered { run: u64, attempt: AttemptId, answer: Answer },
    StopArrives { worker: usize, boot: u64, attempt: AttemptId, epoch: u64 },
    ConnectionClosed { worker: usize, boot: u64, attempt: AttemptId, run: u64 },
    Computed { worker: usize, boot: u64, slot: usize, token: u64 },
    HeartbeatDue { worker: usize, boot: u64 },
    HeartbeatArrives { run: u64, worker: usize, boot: u64, connection: u64, held: Vec<HeldLease>, is_draining: bool },
    HeartbeatAnswered { worker: usize, boot: u64, run: u64, reconciled: Reconciled },
    HeartbeatClosed { run: u64, worker: usize, connection: u64 },
    DeregisterArrives { run: u64, worker: usize, boot: u64 },
    ReportArrives { run: u64, worker: usize, boot: u64, lease: HeldLease, report: Option<SimOutcome> },
    ReportRefused { worker: usize, boot: u64, attempt: AttemptId },
    DrainOver { worker: usize, boot: u64 },
    WorkerStarts { worker: usize },
    Heal { worker: usize },
    PullerActs { puller: usize, boot: u64 },
    PullerStarts { puller: usize },
    ClaimArrives { run: u64, puller: usize, boot: u64, max_tasks: u64 },
    ClaimEnds { run: u64, claim: ClaimId },
    Claimed { puller: usize, boot: u64, run: u64, lease: Option<PulledLease>, payloads: Vec<u64> },
    PullReportArrives { run: u64, sent: SentReport },
    PullReportAnswered { run: u64, puller: usize, boot: u64, attempt: AttemptId, named: Range<u64>, answer: PullAnswer },
    PullerHandsBack { puller: usize, boot: u64, attempt: AttemptId },
    Submit { job: usize },
    Act { job: usize, action: Action },
    Ask { ask: usize },
    AskerLeaves { ask: usize },
    DiskStarts { run: u64 },
    DiskEnds { run: u64 },
    Composed { run: u64, job: JobId },
    Tick { run: u64 },
    Sweep { run: u64 },
    CoordinatorStarts,
    CoordinatorStops { run: u64 },
    Fault,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) now: Micros,
    start: Instant,
    sequence: u64,
    events: BTreeMap<(Micros, u64), Event>,
    pub(crate) memory: Memory,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) workers: Vec<SimWorker>,
    pub(crate) pullers: Vec<Puller>,
    pub(crate) jobs: Vec<SimJob>,
    pub(crate) by_id: BTreeMap<JobId, usize>,
    pub(crate) asks: Vec<Asked>,
    pub(crate) registered: BTreeMap<WorkerKey, usize>,
    pub(crate) audit: Audit,
    pub(crate) trace: Trace,
    /// Whether the faults have stopped.
    pub(crate) is_calm: bool,
    pub(crate) disk_fails: bool,
    pub(crate) violation: Option<String>,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let mut world = Self {
            rng,
            now: 0,
            start: Instant::now() + Duration::from_hours(24),
            sequence: 0,
            events: BTreeMap::new(),
            memory: Memory::new(),
            coordinator: None,
            workers: Vec::new(),
            pullers: Vec::new(),
            jobs: Vec::new(),
            by_id: BTreeMap::new(),
            asks: Vec::new(),
            registered: BTreeMap::new(),
            audit: Audit::default(),
            trace: Trace::new(is_traced),
            is_calm: false,
            disk_fails: false,
            violation: None,
            steps: 0,
            plan,
        };
        let plan = format!("{:?}", world.plan);
        world.trace.note(0, "plan", plan);
        world.populate();
        world
    }

    fn populate(&mut self) {
        self.start_coordinator();
        for worker in 0..self.plan.workers {
            let slots = self.rng.random_range(1..4);
            self.workers.push(SimWorker::new(slots));
            let at = self.rng.random_range(0..SECOND);
            self.after(at, Event::WorkerStarts { worker });
        }
        for puller in 0..self.plan.pullers {
            self.pullers.push(Puller::default());
            let at = self.rng.random_range(0..SECOND);
            self.after(at, Event::PullerStarts { puller });
        }
        self.plan_clients();
        if self.plan.faults != Faults::None {
            let at = self.rng.random_range(0..2 * self.plan.fault_interval);
            self.after(at, Event::Fault);
        }
    }

    /// Runs until everything is over, something is wrong or `until_step` is reached.
    pub(crate) fn run(&mut self, until_step: u64) {
        while self.violation.is_none() && self.steps < until_step {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return self.violate("the run does not end");
            }
            if !self.is_calm && self.now >= self.plan.busy {
                self.calm_down();
            }
            let next_event = self.events.keys().next().map(|(at, _)| *at);
            let timeout = self.coordinator.as_ref().and_then(|coordinator| coordinator.engine.poll_timeout());
            let timeout = timeout.map(|at| self.micros_of(at).max(self.now));
            match (next_event, timeout) {
                (Some(event), Some(timeout)) if timeout <= event => self.time_out(timeout),
                (None, Some(timeout)) => self.time_out(timeout),
                (Some(_), _) => {
                    let Some(((at, _), event)) = self.events.pop_first() else { return };
                    self.now = at;
                    self.handle(event);
                }
                (None, None) => return self.violate("nothing happens any more"),
            }
            self.check_step();
            if self.is_calm && self.steps.is_multiple_of(64) && self.is_over() {
                return self.check_end();
            }
            if self.now > self.plan.busy + SETTLING {
                let open = self.describe_open();
                return self.violate(format!("not everything is over in time: {open}"));
            }
        }
    }

    fn time_out(&mut self, at: Micros) {
        self.now = at;
        self.input(engine::Engine::handle_timeout);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::LeaseArrives { run, worker, boot, order } => self.lease_arrives(run, worker, boot, *order),
            Event::LeaseUndeliverable { run, attempt } => self.lease_undeliverable(run, attempt),
            Event::LeaseBroken { run, attempt } => self.lease_broken(run, attempt),
            Event::LeaseAnswered { run, attempt, answer } => self.lease_answered(run, attempt, answer),
            Event::StopArrives { worker, boot, attempt, epoch } => self.stop_arrives(worker, boot, attempt, epoch),
            Event::ConnectionClosed { worker, boot, attempt, run } => {
                self.connection_closed(worker, boot, attempt, run)
            }
            Event::Computed { worker, boot, slot, token } => self.computed(worker, boot, slot, token),
            Event::HeartbeatDue { worker, boot } => self.heartbeat_due(worker, boot),
            Event::HeartbeatArrives { run, worker, boot, connection, held, is_draining } => {
                self.heartbeat_arrives(run, worker, boot, connection, &held, is_draining);
            }
            Event::HeartbeatAnswered { worker, boot, run, reconciled } => {
                self.heartbeat_answered(worker, boot, run, reconciled);
            }
            Event::HeartbeatClosed { run, worker, connection } => self.heartbeat_closed(run, worker, connection),
            Event::DeregisterArrives { run, worker, boot } => self.deregister_arrives(run, worker, boot),
            Event::ReportArrives { run, worker, boot, lease, report } => {
                self.report_arrives(run, worker, boot, &lease, report);
            }
            Event::ReportRefused { worker, boot, attempt } => self.report_refused(worker, boot, attempt),
            Event::DrainOver { worker, boot } => self.drain_over(worker, boot),
            Event::WorkerStarts { worker } => self.worker_starts(worker),
            Event::Heal { worker } => self.heal(worker),
            Event::PullerActs { puller, boot } => self.puller_acts(puller, boot),
            Event::PullerStarts { puller } => self.puller_starts(puller),
            Event::ClaimArrives { run, puller, boot, max_tasks } => self.claim_arrives(run, puller, boot, max_tasks),
            Event::ClaimEnds { run, claim } => self.claim_ends(run, claim),
            Event::Claimed { puller, boot, run, lease, payloads } => self.claimed(puller, boot, run, lease, payloads),
            Event::PullReportArrives { run, sent } => self.pull_report_arrives(run, sent),
            Event::PullReportAnswered { run, puller, boot, attempt, named, answer } => {
                self.pull_report_answered(run, (puller, boot), attempt, &named, answer);
            }
            Event::PullerHandsBack { puller, boot, attempt } => self.puller_hands_back(puller, boot, attempt),
            Event::Submit { job } => self.submit(job),
            Event::Act { job, action } => self.act(job, action),
            Event::Ask { ask } => self.ask(ask),
            Event::AskerLeaves { ask } => self.asker_leaves(ask),
            Event::DiskStarts { run } => self.disk_starts(run),
            Event::DiskEnds { run } => self.disk_ends(run),
            Event::Composed { run, job } => self.composed(run, job),
            Event::Tick { run } => self.tick(run),
            Event::Sweep { run } => self.sweep(run),
            Event::CoordinatorStarts => self.start_coordinator(),
            Event::CoordinatorStops { run } => self.stopped(run),
            Event::Fault => self.fault(),
        }
    }

    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    pub(crate) fn instant(&self, at: Micros) -> Instant {
        self.start + Duration::from_micros(at)
    }

    /// Deadlines are between microseconds: a timer fires after its deadline.
    fn micros_of(&self, at: Instant) -> Micros {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    pub(crate) fn clock(&self) -> Now {
        let at = Timestamp::from_second(EPOCH_START).unwrap_or(Timestamp::UNIX_EPOCH);
        let at = at.saturating_add(Duration::from_micros(self.now)).unwrap_or(at);
        Now { instant: self.instant(self.now), at }
    }

    pub(crate) fn note(&mut self, actor: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.trace.note(self.now, actor, what);
    }

    pub(crate) fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.trace.note(self.now, "VIOLATION", &what);
        self.violation.get_or_insert(what);
    }

    /// The faults stop, and stopped processes are started again.
    fn calm_down(&mut self) {
        self.note("world", "the faults stop");
        self.is_calm = true;
        self.disk_fails = false;
        for worker in 0..self.workers.len() {
            self.heal(worker);
        }
        self.finish_clients();
    }

    /// The current coordinator's epoch; 0 while there is none.
    pub(crate) fn run_number(&self) -> u64 {
        self.coordinator.as_ref().map_or(0, |coordinator| coordinator.run)
    }

    pub(crate) fn new_uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    /// Attempts that some worker computes or keeps.
    pub(crate) fn held_attempts(&self) -> BTreeSet<AttemptId> {
        let pushed = self.workers.iter().flat_map(|worker| worker.held.keys().copied());
        pushed.chain(self.pullers.iter().filter_map(Puller::attempt)).collect()
    }
}
