//! Objects for Prometheus' operator. The rules themselves are run by the tests of the whole grid, on real metrics.

use std::fs;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use crate::helpers::{MONITORING, coordinator, copy_of, object, pairs, render, worker};

/// The fields of a ServiceMonitor or a PodMonitor that the tests compare.
#[derive(Debug, Deserialize)]
struct Monitor {
    selector: LabelSelector,
    #[serde(alias = "podMetricsEndpoints")]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    port: String,
    #[serde(default)]
    relabelings: Vec<Relabeling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Relabeling {
    source_labels: Vec<String>,
    regex: String,
}

#[test]
fn every_coordinator_is_read_once_at_the_port_with_its_metrics() {
    let monitor = Monitor::deserialize(&find("ServiceMonitor")["spec"]).expect("it is one");
    assert!(coordinator().is_selected(&pairs(monitor.selector.match_labels)));
    let [endpoint] = monitor.endpoints.as_slice() else { panic!("one endpoint") };
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
    let monitor = Monitor::deserialize(&find("PodMonitor")["spec"]).expect("it is one");
    let selector = pairs(monitor.selector.match_labels);
    assert!(worker().is_selected(&selector) && !coordinator().is_selected(&selector));
    let [endpoint] = monitor.endpoints.as_slice() else { panic!("one endpoint") };
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
