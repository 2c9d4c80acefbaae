use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn described<S: ToSchema>() -> Value {
    serde_json::to_value(S::schema()).expect("a schema is JSON")
}

/// Both types read and write the same JSON, and `S` describes all fields of it and no others.
fn assert_describes_fields<S, M>(full: Value)
where
    S: ToSchema + Serialize + DeserializeOwned,
    M: Serialize + DeserializeOwned + Debug,
{
    let written = serde_json::to_value(serde_json::from_value::<M>(full.clone()).expect("valid for the model"));
    assert_eq!(written.expect("JSON"), full);
    let written = serde_json::to_value(serde_json::from_value::<S>(full.clone()).expect("valid for the schema"));
    assert_eq!(written.expect("JSON"), full);
    let schema = described::<S>();
    let names = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<BTreeSet<_>>());
    assert_eq!(names(&schema["properties"]), names(&full), "{}", S::name());
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let required: BTreeSet<_> = required.collect();
    for field in full.as_object().expect("an object").keys() {
        let mut partial = full.clone();
        partial.as_object_mut().expect("an object").remove(field);
        let is_required = serde_json::from_value::<M>(partial).is_err();
        assert_eq!(required.contains(field.as_str()), is_required, "{}.{field}", S::name());
    }
    let mut unknown = full;
    unknown["unknown"] = json!(1);
    let is_closed = serde_json::from_value::<M>(unknown).is_err();
    assert_eq!(schema["additionalProperties"] == json!(false), is_closed, "{}", S::name());
}

fn assert_describes_names<S: ToSchema, M: Serialize>(all: &[M]) {
    assert_eq!(described::<S>()["enum"], serde_json::to_value(all).expect("JSON"), "{}", S::name());
}

#[test]
fn described_structs_have_the_fields_that_the_model_reads_and_writes() {
    let labels = json!({"zone": "a"});
    assert_describes_fields::<Affinity, model::Affinity>(json!({"labels": labels, "key": "k"}));
    assert_describes_fields::<Requirements, model::Requirements>(
        json!({"labels": labels, "cpus": 4, "memory_bytes": 1_u64 << 40}),
    );
    assert_describes_fields::<Resources, model::Resources>(json!({"cpus": 4, "memory_bytes": 1_u64 << 40}));
    assert_describes_fields::<Timeout, model::Timeout>(json!({"task_seconds": 1, "job_seconds": u32::MAX}));
    assert_describes_fields::<TaskCounts, model::TaskCounts>(
        json!({"total": 10, "pending": 1, "running": 2, "succeeded": 3, "failed": 4}),
    );
}

#[test]
fn described_events_have_the_fields_that_the_model_reads_and_writes() {
    assert_describes_fields::<JobEvent, model::JobEvent>(json!({
        "seq": 7, "job": "0198f0a2-7d3c-7c1e-8a55-0123456789ab", "type": "task-failed", "at": "2026-03-21T10:00:00Z",
        "kind": "sleep", "task": "nap", "tasks_done": 1, "tasks_total": 2, "error": "no luck",
        "source": {"topic": "divvy.submit.5", "partition": 0, "offset": 17}, "counts": {"attempts": 1},
    }));
    assert_describes_fields::<EventSource, model::EventSource>(
        json!({"topic": "divvy.submit.5", "partition": 0, "offset": 17}),
    );
    let durations = json!({"sum_us": 1001, "buckets": {"1250": 1}});
    assert_describes_fields::<Durations, model::Durations>(durations.clone());
    let counts = model::Counts::from_figures([1; model::Counts::FIGURES]);
    let mut full = serde_json::to_value(counts).expect("JSON");
    for (name, value) in [("jobs_pending", json!(-1)), ("tasks_pending", json!(1))] {
        full[name] = value;
    }
    for (name, _) in model::Counts::default().durations() {
        full[name] = durations.clone();
    }
    assert_describes_fields::<Counts, model::Counts>(full);
}

#[test]
fn described_enums_list_every_name_that_the_model_writes() {
    let kinds: Vec<_> = workloads::KINDS.iter().map(|kind| kind.name()).collect();
    assert_describes_names::<JobKind, _>(&kinds);
    assert_describes_names::<Algorithm, _>(&model::Algorithm::ALL);
    assert_describes_names::<EventKind, _>(&model::EventKind::ALL);
    assert_describes_names::<JobState, _>(&model::JobState::ALL);
    assert_describes_names::<TaskState, _>(&model::TaskState::ALL);
    assert_describes_names::<Grain, _>(&model::Grain::ALL);
}

#[test]
fn described_ids_and_priorities_are_the_uuids_and_numbers_that_the_model_writes() {
    let id = json!("0198f0a2-7d3c-7c1e-8a55-0123456789ab");
    assert!(serde_json::from_value::<model::JobId>(id.clone()).is_ok());
    assert!(serde_json::from_value::<model::AttemptId>(id).is_ok());
    for schema in [described::<JobId>(), described::<AttemptId>()] {
        assert_eq!((&schema["type"], &schema["format"]), (&json!("string"), &json!("uuid")));
    }
    let schema = described::<Priority>();
    let bound = |name: &str| schema[name].as_u64().and_then(|number| u8::try_from(number).ok()).expect("a bound");
    for outside in [bound("minimum") - 1, bound("maximum") + 1] {
        assert!(model::Priority::try_from(outside).is_err());
    }
    let written = [model::Priority::LEAST, model::Priority::HIGHEST, model::Priority::default()];
    let described = json!([schema["minimum"], schema["maximum"], schema["default"]]);
    assert_eq!(serde_json::to_value(written).expect("JSON"), described);
}
