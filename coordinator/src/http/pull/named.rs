//! The lease that a report names, compared with the lease that its attempt holds. The two differ where requests come late, twice
//! or to another coordinator: the worker handed tasks back before or after it wrote the report.

use std::time::{Duration, Instant};

use api::LeaseName;
use engine::{Engine, HeldLease, HeldState, Now};
use model::AttemptId;
use service::ApiError;

use super::stale;
use crate::clock::now;
use crate::http::State;
use crate::http::errors::from_claim;
use crate::term::Term;

/// The time that the attempt has held its lease. An attempt from before a restart takes its lease up again, if its report names
/// the lease and its tasks are still open.
pub(super) fn hold(
    state: &State,
    term: &Term,
    attempt: AttemptId,
    named: Option<&LeaseName>,
) -> Result<Duration, ApiError> {
    let held = term.driver.view(|engine| {
        let (job, tasks, held_for) = engine.lease(attempt, now())?;
        let is_named = named.is_none_or(|named| {
            let is_holder = engine.holder(attempt).is_none_or(|holder| *holder == named.worker_id);
            is_holder && (named.job, named.first) == (job, tasks.start)
        });
        Some((held_for, is_named))
    });
    match held {
        None => adopt(state, term, attempt, named.ok_or_else(stale)?),
        Some((_, false)) => Err(ApiError::Conflict("the report names another lease than the attempt holds".to_owned())),
        Some((held_for, true)) => {
            // An adopted lease has the tasks that its first report named, which may have been written before a division.
            if !term.driver.view(|engine| engine.has_made(attempt)) {
                end_at_named(state, term, attempt, named);
            }
            Ok(held_for)
        }
    }
}

fn adopt(state: &State, term: &Term, attempt: AttemptId, named: &LeaseName) -> Result<Duration, ApiError> {
    // An attempt that this coordinator made and that has ended takes no lease up again: a worker may send a renewal while it
    // hands the lease back.
    if term.driver.view(|engine| engine.has_ended(attempt)) {
        return Err(stale());
    }
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
    let is_divided = term.driver.input(|engine, now| {
        let is_longer = engine.lease(attempt, now).is_some_and(|(_, tasks, _)| tasks.end > *beyond);
        is_longer && engine.release_rest(attempt, *beyond, now).unwrap_or(false)
    });
    if is_divided {
        state.lease_log.shortened(attempt, *beyond);
    }
}

/// Whether a report names exactly the tasks that its attempt holds, or names none. An attempt without a lease holds none: its
/// outcome may count already.
pub(super) fn is_about(engine: &Engine, attempt: AttemptId, named: Option<&LeaseName>, now: Now) -> bool {
    let held = engine.lease(attempt, now);
    named.zip(held).is_none_or(|(named, (_, tasks, _))| tasks == (named.first..named.beyond))
}
