//! Workers that an autoscaler starts and ends.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::Deserialize;
use serde_json::Value;

use crate::helpers::{GRID, read, with_component};

/// The fields of a ScaledObject that the tests compare.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScaledObjectSpec {
    scale_target_ref: ScaleTarget,
    min_replica_count: i32,
    max_replica_count: i32,
    fallback: Fallback,
    triggers: Vec<Trigger>,
}

#[derive(Debug, Deserialize)]
struct ScaleTarget {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Fallback {
    replicas: i32,
    behavior: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trigger {
    r#type: String,
    metric_type: String,
    metadata: BTreeMap<String, String>,
}

#[test]
fn autoscaler_of_the_cluster_gives_a_worker_to_every_wanted_slot() {
    let objects = with_component("autoscaling-hpa");
    let autoscaler =
        HorizontalPodAutoscaler::deserialize(find(&objects, "HorizontalPodAutoscaler")).expect("it is one");
    let spec = autoscaler.spec;
    assert_eq!(
        (spec.scale_target_ref.kind.as_str(), spec.scale_target_ref.name.as_str()),
        ("Deployment", "divvy-worker")
    );
    let metrics = spec.metrics.expect("a metric");
    let external = metrics[0].external.clone().expect("it is an external one");
    assert_eq!(external.metric.name, "divvy_wanted_slots_by_kind");
    let selector = external.metric.selector.and_then(|selector| selector.match_expressions).expect("kinds");
    let [kinds] = selector.as_slice() else { panic!("one condition") };
    let without_tasks = ("kind", "NotIn", Some(vec!["tasks".to_owned()]));
    assert_eq!((kinds.key.as_str(), kinds.operator.as_str(), kinds.values.clone()), without_tasks);
    let slots = external.target.average_value.expect("slots of a worker").0;
    assert_eq!(slots, worker(&objects)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]);
}

#[test]
fn keda_scales_by_what_is_waiting_and_running_to_zero_and_back() {
    let objects = with_component("autoscaling-keda");
    let scaled = ScaledObjectSpec::deserialize(&find(&objects, "ScaledObject")["spec"]).expect("it is one");
    let target = &scaled.scale_target_ref;
    assert_eq!((target.kind.as_str(), target.name.as_str()), ("Deployment", "divvy-worker"));
    assert_eq!((scaled.min_replica_count, scaled.max_replica_count), (0, 40));
    // Workers that compute stay while Prometheus is away, however many they are.
    let fallback = (scaled.fallback.replicas, scaled.fallback.behavior.as_str());
    assert_eq!(fallback, (10, "currentReplicasIfHigher"));
    let [trigger] = scaled.triggers.as_slice() else { panic!("one trigger") };
    assert_eq!((trigger.r#type.as_str(), trigger.metric_type.as_str()), ("prometheus", "AverageValue"));
    let query = &trigger.metadata["query"];
    assert!(query.contains("divvy_wanted_slots_by_kind{") && query.contains(r#"kind!="tasks""#), "{query}");
    assert_eq!(trigger.metadata["threshold"], "1");
    // No worker is there when the first request comes.
    let wait = variable(find(&objects, "StatefulSet"), "DIVVY_NO_WORKER_TIMEOUT_MS");
    assert!(wait >= 60_000, "{wait}");
}

#[test]
fn apply_leaves_the_number_of_workers_to_the_autoscaler() {
    for component in ["autoscaling-hpa", "autoscaling-keda"] {
        let objects = with_component(component);
        assert_eq!(worker(&objects)["spec"]["replicas"], Value::Null, "{component}");
    }
}

#[test]
fn worker_that_is_scaled_away_may_finish_what_it_computes() {
    for component in ["autoscaling-hpa", "autoscaling-keda"] {
        let objects = with_component(component);
        let worker = worker(&objects);
        let grace = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a number");
        let drain = variable(worker, "DIVVY_DRAIN_TIMEOUT_MS");
        assert!(drain >= 300_000 && grace * 1000 >= drain + 5_000, "{component}: {grace} s, {drain} ms");
    }
}

#[test]
fn components_change_nothing_else() {
    for component in ["autoscaling-hpa", "autoscaling-keda"] {
        let objects = with_component(component);
        assert_eq!(objects.len(), GRID.len() + 1, "{component}");
        let policies = |objects: &[Value]| {
            objects.iter().filter(|object| object["kind"] == "NetworkPolicy").cloned().collect::<Vec<_>>()
        };
        assert_eq!(policies(&objects), policies(&GRID));
    }
}

#[test]
fn metric_of_the_autoscalers_is_described() {
    for manual in ["docs/operation.md", "k8s/README.md"] {
        assert!(read(manual).contains("`divvy_wanted_slots_by_kind`"), "{manual}");
    }
}

fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn worker(objects: &[Value]) -> &Value {
    let mut workers = objects.iter().filter(|object| object["kind"] == "Deployment");
    workers.next().expect("workers are a Deployment")
}

fn variable(workload: &Value, name: &str) -> u64 {
    let variables = workload["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    let values: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
    let [variable] = values.as_slice() else { panic!("{name} is set once, not {values:?}") };
    variable["value"].as_str().and_then(|value| value.parse().ok()).expect("a number")
}
