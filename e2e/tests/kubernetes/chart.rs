//! The Helm chart renders the same objects as kustomize.
//!
//! Needs Helm's library in a virtual environment of Python, which `scripts/test.sh` makes under `target/tools`.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::helpers::{GRID, HIGH_AVAILABILITY, read, render_overlay, repository, with_component};

const CHART: &str = "k8s/chart";

/// Objects by kind and name.
pub(crate) type Objects = BTreeMap<(String, String), Value>;

#[test]
fn chart_renders_the_objects_of_the_manifests() {
    assert_equal(&helm(&json!({})), &GRID);
}

#[test]
fn chart_renders_the_objects_of_the_autoscaling_components() {
    assert_equal(&helm(&json!({ "autoscaling": { "kind": "hpa" } })), &with_component("autoscaling-hpa"));
    let keda = helm(&json!({ "autoscaling": { "kind": "keda", "minReplicas": 0 } }));
    assert_equal(&keda, &with_component("autoscaling-keda"));
}

#[test]
fn chart_renders_the_objects_of_the_monitoring() {
    let monitored = render_overlay(&["k8s", "k8s/monitoring"], &[]);
    assert_equal(&helm(&json!({ "monitoring": { "enabled": true } })), &monitored);
}

#[test]
fn chart_renders_the_objects_of_several_coordinators_over_a_database() {
    assert_equal(&helm(&several_coordinators()), &HIGH_AVAILABILITY);
}

#[test]
fn chart_renders_the_objects_of_the_tls_components() {
    let (tls, several) = (json!({ "tls": { "enabled": true } }), several_coordinators());
    let component = ["k8s/components/tls"];
    assert_equal(&helm(&tls), &render_overlay(&["k8s"], &component));
    let overlay = render_overlay(&["k8s/overlays/high-availability"], &component);
    assert_equal(&helm(&joined(&[&tls, &several])), &overlay);
    let monitored = joined(&[&tls, &json!({ "monitoring": { "enabled": true } })]);
    let both = ["k8s/components/tls", "k8s/components/monitoring-tls"];
    assert_equal(&helm(&monitored), &render_overlay(&["k8s", "k8s/monitoring"], &both));
}

#[test]
fn chart_renders_the_objects_of_the_front_with_and_without_tls() {
    let front = json!({ "front": { "enabled": true } });
    assert_equal(&helm(&front), &with_component("front"));
    let over_tls = joined(&[&front, &json!({ "tls": { "enabled": true } })]);
    let both = ["k8s/components/front", "k8s/components/tls"];
    assert_equal(&helm(&over_tls), &render_overlay(&["k8s"], &both));
}

#[test]
fn chart_renders_the_objects_of_clusters_with_ipv6() {
    let values = json!({ "listenAddress": "[::]", "front": { "enabled": true } });
    assert_equal(&helm(&values), &render_overlay(&["k8s"], &["k8s/components/front", "k8s/components/ipv6"]));
}

#[test]
fn chart_renders_the_objects_of_kafka() {
    let kafka = json!({ "kafka": { "secretName": "divvy-kafka" } });
    assert_equal(&helm(&kafka), &with_component("kafka"));
    let overlay = render_overlay(&["k8s/overlays/high-availability"], &["k8s/components/kafka"]);
    assert_equal(&helm(&joined(&[&kafka, &several_coordinators()])), &overlay);
}

#[test]
fn chart_renders_the_objects_of_the_python_workers_with_and_without_tls() {
    let python = json!({ "pythonWorker": { "enabled": true } });
    assert_equal(&helm(&python), &with_component("python-workers"));
    let over_tls = joined(&[&python, &json!({ "tls": { "enabled": true } }), &several_coordinators()]);
    let both = ["k8s/components/python-workers", "k8s/components/tls"];
    assert_equal(&helm(&over_tls), &render_overlay(&["k8s/overlays/high-availability"], &both));
}

#[test]
fn chart_renders_the_objects_of_the_components_that_ask_the_api_server() {
    let identity = json!({ "serviceAccountIdentity": { "enabled": true } });
    let cost = json!({ "deletionCost": { "enabled": true } });
    assert_equal(&helm(&identity), &with_component("service-account-identity"));
    assert_equal(&helm(&cost), &with_component("deletion-cost"));
    let others = json!({ "tls": { "enabled": true }, "pythonWorker": { "enabled": true } });
    let names = ["python-workers", "service-account-identity", "deletion-cost", "tls"];
    let components = names.map(|name| format!("k8s/components/{name}"));
    let components = components.each_ref().map(String::as_str);
    let all = joined(&[&identity, &cost, &others, &several_coordinators()]);
    assert_equal(&helm(&all), &render_overlay(&["k8s/overlays/high-availability"], &components));
}

#[test]
fn chart_renders_the_objects_of_the_traces() {
    assert_equal(&helm(&json!({ "traces": { "enabled": true } })), &with_component("traces"));
}

