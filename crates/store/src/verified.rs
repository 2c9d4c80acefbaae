//! Verification of a job, its attempts that reached their time limit and its work, as they are kept with the job.

use jiff::Timestamp;
use model::{AttemptId, BootId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::stored::{InvalidStored, VERSION, check_version, invalid, to_json};

/// Workers that are kept with a job as set aside: the latest.
const MAX_SET_ASIDE: usize = 64;

/// Attempts that are kept with a job as timed out: the latest.
pub const MAX_TIMED_OUT: usize = 64;

/// Verification of a job, its attempts that must not count again, and the work that it has done.
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
    /// Attempts that counted as failed by their time limit, the latest last. A worker may hold such an attempt until a later
    /// coordinator tells it.
    pub timed_out: Vec<AttemptId>,
    /// Share of the work that was done before the end of the job, in billionths, for jobs whose tasks differ in their work.
    pub work_done: Option<u32>,
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

    /// Notes that an attempt counts as failed by its time limit. Returns whether the list is longer now.
    pub(crate) fn time_out(&mut self, attempt: AttemptId) -> bool {
        let is_longer = self.timed_out.len() < MAX_TIMED_OUT;
        if !is_longer {
            self.timed_out.remove(0);
        }
        self.timed_out.push(attempt);
        is_longer
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
    /// A release that does not know this field ignores it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timed_out: Vec<AttemptId>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    work_done: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct StoredWorker {
    id: WorkerId,
    boot: Option<BootId>,
    at: Timestamp,
}

/// The verification of a job and its timed-out attempts as they are stored; nothing where nothing has happened.
#[must_use]
pub fn verified_to_stored(verified: &Verified) -> Option<String> {
    if *verified == Verified::default() {
        return None;
    }
    let Verified { compared, mismatches, recomputed_tasks, set_aside, timed_out, work_done } = verified.clone();
    let worker = |SetAsideWorker { id, boot, at }| StoredWorker { id, boot, at };
    let set_aside = set_aside.into_iter().map(worker).collect();
    Some(to_json(&StoredVerified {
        v: VERSION,
        compared,
        mismatches,
        recomputed_tasks,
        set_aside,
        timed_out,
        work_done,
    }))
}

/// The verification of a job and its timed-out attempts from their stored form.
///
/// # Errors
/// It is damaged, or of a later version.
pub fn verified_from_stored(text: Option<&str>) -> Result<Verified, InvalidStored> {
    let what = "a job's verification";
    let Some(text) = text else { return Ok(Verified::default()) };
    let stored: StoredVerified = serde_json::from_str(text).map_err(|error| invalid(what, error))?;
    check_version(what, stored.v)?;
    let StoredVerified { compared, mismatches, recomputed_tasks, set_aside, timed_out, work_done, .. } = stored;
    let worker = |StoredWorker { id, boot, at }| SetAsideWorker { id, boot, at };
    let set_aside = set_aside.into_iter().map(worker).collect();
    Ok(Verified { compared, mismatches, recomputed_tasks, set_aside, timed_out, work_done })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn attempt(number: usize) -> AttemptId {
        AttemptId(Uuid::from_u128(number as u128))
    }

    #[test]
    fn the_latest_attempts_that_timed_out_are_kept() {
        let mut verified = Verified::default();
        let grown: Vec<_> = (0..MAX_TIMED_OUT + 2).map(|number| verified.time_out(attempt(number))).collect();
        assert!(grown.iter().enumerate().all(|(number, grown)| *grown == (number < MAX_TIMED_OUT)), "{grown:?}");
        assert!(verified.timed_out.iter().copied().eq((2..MAX_TIMED_OUT + 2).map(attempt)));
    }

    #[test]
    fn a_job_without_timed_out_attempts_is_stored_as_by_the_release_before() {
        let text = r#"{"v":1,"compared":1,"mismatches":0,"recomputed_tasks":0,"set_aside":[]}"#;
        let mut verified = verified_from_stored(Some(text)).expect("well formed");
        assert_eq!(verified, Verified { compared: 1, ..Verified::default() });
        assert_eq!(verified_to_stored(&verified).as_deref(), Some(text));
        verified.time_out(attempt(7));
        let text =
            text.replace(r#""set_aside":[]"#, r#""set_aside":[],"timed_out":["00000000-0000-0000-0000-000000000007"]"#);
        assert_eq!(verified_to_stored(&verified).as_deref(), Some(text.as_str()));
        assert_eq!(verified_from_stored(Some(&text)).expect("well formed"), verified);
        verified.work_done = Some(250_000_000);
        let text = verified_to_stored(&verified).expect("something has happened");
        assert!(text.ends_with(r#","work_done":250000000}"#), "{text}");
        assert_eq!(verified_from_stored(Some(&text)).expect("well formed"), verified);
    }
}
