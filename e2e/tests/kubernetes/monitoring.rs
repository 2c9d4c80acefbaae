//! Objects for Prometheus' operator. The rules themselves are run by the tests of the whole grid, on real metrics.

use k8s_openapi::api::core::v1::SecretKeySelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

use crate::helpers::{MONITORING, coordinator, copy_of, object, pairs, render, worker};

/// The fields of monitoring.coreos.com/v1 that are used here.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceMonitor {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: ServiceMonitorSpec,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceMonitorSpec {
    job_label: String,
    selector: LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodMonitor {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: PodMonitorSpec,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodMonitorSpec {
    job_label: String,
    selector: LabelSelector,
    pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    port: String,
    path: String,
    interval: String,
    scrape_timeout: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    relabelings: Vec<Relabeling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_config: Option<TlsConfig>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsConfig {
    ca: SecretOrConfigMap,
    cert: SecretOrConfigMap,
    key_secret: SecretKeySelector,
    server_name: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct SecretOrConfigMap {
    secret: SecretKeySelector,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relabeling {
    action: String,
    source_labels: Vec<String>,
    regex: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PrometheusRule {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: RuleSpec,
}

#[derive(Debug, Deserialize, Serialize)]
struct RuleSpec {
    groups: Vec<RuleGroup>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[test]
fn every_coordinator_is_read_once_at_the_port_with_its_metrics() {
    let monitor = ServiceMonitor::deserialize(find("ServiceMonitor")).expect("it is one");
    assert!(coordinator().is_selected(&pairs(monitor.spec.selector.match_labels)));
    let [endpoint] = monitor.spec.endpoints.as_slice() else { panic!("one endpoint") };
    assert!(coordinator().port(&endpoint.port) > 0);
    // Several Services select the coordinator; one is read.
    let services = &endpoint.relabelings[0];
    assert_eq!(services.source_labels, ["__meta_kubernetes_service_name"]);
    let service: k8s_openapi::api::core::v1::Service = object(&services.regex);
    let spec = service.spec.expect("a spec");
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"), "one address for each coordinator");
    assert!(spec.ports.iter().flatten().any(|port| port.name.as_deref() == Some(endpoint.port.as_str())));
}

#[test]
fn every_worker_is_read_at_its_port() {
    let monitor = PodMonitor::deserialize(find("PodMonitor")).expect("it is one");
    let selector = pairs(monitor.spec.selector.match_labels);
    assert!(worker().is_selected(&selector) && !coordinator().is_selected(&selector));
    let [endpoint] = monitor.spec.pod_metrics_endpoints.as_slice() else { panic!("one endpoint") };
    assert!(worker().port(&endpoint.port) > 0);
}

#[test]
fn dashboard_is_found_by_the_sidecar_of_grafana() {
    let map = find("ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(map["data"]["divvy.json"].as_str().expect("a file")).expect("JSON");
    let ids: Vec<_> =
        dashboard["panels"].as_array().expect("panels").iter().map(|panel| panel["id"].as_u64()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[test]
fn one_annotation_says_where_the_run_book_of_every_alert_is() {
    let copy = copy_of("k8s/monitoring");
    let file = copy.path().join("rules.yaml");
    let text = fs::read_to_string(&file).expect("rules");
    let prefix = "https://runbooks.example/divvy/runbook.html";
    let text = text.replacen("divvy/runbook: docs/runbook.md", &format!("divvy/runbook: {prefix}"), 1);
    fs::write(&file, text).expect("write a copy");
    let objects = render(copy.path());
    let rules = objects.iter().find(|object| object["kind"] == "PrometheusRule").expect("rules");
    let rules = rules["spec"]["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() > 10, "{rules:?}");
    for rule in rules {
        let alert = rule["alert"].as_str().expect("an alert").to_lowercase();
        assert_eq!(rule["annotations"]["runbook_url"], format!("{prefix}#{alert}"));
    }
}

fn find(kind: &str) -> &'static Value {
    MONITORING.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}
