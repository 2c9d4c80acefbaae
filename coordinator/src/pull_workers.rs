//! Workers that pull their tasks. They need no registration: a claim makes them known, and a worker that neither claims nor
//! holds anything for a while is forgotten. A name belongs to the worker whose claim waits; workers of one name are told apart
//! by their abilities alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::ClaimRequest;
use dashmap::{DashMap, Entry};
use engine::{Delivery, Engine, WorkerAnnouncement};
use model::{InvalidJob, JobKind, Labels, Resources, WorkerId, check_words};
use scheduler::WorkerKey;

use crate::driver::Driver;

/// A worker that holds nothing and has not asked for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(5);

/// A drained worker that has not asked for this long is gone, and its name is free for another process: longer than a
/// claim may wait.
const DRAIN_KEPT: Duration = Duration::from_secs(90);

/// Workers that are known at the same time; the bound of the map.
const MAX_WORKERS: usize = 65_536;

/// The most kinds that a claim may name.
const MAX_KINDS: usize = 64;

/// The reason why a claim is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("{MAX_WORKERS} pulling workers are known already")]
    TooManyWorkers,
    #[error(
        "the name {0} belongs to a living worker with other kinds, labels or resources: give each worker a worker_id of \
         its own"
    )]
    NameTaken(WorkerId),
}

/// A pulling worker.
#[derive(Clone, Debug)]
pub(crate) struct PullWorker {
    pub(crate) key: WorkerKey,
    pub(crate) kinds: Vec<JobKind>,
    pub(crate) labels: Labels,
    pub(crate) resources: Resources,
    pub(crate) last_seen_at: Instant,
    /// Whether the worker gets no new leases.
    pub(crate) is_draining: bool,
}

/// A worker that claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant {
    pub(crate) key: WorkerKey,
    pub(crate) is_draining: bool,
}

pub(crate) struct PullWorkers {
    driver: Arc<Driver>,
    known: DashMap<WorkerId, PullWorker>,
    /// Workers that were drained before this term and have not asked in it.
    drained_before: DashMap<WorkerId, Instant>,
    /// Called with the names of drained workers whose process has ended.
    gone: Box<dyn Fn(WorkerId) + Send + Sync>,
    /// Workers that came back with other abilities: each is forgotten when its last lease has ended.
    replaced: Mutex<Vec<WorkerKey>>,
}

impl std::fmt::Debug for PullWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullWorkers").field("known", &self.known).finish_non_exhaustive()
    }
}

impl PullWorker {
    /// Whether a claim is of a worker with these abilities. The order of the kinds has no meaning: some languages have none in
    /// their sets.
    fn is_as(&self, claim: &ClaimRequest) -> bool {
        let set = |kinds: &[JobKind]| kinds.iter().copied().collect::<BTreeSet<_>>();
        (&self.labels, self.resources) == (&claim.labels, claim.resources)
            && (self.kinds == claim.kinds || set(&self.kinds) == set(&claim.kinds))
    }

    /// Whether the drained process has ended, as far as the times of its claims show.
    fn is_gone(&self, now: Instant) -> bool {
        self.is_draining && !may_ask(self.last_seen_at, now)
    }

    fn claimant(&self) -> Claimant {
        Claimant { key: self.key, is_draining: self.is_draining }
    }
}

/// Whether the process of a drained worker may still live.
fn may_ask(last_seen_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last_seen_at) <= DRAIN_KEPT
}

impl PullWorkers {
    /// Makes an empty registry, which calls `gone` with the names of drained workers whose process has ended.
    pub(crate) fn new(driver: Arc<Driver>, gone: impl Fn(WorkerId) + Send + Sync + 'static) -> Self {
        let (known, drained_before) = (DashMap::new(), DashMap::new());
        Self { driver, known, drained_before, gone: Box::new(gone), replaced: Mutex::default() }
    }

    /// Notes workers that were drained before this term: their processes may still live and claim.
    pub(crate) fn keep_drained(&self, workers: impl Iterator<Item = WorkerId>, now: Instant) {
        for worker_id in workers {
            self.drained_before.insert(worker_id, now);
        }
    }

    /// Whether a process of this name may be a drained one.
    pub(crate) fn is_drained(&self, worker_id: &WorkerId, now: Instant) -> bool {
        let known = self.known.get(worker_id).is_some_and(|known| known.is_draining && !known.is_gone(now));
        known || self.drained_before.get(worker_id).is_some_and(|since| may_ask(*since, now))
    }

