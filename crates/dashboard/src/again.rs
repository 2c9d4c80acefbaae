//! The form of a new job, filled in from an existing one.

use api::Job;
use model::{DEFAULT_MAX_ATTEMPTS, JobKind, Labels};
use serde_json::Value;

use crate::form::labels_text;

/// The form of another job like this; none where it is more than an address should hold, or where its parameters or labels are
/// no text of a form.
pub(crate) fn again(job: &Job) -> Option<String> {
    const MAX_BYTES: usize = 2_000;
    let Ok(Value::Object(params)) = serde_json::from_str::<Value>(job.params.get()) else { return None };
    if job.kind == JobKind::TASKS || job.requires.are_of_simulation() {
        return None;
    }
    let mut fields = vec![("kind".to_owned(), job.kind.to_string())];
    for (name, value) in params {
        let text = match value {
            Value::Array(_) => return None,
            Value::Null => continue,
            Value::String(text) => text,
            other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
        };
        fields.push((format!("p.{name}"), text));
    }
    let options = options(job)?.into_iter().filter(|(_, text)| !text.is_empty());
    fields.extend(options.map(|(name, text)| (name.to_owned(), text)));
    let query = serde_urlencoded::to_string(fields).ok()?;
    (query.len() <= MAX_BYTES).then(|| format!("/submit?{query}"))
}

/// The fields of the form that a job of any kind has; empty where the job has the default.
fn options(job: &Job) -> Option<[(&'static str, String); 12]> {
    fn text<T: std::fmt::Display>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    // The grid puts its own labels to those of a client.
    let is_own = |key: &str| key.starts_with("divvy.");
    let wanted = job.requires.labels.iter().filter(|(key, _)| !is_own(key));
    let wanted: Labels = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
    let attempts = Some(job.max_attempts).filter(|attempts| *attempts != DEFAULT_MAX_ATTEMPTS);
    Some([
        ("priority", job.priority.to_string()),
        ("tags", labels_text(&job.tags)?),
        ("max_attempts", text(attempts)),
        ("job_seconds", text(job.timeout.job_seconds)),
        ("task_seconds", text(job.timeout.task_seconds)),
        ("output", text(job.output.as_ref())),
        ("verify", text(job.verification.as_ref().map(|verification| verification.share.as_f64()))),
        ("requires", labels_text(&wanted)?),
        ("cpus", text(job.requires.cpus)),
        ("memory_bytes", text(job.requires.memory_bytes)),
        ("prefers", labels_text(&job.affinity.labels)?),
        ("affinity_key", text(job.affinity.key.as_ref())),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::form::job_body;
    use crate::samples::job;

    #[test]
    fn a_job_that_is_submitted_again_has_all_that_the_first_one_had() {
        let first = json!({
            "kind": "count-primes", "params": {"a": 1, "b": 100, "algorithm": "sieve"}, "priority": 7,
            "tags": {"team": "blue", "at": "b=c"}, "max_attempts": 2, "output": "primes", "timeout": {"job_seconds": 9, "task_seconds": 3},
            "requires": {"labels": {"zone": "a"}, "cpus": 4, "memory_bytes": 1024}, "affinity": {"labels": {"disk": "fast"}, "key": "k"},
        });
        let mut stored = first.clone();
        stored["requires"]["labels"]["divvy.prime-plan"] = json!("1");
        stored["verification"] =
            json!({"share": 0.25, "compared_leases": 0, "waiting_leases": 0, "mismatches": 0, "recomputed_tasks": 0});
        let path = again(&job(1, &stored)).expect("a form");
        let query = path.strip_prefix("/submit?").expect("the form's path");
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).expect("fields");
        let mut expected = first;
        expected["verify"] = json!(0.25);
        let body = job_body(JobKind::COUNT_PRIMES, &fields).expect("a body");
        assert_eq!(serde_json::from_str::<Value>(body.get()).expect("JSON"), expected);
    }

    #[test]
    fn a_job_that_no_form_can_hold_is_not_submitted_again() {
        for fields in [
            json!({"kind": "tasks", "params": {"count": 2}}),
            json!({"requires": {"labels": {"divvy.simulation": "s"}}}),
            json!({"tags": {"note": "one, two"}}),
            json!({"params": {"list": [1]}}),
            json!({"kind": "program", "params": {"program": "x".repeat(3_000)}}),
        ] {
            assert_eq!(again(&job(1, &fields)), None, "{fields}");
        }
        assert!(again(&job(1, &json!({"params": {"seconds": 1.5}}))).is_some());
    }
}
