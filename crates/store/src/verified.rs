//! Verification of a job, as it is kept with the job.

use jiff::Timestamp;
use model::{BootId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::stored::{InvalidStored, VERSION, check_version, invalid, to_json};

/// Workers that are kept with a job as set aside: the latest.
const MAX_SET_ASIDE: usize = 64;

/// Verification of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Leases that two workers have computed with the same outcome.
    pub compared: u64,
    /// Leases of which some outcome was wrong.
    pub mismatches: u64,
    /// Tasks that were opened again.
    pub recomputed_tasks: u64,
    /// Workers that were set aside for it, in that order.
    pub set_aside: Vec<SetAsideWorker>,
}

/// A worker whose outcomes are not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAsideWorker {
    /// Its name.
    pub id: WorkerId,
    /// This run of its process; none of a worker that pulls.
    pub boot: Option<BootId>,
    /// Time at which the worker was set aside.
    pub at: Timestamp,
}

impl Verified {
    /// Notes that a worker was set aside. Returns whether it is new.
    pub(crate) fn set_aside(&mut self, worker: &SetAsideWorker) -> bool {
        let is_known = |known: &SetAsideWorker| (&known.id, known.boot) == (&worker.id, worker.boot);
        let is_new = !self.set_aside.iter().any(is_known);
        if is_new {
            self.set_aside.push(worker.clone());
            let excess = self.set_aside.len().saturating_sub(MAX_SET_ASIDE);
            self.set_aside.drain(..excess);
        }
        is_new
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredVerified {
    v: u32,
    compared: u64,
    mismatches: u64,
    recomputed_tasks: u64,
    set_aside: Vec<StoredWorker>,
}

#[derive(Serialize, Deserialize)]
struct StoredWorker {
    id: WorkerId,
    boot: Option<BootId>,
    at: Timestamp,
}

/// The verification of a job as it is stored; nothing where nothing has happened.
#[must_use]
pub fn verified_to_stored(verified: &Verified) -> Option<String> {
    if *verified == Verified::default() {
        return None;
    }
    let Verified { compared, mismatches, recomputed_tasks, set_aside } = verified.clone();
    let worker = |SetAsideWorker { id, boot, at }| StoredWorker { id, boot, at };
    let set_aside = set_aside.into_iter().map(worker).collect();
    Some(to_json(&StoredVerified { v: VERSION, compared, mismatches, recomputed_tasks, set_aside }))
}

/// The verification of a job from its stored form.
///
/// # Errors
/// It is damaged, or of a later version.
pub fn verified_from_stored(text: Option<&str>) -> Result<Verified, InvalidStored> {
    let what = "a job's verification";
    let Some(text) = text else { return Ok(Verified::default()) };
    let stored: StoredVerified = serde_json::from_str(text).map_err(|error| invalid(what, error))?;
    check_version(what, stored.v)?;
    let StoredVerified { compared, mismatches, recomputed_tasks, set_aside, .. } = stored;
    let worker = |StoredWorker { id, boot, at }| SetAsideWorker { id, boot, at };
    Ok(Verified { compared, mismatches, recomputed_tasks, set_aside: set_aside.into_iter().map(worker).collect() })
}