    /// Notes a claim, whose abilities were checked. A worker that comes back with other abilities is a new one; the old one
    /// keeps its leases until they end. While a claim of the old one waits, the old one lives and the new one is refused:
    /// otherwise the claim would wait in vain.
    pub(crate) fn see(&self, claim: &ClaimRequest, now: Instant) -> Result<Claimant, ClaimError> {
        if let Some(mut known) = self.known.get_mut(&claim.worker_id)
            && known.is_as(claim)
            && !known.is_gone(now)
        {
            known.last_seen_at = now;
            return Ok(known.claimant());
        }
        let is_full = self.known.len() >= MAX_WORKERS;
        // A worker may claim several times at once, and must not replace itself.
        match self.known.entry(claim.worker_id.clone()) {
            Entry::Occupied(mut known) if known.get().is_as(claim) && !known.get().is_gone(now) => {
                known.get_mut().last_seen_at = now;
                Ok(known.get().claimant())
            }
            Entry::Occupied(known) if self.driver.view(|engine| engine.has_waiting_claim(known.get().key)) => {
                Err(ClaimError::NameTaken(claim.worker_id.clone()))
            }
            Entry::Occupied(mut known) => {
                let is_draining = known.get().is_draining && !known.get().is_gone(now);
                if known.get().is_gone(now) {
                    (self.gone)(claim.worker_id.clone());
                }
                let worker = PullWorker { is_draining, ..self.join(claim, now) };
                let claimant = worker.claimant();
                let before = known.insert(worker).key;
                self.driver.input(|engine, now| {
                    engine.replace_puller(before, now);
                    if is_draining {
                        engine.drain(claimant.key, now);
                    }
                });
                self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(before);
                Ok(claimant)
            }
            Entry::Vacant(_) if is_full => Err(ClaimError::TooManyWorkers),
            Entry::Vacant(unknown) => {
                let worker = self.join(claim, now);
                let before = self.drained_before.remove(&claim.worker_id);
                let is_draining = before.is_some_and(|(_, since)| may_ask(since, now));
                if is_draining {
                    self.driver.input(|engine, now| engine.drain(worker.key, now));
                }
                Ok(unknown.insert(PullWorker { is_draining, ..worker }).claimant())
            }
        }
    }

    /// Whether a worker of this name is known.
    pub(crate) fn knows(&self, worker_id: &WorkerId) -> bool {
        self.known.contains_key(worker_id)
    }

    /// Gives a worker no new leases until another process claims under its name; it may end its present ones.
    pub(crate) fn drain(&self, worker_id: &WorkerId) {
        let Some(mut known) = self.known.get_mut(worker_id) else { return };
        known.is_draining = true;
        let key = known.key;
        self.driver.input(|engine, now| engine.drain(key, now));
    }

    /// The key of a worker that reports on a lease, such as one from before a restart of the coordinator. An unknown worker
    /// gets no tasks until it claims.
    pub(crate) fn recall(&self, worker_id: &WorkerId, now: Instant) -> Result<WorkerKey, ClaimError> {
        if let Some(mut known) = self.known.get_mut(worker_id) {
            known.last_seen_at = now;
            return Ok(known.key);
        }
        let claim = ClaimRequest {
            worker_id: worker_id.clone(),
            kinds: Vec::new(),
            labels: Labels::new(),
            resources: Resources::default(),
            max_tasks: 1,
            wait_seconds: 0.0,
        };
        self.see(&claim, now).map(|claimant| claimant.key)
    }

    fn join(&self, claim: &ClaimRequest, now: Instant) -> PullWorker {
        let ClaimRequest { worker_id, kinds, labels, resources, .. } = claim.clone();
        // Workers whose kinds come in other orders are alike to the scheduler.
        let distinct: BTreeSet<_> = kinds.iter().copied().collect();
        let announcement = WorkerAnnouncement {
            id: worker_id,
            delivery: Delivery::Pulled,
            slots: 1,
            kinds: distinct.into_iter().collect(),
            labels: labels.clone(),
            resources,
            is_reserved: false,
            leases_per_slot: 1,
        };
        let (key, _) = self.driver.input(|engine, now| engine.join(announcement, &[], now));
        PullWorker { key, kinds, labels, resources, last_seen_at: now, is_draining: false }
    }

    /// Workers that ask for tasks.
    pub(crate) fn asking(&self) -> u64 {
        self.known.iter().filter(|worker| !worker.is_draining).count() as u64
    }

    /// Drained workers that are known.
    pub(crate) fn draining(&self) -> u64 {
        self.known.iter().filter(|worker| worker.is_draining).count() as u64
    }

    /// All known workers, by name.
    pub(crate) fn snapshot(&self) -> Vec<(WorkerId, PullWorker)> {
        let mut workers: Vec<_> =
            self.known.iter().map(|worker| (worker.key().clone(), worker.value().clone())).collect();
        workers.sort_by(|(one, _), (other, _)| one.cmp(other));
        workers
    }

    /// Forgets the workers that have been away for long and hold nothing, and those that may join anew.
    pub(crate) fn sweep(&self, now: Instant) {
        let readmitted = self.driver.input(Engine::take_readmitted);
        self.known.retain(|_, worker| {
            let is_away = now.saturating_duration_since(worker.last_seen_at) > FORGET_AFTER;
            !((is_away || readmitted.contains(&worker.key)) && self.lose_if_idle(worker.key))
        });
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|key| !self.lose_if_idle(*key));
    }

    fn lose_if_idle(&self, key: WorkerKey) -> bool {
        self.driver.input(|engine, now| {
            let is_idle = engine.leases_of(key) == 0;
            if is_idle {
                engine.lose(key, now);
            }
            is_idle
        })
    }
}

/// Checks the abilities in a claim.
pub(crate) fn check_abilities(claim: &ClaimRequest) -> Result<(), InvalidJob> {
    check_words("labels", &claim.labels)?;
    if claim.kinds.is_empty() || claim.kinds.len() > MAX_KINDS {
        return Err(InvalidJob::new("kinds", format!("must name 1 to {MAX_KINDS} kinds of job that the worker runs")));
    }
    claim
        .kinds
        .iter()
        .try_for_each(|kind| workloads::kind(*kind).map(|_| ()))
        .map_err(|error| InvalidJob { field: "kinds", message: error.message })
}
