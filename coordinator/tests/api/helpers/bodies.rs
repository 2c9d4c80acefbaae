//! Bodies of requests.

use model::Labels;
use serde_json::{Value, json};

/// The body of a claim for tasks of any kind by worker `id`.
pub(crate) fn claim(id: &str, more: &Value) -> Value {
    let mut claim = json!({ "worker_id": id, "kinds": ["sum-of-primes", "count-primes", "sleep", "tasks"] });
    let more = more.as_object().into_iter().flatten();
    claim.as_object_mut().expect("an object").extend(more.map(|(name, value)| (name.clone(), value.clone())));
    claim
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Individual tasks with the numbers from 0 as payloads.
pub(crate) fn numbered_tasks(count: u64) -> Value {
    json!({ "kind": "tasks", "params": { "list": (0..count).collect::<Vec<_>>() } })
}

/// Tasks that take `seconds` each.
pub(crate) fn sleeps(seconds: f64, tasks: u64) -> Value {
    json!({ "kind": "sleep", "params": { "seconds": seconds, "tasks": tasks } })
}

/// `body` with other fields, or more.
pub(crate) fn with(mut body: Value, fields: &Value) -> Value {
    let fields = fields.as_object().expect("an object").iter();
    body.as_object_mut().expect("an object").extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    body
}
