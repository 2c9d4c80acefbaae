//! The lease that a report names: an attempt from before a restart takes its lease up again, and tasks that a report does not name go
//! back.

use std::time::{Duration, Instant};

use api::LeaseName;
use engine::{HeldLease, HeldState, Holding, NamedLease};
use model::AttemptId;
use service::ApiError;

use super::stale;
use crate::http::State;
use crate::http::errors::from_claim;
use crate::term::Term;

/// The lease as the engine takes its name.
pub(super) fn to_named(name: &LeaseName) -> NamedLease {
    let LeaseName { worker_id, job, first, beyond } = name;
    NamedLease { worker: worker_id.clone(), job: *job, tasks: *first..*beyond }
}

/// The time that the attempt has held its lease. An attempt from before a restart takes its lease up again, if its report names
/// the lease and its tasks are still open.
pub(super) fn hold(
    state: &State,
    term: &Term,
    attempt: AttemptId,
    named: Option<&LeaseName>,
) -> Result<Duration, ApiError> {
    let lease = named.map(to_named);
    match term.driver.input(|engine, now| engine.hear(attempt, lease.as_ref(), now)) {
        Holding::Ended => Err(stale()),
        Holding::Unknown => adopt(state, term, attempt, named.ok_or_else(stale)?),
        Holding::Other => Err(ApiError::Conflict("the report names another lease than the attempt holds".to_owned())),
        Holding::Held(held_for) => {
            // An adopted lease has the tasks that its first report named, which may have been written before a division.
            if !term.driver.view(|engine| engine.has_made(attempt)) {
                end_at_named(state, term, attempt, named);
            }
            Ok(held_for)
        }
    }
}

fn adopt(state: &State, term: &Term, attempt: AttemptId, named: &LeaseName) -> Result<Duration, ApiError> {
    let LeaseName { worker_id, job, first, beyond } = named;
    let worker = match state.workers.key(worker_id) {
        Some(key) => key,
        None => term.pull_workers.recall(worker_id, Instant::now()).map_err(from_claim)?,
    };
    let held = HeldLease {
        attempt,
        job: *job,
        tasks: *first..*beyond,
        slot: 0,
        age: Duration::ZERO,
        state: HeldState::Running,
    };
    let is_held = term.driver.input(|engine, now| engine.adopt_reported(worker, &held, now));
    if is_held { Ok(Duration::ZERO) } else { Err(stale()) }
}

/// The name of what is left of a lease when the tasks from `beyond` on are handed back. Another worker may hold those already, if
/// an earlier coordinator has answered the same request.
pub(super) fn without_rest(named: LeaseName, beyond: Option<u64>) -> LeaseName {
    let end = beyond.filter(|beyond| *beyond > named.first && *beyond < named.beyond);
    LeaseName { beyond: end.unwrap_or(named.beyond), ..named }
}

/// Takes back the last tasks of a lease that a report does not name: its worker has handed them back, and that request is late
/// or went to an earlier coordinator. A lease that cannot be divided there stays whole.
pub(super) fn end_at_named(state: &State, term: &Term, attempt: AttemptId, named: Option<&LeaseName>) {
    let Some(LeaseName { beyond, .. }) = named else { return };
    if term.driver.input(|engine, now| engine.end_at_named(attempt, *beyond, now)) {
        state.lease_log.shortened(attempt, *beyond);
    }
}
