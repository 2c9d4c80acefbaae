//! Heartbeats of workers: bounds on their fields, and the leases that they list.

use std::time::Duration;

use api::{Heartbeat, MAX_DESCRIPTION_BYTES, MAX_PROGRAM_NAMES, MAX_SLOTS_PER_WORKER, NamedAbility};
use engine::{HeldLease, HeldState};
use model::{AttemptId, InvalidJob, JobKind, check_words};

use super::RegisterError;
use crate::driver::Driver;

/// The longest version that a worker may have, in bytes.
const MAX_VERSION_BYTES: usize = 64;

/// The most kinds that a worker may run.
const MAX_KINDS: usize = 64;

pub(super) fn held_lease(held: api::HeldLease) -> HeldLease {
    HeldLease {
        attempt: held.attempt,
        job: held.job,
        tasks: held.first..held.beyond,
        slot: held.slot,
        age: Duration::from_millis(held.elapsed_ms),
        state: match held.state {
            api::HeldState::Running => HeldState::Running,
            api::HeldState::Finished => HeldState::Finished,
        },
    }
}

/// Prolongs leases whose outcomes wait at their workers because nothing can be stored here, or too slowly: the workers have done
/// their part. While the store keeps up, a lease without an outcome expires.
pub(super) fn keep_finished(driver: &Driver, finished: &[AttemptId]) {
    if finished.is_empty() || !driver.lets_outcomes_wait() {
        return;
    }
    driver.input(|engine, now| {
        for attempt in finished {
            // A lease that has ended meanwhile stays so.
            let _ = engine.outcome_waits(*attempt, now);
        }
    });
}

/// A field, whether it is valid, and what it may be. The text is made only for an error: each worker's heartbeat is checked
/// every second.
type Check = (&'static str, bool, fn() -> String);

/// # Errors
/// The first field that is out of its bounds.
pub(super) fn check(heartbeat: &Heartbeat) -> Result<(), RegisterError> {
    let is_pulled_only = |kind: &JobKind| workloads::kind(*kind).is_ok_and(|kind| !kind.is_pushed());
    let is_described = |ability: &NamedAbility| {
        ability.description.len() <= MAX_DESCRIPTION_BYTES && !ability.description.contains(char::is_control)
    };
    let checks: [Check; 8] = [
        ("port", heartbeat.port > 0, || "from 1 to 65535".to_owned()),
        ("slots", (1..=MAX_SLOTS_PER_WORKER).contains(&heartbeat.slots), || {
            format!("from 1 to {MAX_SLOTS_PER_WORKER}")
        }),
        ("cpu_load", (0.0..=1.0).contains(&heartbeat.cpu_load), || "from 0 to 1".to_owned()),
        ("kinds", heartbeat.kinds.len() <= MAX_KINDS, || format!("at most {MAX_KINDS} kinds")),
        // Their payloads go to workers that pull.
        ("kinds", !heartbeat.kinds.iter().any(is_pulled_only), || "kinds that a worker is sent, not tasks".to_owned()),
        ("programs", heartbeat.programs.names.len() <= MAX_PROGRAM_NAMES, || {
            format!("at most {MAX_PROGRAM_NAMES} names")
        }),
        ("programs", heartbeat.programs.names.iter().all(is_described), || {
            "described in few words, without control characters".to_owned()
        }),
        ("version", heartbeat.version.len() <= MAX_VERSION_BYTES, || format!("at most {MAX_VERSION_BYTES} bytes long")),
    ];
    if let Some((field, _, allowed)) = checks.into_iter().find(|(_, is_valid, _)| !is_valid) {
        return Err(RegisterError::Field { field, allowed: allowed() });
    }
    for (field, words) in [("labels", &heartbeat.labels), ("abilities", &heartbeat.abilities)] {
        let allowed = |error: InvalidJob| format!("such that it {}", error.message);
        check_words(field, words).map_err(|error| RegisterError::Field { field, allowed: allowed(error) })?;
    }
    Ok(())
}
