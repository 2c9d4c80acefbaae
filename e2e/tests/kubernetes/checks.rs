//! Checks of kube-score and checkov: a manifest explains each failed check in its annotations.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helpers::{COMPONENTS, GRID, HIGH_AVAILABILITY, MONITORING};

/// Comments do not reach the cluster, so the reason stands in the object.
#[test]
fn every_check_that_is_ignored_has_its_reason_beside_it() {
    let mut ignored = 0;
    for object in manifests() {
        let annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let checks = annotations.get("kube-score/ignore").and_then(|checks| checks.as_str()).unwrap_or_default();
        let checks: BTreeSet<_> = checks.split(',').filter(|check| !check.is_empty()).collect();
        let explained = annotations.keys().filter_map(|key| key.strip_prefix("ignored.kube-score/")).collect();
        assert_eq!(checks, explained, "in {object:#}");
        ignored += checks.len();
        for (key, value) in &annotations {
            let reason = match key.strip_prefix("checkov.io/skip") {
                Some(_) => value.as_str().and_then(|value| value.split_once('=')).map(|(_, reason)| reason),
                None if key.starts_with("ignored.kube-score/") => value.as_str(),
                None => continue,
            };
            assert!(reason.is_some_and(|reason| reason.len() > 20), "{key} has no reason in {object:#}");
        }
    }
    assert!(ignored > 5, "{ignored}");
}

/// The checks concern images, Secrets and probes.
#[test]
fn every_pod_explains_what_the_checks_would_say_of_it() {
    let mut pods = 0;
    for object in manifests() {
        let annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let values = || annotations.values().filter_map(|value| value.as_str());
        let ignored = annotations.get("kube-score/ignore").and_then(|checks| checks.as_str()).unwrap_or_default();
        let is_explained = |check: &str| {
            ignored.split(',').any(|ignored| ignored == check)
                || values().any(|it| it.starts_with(&format!("{check}=")))
        };
        for container in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten() {
            let mut variables = container["env"].as_array().into_iter().flatten();
            let has_secret = variables.any(|variable| variable["valueFrom"]["secretKeyRef"].is_object());
            let is_pulled = container["imagePullPolicy"] == "Always";
            let serves = object["kind"] != "Job";
            for (is_said, check) in [
                (!container["image"].as_str().is_some_and(|image| image.contains('@')), "CKV_K8S_43"),
                (!is_pulled, "CKV_K8S_15"),
                (!is_pulled, "container-image-pull-policy"),
                (has_secret, "CKV_K8S_35"),
                (serves && container["livenessProbe"].is_null(), "CKV_K8S_8"),
                (serves && container["readinessProbe"].is_null(), "CKV_K8S_9"),
            ] {
                assert!(!is_said || is_explained(check), "{check} has no reason in {object:#}");
            }
            pods += 1;
        }
    }
    assert!(pods > 20, "{pods}");
}

fn manifests() -> impl Iterator<Item = &'static Value> {
    GRID.iter().chain(HIGH_AVAILABILITY.iter()).chain(COMPONENTS.iter()).chain(MONITORING.iter())
}