#[test]
fn place_of_results_is_the_secrets_unless_a_value_says_it() {
    let mut values = several_coordinators();
    values["store"]["resultsUrl"] = json!("s3://results/grid");
    let objects = by_name(&helm(&values));
    let set = &objects[&("StatefulSet".to_owned(), "divvy-coordinator".to_owned())];
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert!(variables(container).contains(&json!({ "name": "DIVVY_RESULTS_URL", "value": "s3://results/grid" })));
}

#[test]
fn public_port_follows_tls_unless_a_value_says_it() {
    for (values, port) in [
        (json!({}), 80),
        (json!({ "tls": { "enabled": true } }), 443),
        (json!({ "tls": { "enabled": true }, "coordinator": { "service": { "port": 8443 } } }), 8443),
    ] {
        let objects = by_name(&helm(&values));
        let service = &objects[&("Service".to_owned(), "divvy-coordinator".to_owned())];
        assert_eq!(service["spec"]["ports"][0]["port"], port, "{values}");
    }
}

#[test]
fn value_says_where_the_run_book_of_every_alert_is() {
    let runbook = "https://docs.example/divvy/runbook.md";
    let objects = by_name(&helm(&json!({ "monitoring": { "enabled": true, "runbook": runbook } })));
    let rules = &objects[&("PrometheusRule".to_owned(), "divvy".to_owned())];
    assert_eq!(rules["metadata"]["annotations"]["divvy/runbook"], runbook);
    for rule in rules["spec"]["groups"][0]["rules"].as_array().expect("rules") {
        let url = rule["annotations"]["runbook_url"].as_str().expect("a URL");
        assert!(url.starts_with(&format!("{runbook}#divvy")), "{url}");
    }
}

#[test]
fn monitors_and_rules_have_the_labels_that_a_prometheus_selects_them_by() {
    let labels = json!({ "release": "kube-prometheus-stack", "team": "42" });
    let plain = by_name(&helm(&json!({ "monitoring": { "enabled": true } })));
    let labeled = by_name(&helm(&json!({ "monitoring": { "enabled": true, "labels": labels } })));
    for name in [("ServiceMonitor", "divvy-coordinator"), ("PodMonitor", "divvy-worker"), ("PrometheusRule", "divvy")] {
        let name = (name.0.to_owned(), name.1.to_owned());
        let mut expected = plain[&name].clone();
        let own = expected["metadata"]["labels"].as_object_mut().expect("labels");
        own.extend(labels.as_object().expect("labels").clone());
        assert_eq!(labeled[&name], expected);
    }
}

#[test]
fn chart_names_the_release_of_the_program() {
    let chart: Value = serde_saphyr::from_str(&read(&format!("{CHART}/Chart.yaml"))).expect("YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn values_out_of_the_schema_are_refused() {
    for (values, named) in [
        (json!({ "worker": { "replicas": -1 } }), "replicas"),
        (json!({ "worker": { "replica": 3 } }), "replica"),
        (json!({ "autoscaling": { "kind": "cron" } }), "kind"),
        (json!({ "coordinator": { "image": { "tag": "latest" } } }), "tag"),
        (json!({ "coordinator": { "env": { "DIVVY_DATA_DIR": "/tmp" } } }), "DIVVY_DATA_DIR"),
        (json!({ "coordinator": { "env": { "FOO": "1" } } }), "FOO"),
        (json!({ "coordinator": { "storage": { "size": "20GB" } } }), "size"),
        (json!({ "imagePullPolicy": "Sometimes" }), "imagePullPolicy"),
        (json!({ "coordinator": { "replicas": 3 } }), "secretName"),
        (
            json!({ "coordinator": { "replicas": 3 }, "store": { "secretName": "divvy-store" }, "front": { "enabled": true } }),
            "front",
        ),
        (json!({ "front": { "env": { "DIVVY_FRONT_TARGET": "elsewhere:80" } } }), "DIVVY_FRONT_TARGET"),
        (json!({ "coordinator": { "replicas": 0 }, "store": { "secretName": "divvy-store" } }), "replicas"),
        (json!({ "store": { "secretName": "divvy-store", "resultsUrl": "results" } }), "resultsUrl"),
        (json!({ "tls": { "secret": "divvy-tls" } }), "secret"),
        (json!({ "worker": { "extraEnv": [{ "value": "1" }] } }), "name"),
        (json!({ "worker": { "extraEnv": [{ "name": "DIVVY_TLS_CERT", "value": "/tmp" }] } }), "extraEnv"),
        (json!({ "worker": { "extraEnv": [{ "name": "NODE", "value": "n" }] } }), "extraEnv"),
        (json!({ "worker": { "extraVolumes": [{ "name": "programs", "emptyDir": {} }] } }), "extraVolumes"),
        (json!({ "worker": { "resources": { "limits": { "cpu": "1Gi" } } } }), "cpu"),
        (json!({ "coordinator": { "image": { "tag": "not/a/tag" } } }), "tag"),
        (json!({ "coordinator": { "image": { "digest": "0123" } } }), "digest"),
        (json!({ "imagePullSecrets": ["registry"] }), "imagePullSecrets"),
        (json!({ "pythonWorker": { "extraVolumes": [{ "name": "tmp", "emptyDir": {} }] } }), "extraVolumes"),
        (json!({ "kafka": { "brokers": "kafka:9092" } }), "brokers"),
        (json!({ "listenAddress": "::" }), "listenAddress"),
        (json!({ "traces": { "share": 2 } }), "share"),
        (json!({ "coordinator": { "env": { "DIVVY_WORKER_AUDIENCE": "grid" } } }), "DIVVY_WORKER_AUDIENCE"),
        (json!({ "coordinator": { "env": { "DIVVY_KAFKA_BROKERS": "kafka:9092" } } }), "DIVVY_KAFKA_BROKERS"),
        (json!({ "autoscaling": { "kind": "hpa", "minReplicas": 0 } }), "minReplicas"),
    ] {
        let output = template(&values);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} is accepted");
        assert!(said.contains("schema") && said.contains(named), "{values}: {said}");
    }
}

