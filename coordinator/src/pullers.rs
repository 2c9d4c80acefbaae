//! Workers that fetch their tasks instead of being sent them. They need no registration: a claim makes them known, and
//! who neither claims nor holds anything for a while is forgotten.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::ClaimRequest;
use dashmap::{DashMap, Entry};
use model::{InvalidJob, JobKind, Labels, Resources, WorkerId, check_words};
use scheduler::{WorkerKey, WorkerSpec};

use crate::grid::Grid;

/// A worker that holds nothing and has not asked for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(5);

/// Workers that are known at the same time; the bound of the map.
const MAX_PULLERS: usize = 65_536;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("as many workers as may be known at the same time fetch tasks already")]
    Full,
}

#[derive(Debug)]
struct Puller {
    key: WorkerKey,
    kinds: Vec<JobKind>,
    labels: Labels,
    resources: Resources,
    last_seen_at: Instant,
}

#[derive(Debug)]
pub(crate) struct Pullers {
    grid: Arc<Grid>,
    known: DashMap<WorkerId, Puller>,
    /// Workers that came back with other abilities: each is forgotten when what it held has ended.
    replaced: Mutex<Vec<WorkerKey>>,
}

impl Puller {
    fn is_as(&self, claim: &ClaimRequest) -> bool {
        (&self.kinds, &self.labels, self.resources) == (&claim.kinds, &claim.labels, claim.resources)
    }
}

impl Pullers {
    pub(crate) fn new(grid: Arc<Grid>) -> Self {
        Self { grid, known: DashMap::new(), replaced: Mutex::default() }
    }

    /// The key of a worker that claims, whose abilities were checked. One that comes back with other abilities is a new worker; what the old one held
    /// stays its own until it ends.
    pub(crate) fn see(&self, claim: &ClaimRequest, now: Instant) -> Result<WorkerKey, ClaimError> {
        if let Some(mut known) = self.known.get_mut(&claim.worker_id)
            && known.is_as(claim)
        {
            known.last_seen_at = now;
            return Ok(known.key);
        }
        let is_full = self.known.len() >= MAX_PULLERS;
        // A worker may claim several times at once, and must not replace itself.
        match self.known.entry(claim.worker_id.clone()) {
            Entry::Occupied(mut known) if known.get().is_as(claim) => {
                known.get_mut().last_seen_at = now;
                Ok(known.get().key)
            }
            Entry::Occupied(mut known) => {
                let puller = self.join(claim, now);
                let key = puller.key;
                let before = known.insert(puller).key;
                self.grid.worker_retired(before);
                self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(before);
                Ok(key)
            }
            Entry::Vacant(_) if is_full => Err(ClaimError::Full),
            Entry::Vacant(unknown) => Ok(unknown.insert(self.join(claim, now)).key),
        }
    }

    fn join(&self, claim: &ClaimRequest, now: Instant) -> Puller {
        let key = self.grid.next_worker_key();
        let ClaimRequest { kinds, labels, resources, .. } = claim.clone();
        let spec = WorkerSpec { slots: 1, kinds: kinds.clone(), labels: labels.clone(), resources, is_reserved: false };
        self.grid.worker_joined(key, claim.worker_id.clone(), spec);
        Puller { key, kinds, labels, resources, last_seen_at: now }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets who has been away for long and holds nothing.
    pub(crate) fn sweep(&self, now: Instant) {
        self.known.retain(|_, puller| {
            let is_away = now.saturating_duration_since(puller.last_seen_at) > FORGET_AFTER;
            let is_over = is_away && self.grid.leases_of(puller.key) == 0;
            if is_over {
                self.grid.worker_lost(puller.key);
            }
            !is_over
        });
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|key| {
            let is_over = self.grid.leases_of(*key) == 0;
            if is_over {
                self.grid.worker_lost(*key);
            }
            !is_over
        });
    }
}

/// Checks what a worker says of itself.
pub(crate) fn check_abilities(claim: &ClaimRequest) -> Result<(), InvalidJob> {
    check_words("labels", &claim.labels)?;
    let invalid = |field, message: &str| Err(InvalidJob { field, message: message.to_owned() });
    if claim.kinds.is_empty() || claim.kinds.len() > JobKind::ALL.len() {
        return invalid("kinds", "must name the kinds of job that the worker runs, each once");
    }
    Ok(())
}
