//! Jobs and a viewer for tests.

use api::{Job, WorkerState, WorkerSummary};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::layout::Viewer;

/// A job that waits, with other fields.
pub(crate) fn job(number: u128, fields: &Value) -> Job {
    let mut job = json!({
        "id": Uuid::from_u128(number), "kind": "sleep", "params": {}, "state": "queued", "priority": 5, "tags": {},
        "affinity": {}, "requires": {}, "max_attempts": 4, "timeout": {}, "attempts": 0,
        "tasks": {"total": 1, "pending": 1, "running": 0, "succeeded": 0, "failed": 0}, "progress": {"fraction": 0.0},
        "submitted_at": "1970-01-01T00:00:00Z",
    });
    for (name, value) in fields.as_object().expect("an object") {
        job[name] = value.clone();
    }
    serde_json::from_str(&job.to_string()).expect("a job")
}

/// A viewer who may do everything.
pub(crate) fn viewer() -> Viewer {
    Viewer {
        name: None,
        has_tokens: false,
        may_submit: true,
        may_run_programs: true,
        may_administer: true,
        now: Timestamp::UNIX_EPOCH,
        version: "1".to_owned(),
    }
}

/// A worker that claims its tasks; a suspended one has failed a lease.
pub(crate) fn worker(name: &str, state: WorkerState) -> WorkerSummary {
    let mut worker = json!({
        "id": name, "delivery": "pulled", "slots": 1, "busy": 0, "running": 0, "last_seen_ms_ago": 0, "state": state,
        "completed_tasks": 0, "cpu_load": 0.0, "free_memory_bytes": 0, "labels": {},
        "resources": {"cpus": 0, "memory_bytes": 0}, "kinds": [], "version": "",
    });
    if state == WorkerState::Suspended {
        worker["suspension"] = json!({"reason": "it failed a lease", "ends_in_ms": 400});
    }
    serde_json::from_value(worker).expect("a worker")
}