/// No name and no label may be a number: the API server refuses the object.
#[test]
fn names_that_look_like_numbers_stay_texts() {
    let tls = json!({ "enabled": true, "coordinatorSecretName": "789", "workerSecretName": "789", "metricsSecretName": "789" });
    let one = json!({
        "tls": tls,
        "monitoring": { "enabled": true },
        "workerToken": { "secretName": "789" },
        "coordinator": { "storage": { "className": "789" }, "image": { "tag": "789" } },
        "worker": { "image": { "tag": "789" } },
        "front": { "enabled": true },
        "pythonWorker": { "enabled": true, "image": { "tag": "789" } },
        "kafka": { "secretName": "789" },
        "serviceAccountIdentity": { "enabled": true, "bindingName": "789" },
        "deletionCost": { "enabled": true },
    });
    let stored = json!({ "store": { "secretName": "789", "objectStoreSecretName": "789" } });
    for values in [one, stored] {
        let rendered = json!(helm(&values)).to_string();
        assert!(rendered.contains(r#":"789""#) && !rendered.contains(r#"":789"#), "{values}");
    }
}

/// A policy that selects a pod shuts all that no policy opens.
#[test]
fn chart_without_network_policies_brings_none() {
    let objects = helm(&json!({
        "monitoring": { "enabled": true },
        "pythonWorker": { "enabled": true },
        "kafka": { "secretName": "divvy-kafka" },
        "serviceAccountIdentity": { "enabled": true },
        "deletionCost": { "enabled": true },
        "traces": { "enabled": true },
        "networkPolicies": { "enabled": false },
    }));
    assert!(objects.iter().any(|object| object["kind"] == "ServiceMonitor"));
    assert!(objects.iter().all(|object| object["kind"] != "NetworkPolicy"));
}

/// The values of `k8s/overlays/high-availability`.
pub(crate) fn several_coordinators() -> Value {
    json!({ "coordinator": { "replicas": 3 }, "store": { "secretName": "divvy-store" } })
}

/// The top-level values of all, which have no key in common.
pub(crate) fn joined(all: &[&Value]) -> Value {
    all.iter().flat_map(|values| values.as_object().expect("values").clone()).collect()
}

pub(crate) fn variables(container: &Value) -> &Vec<Value> {
    container["env"].as_array().expect("variables")
}

/// The objects of the chart with these values.
pub(crate) fn helm(values: &Value) -> Vec<Value> {
    let output = template(values);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{values}: {said}");
    let yaml = String::from_utf8(output.stdout).expect("UTF-8");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("valid YAML");
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

pub(crate) fn template(values: &Value) -> Output {
    let python = repository("target/tools/helm/bin/python");
    let mut command = Command::new(python);
    command.arg(repository("scripts/render-chart.py")).arg(repository(CHART)).arg(values.to_string());
    command.output().expect("Helm's library is under target/tools/helm (scripts/test.sh installs it)")
}

fn assert_equal(chart: &[Value], manifests: &[Value]) {
    let (chart, manifests) = (by_name(chart), by_name(manifests));
    assert_eq!(chart.keys().collect::<Vec<_>>(), manifests.keys().collect::<Vec<_>>());
    for (name, object) in &chart {
        assert_eq!(object, &manifests[name], "{name:?}");
    }
}

/// The objects as they reach the cluster. Only the label of the tool that applies them differs, and the order of variables
/// that do not name each other.
pub(crate) fn by_name(objects: &[Value]) -> Objects {
    let objects = objects.iter().cloned().map(|mut object| {
        let (kind, name) = (object["kind"].as_str().unwrap_or_default().to_owned(), object["metadata"]["name"].clone());
        if kind != "PriorityClass" {
            // Helm sends objects without a namespace to the release's own.
            object["metadata"]["namespace"] = json!("divvy");
        }
        normalize(&mut object);
        ((kind, name.as_str().unwrap_or_default().to_owned()), object)
    });
    objects.collect()
}

fn normalize(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        if let Some(tool) = fields.get_mut("app.kubernetes.io/managed-by") {
            *tool = Value::Null;
        }
        if let Some(Value::Array(variables)) = fields.get_mut("env") {
            variables.sort_by_key(|variable| variable["name"].as_str().map(str::to_owned));
        }
        fields.values_mut().for_each(normalize);
    }
    value.as_array_mut().into_iter().flatten().for_each(normalize);
}
