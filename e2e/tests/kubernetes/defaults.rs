//! A second apply changes nothing: every default that the API server would fill in is written out.
//!
//! For a missing field, client-side apply and server-side apply disagree about its owner, and a list that is compared as a whole
//! (`volumeClaimTemplates`) is sent again each time. The table is that of Kubernetes 1.34,
//! `pkg/apis/{core,apps,networking,autoscaling,scheduling}/v*/defaults.go`.

use serde_json::{Value, json};

use crate::helpers::{COMPONENTS, GRID, HIGH_AVAILABILITY, MONITORING};

/// Kind (`*` for all), the path of the object that gets the default, the field, and its value as JSON. `*` in a path is
/// every element of a list.
const DEFAULTS: &[(&str, &str, &str, &str)] = &[
    ("Deployment", "/spec", "progressDeadlineSeconds", "600"),
    ("Deployment", "/spec", "revisionHistoryLimit", "10"),
    ("Deployment", "/spec", "replicas", "1"),
    ("Deployment", "/spec", "strategy", r#"{"type":"RollingUpdate"}"#),
    ("Deployment", "/spec/strategy/rollingUpdate", "maxSurge", r#""25%""#),
    ("Deployment", "/spec/strategy/rollingUpdate", "maxUnavailable", r#""25%""#),
    ("StatefulSet", "/spec", "revisionHistoryLimit", "10"),
    ("StatefulSet", "/spec", "replicas", "1"),
    ("StatefulSet", "/spec", "podManagementPolicy", r#""OrderedReady""#),
    ("StatefulSet", "/spec", "updateStrategy", r#"{"type":"RollingUpdate"}"#),
    ("StatefulSet", "/spec/updateStrategy", "rollingUpdate", r#"{"partition":0}"#),
    ("StatefulSet", "/spec/updateStrategy/rollingUpdate", "partition", "0"),
    ("StatefulSet", "/spec", "persistentVolumeClaimRetentionPolicy", r#"{}"#),
    ("StatefulSet", "/spec/persistentVolumeClaimRetentionPolicy", "whenDeleted", r#""Retain""#),
    ("StatefulSet", "/spec/persistentVolumeClaimRetentionPolicy", "whenScaled", r#""Retain""#),
    ("StatefulSet", "/spec/volumeClaimTemplates/*", "apiVersion", r#""v1""#),
    ("StatefulSet", "/spec/volumeClaimTemplates/*", "kind", r#""PersistentVolumeClaim""#),
    ("StatefulSet", "/spec/volumeClaimTemplates/*", "status", r#"{"phase":"Pending"}"#),
    ("StatefulSet", "/spec/volumeClaimTemplates/*/spec", "volumeMode", r#""Filesystem""#),
    ("*", "/spec/template/spec", "dnsPolicy", r#""ClusterFirst""#),
    ("*", "/spec/template/spec", "restartPolicy", r#""Always""#),
    ("*", "/spec/template/spec", "schedulerName", r#""default-scheduler""#),
    ("*", "/spec/template/spec", "securityContext", "{}"),
    ("*", "/spec/template/spec", "terminationGracePeriodSeconds", "30"),
    ("*", "/spec/template/spec/containers/*", "imagePullPolicy", r#""IfNotPresent""#),
    ("*", "/spec/template/spec/containers/*", "resources", "{}"),
    ("*", "/spec/template/spec/containers/*", "terminationMessagePath", r#""/dev/termination-log""#),
    ("*", "/spec/template/spec/containers/*", "terminationMessagePolicy", r#""File""#),
    ("*", "/spec/template/spec/containers/*/ports/*", "protocol", r#""TCP""#),
    ("*", "/spec/template/spec/containers/*/env/*/valueFrom/fieldRef", "apiVersion", r#""v1""#),
    ("*", "/spec/template/spec/containers/*/startupProbe", "successThreshold", "1"),
    ("*", "/spec/template/spec/containers/*/startupProbe", "failureThreshold", "3"),
    ("*", "/spec/template/spec/containers/*/startupProbe", "periodSeconds", "10"),
    ("*", "/spec/template/spec/containers/*/startupProbe", "timeoutSeconds", "1"),
    ("*", "/spec/template/spec/containers/*/startupProbe/httpGet", "scheme", r#""HTTP""#),
    ("*", "/spec/template/spec/containers/*/readinessProbe", "successThreshold", "1"),
    ("*", "/spec/template/spec/containers/*/readinessProbe", "failureThreshold", "3"),
    ("*", "/spec/template/spec/containers/*/readinessProbe", "periodSeconds", "10"),
    ("*", "/spec/template/spec/containers/*/readinessProbe", "timeoutSeconds", "1"),
    ("*", "/spec/template/spec/containers/*/readinessProbe/httpGet", "scheme", r#""HTTP""#),
    ("*", "/spec/template/spec/containers/*/livenessProbe", "successThreshold", "1"),
    ("*", "/spec/template/spec/containers/*/livenessProbe", "failureThreshold", "3"),
    ("*", "/spec/template/spec/containers/*/livenessProbe", "periodSeconds", "10"),
    ("*", "/spec/template/spec/containers/*/livenessProbe", "timeoutSeconds", "1"),
    ("*", "/spec/template/spec/containers/*/livenessProbe/httpGet", "scheme", r#""HTTP""#),
    ("*", "/spec/template/spec/volumes/*/secret", "defaultMode", "420"),
    ("*", "/spec/template/spec/volumes/*/configMap", "defaultMode", "420"),
    ("*", "/spec/template/spec/volumes/*/projected", "defaultMode", "420"),
    ("Service", "/spec", "type", r#""ClusterIP""#),
    ("Service", "/spec", "sessionAffinity", r#""None""#),
    ("Service", "/spec", "internalTrafficPolicy", r#""Cluster""#),
    ("Service", "/spec", "ipFamilyPolicy", r#""SingleStack""#),
    ("Service", "/spec/ports/*", "protocol", r#""TCP""#),
    ("NetworkPolicy", "/spec", "policyTypes", r#"["Ingress"]"#),
    ("NetworkPolicy", "/spec/ingress/*/ports/*", "protocol", r#""TCP""#),
    ("NetworkPolicy", "/spec/egress/*/ports/*", "protocol", r#""TCP""#),
    ("PriorityClass", "", "preemptionPolicy", r#""PreemptLowerPriority""#),
    ("*", "/spec/template/spec/volumes/*/projected/sources/*/serviceAccountToken", "expirationSeconds", "3600"),
    ("ValidatingAdmissionPolicy", "/spec", "failurePolicy", r#""Fail""#),
    ("ValidatingAdmissionPolicy", "/spec/matchConstraints", "matchPolicy", r#""Equivalent""#),
    ("ValidatingAdmissionPolicy", "/spec/matchConstraints", "namespaceSelector", "{}"),
    ("ValidatingAdmissionPolicy", "/spec/matchConstraints", "objectSelector", "{}"),
    ("ValidatingAdmissionPolicy", "/spec/matchConstraints/resourceRules/*", "scope", r#""*""#),
    ("HorizontalPodAutoscaler", "/spec", "minReplicas", "1"),
    ("HorizontalPodAutoscaler", "/spec/behavior/scaleUp", "stabilizationWindowSeconds", "0"),
    ("HorizontalPodAutoscaler", "/spec/behavior/scaleUp", "selectPolicy", r#""Max""#),
    ("HorizontalPodAutoscaler", "/spec/behavior/scaleDown", "selectPolicy", r#""Max""#),
];

/// Fields that only a Service reachable from outside the cluster has.
const OF_LOAD_BALANCERS: [(&str, &str); 2] =
    [("allocateLoadBalancerNodePorts", "true"), ("externalTrafficPolicy", r#""Cluster""#)];

#[test]
fn second_apply_changes_nothing() {
    let objects = GRID.iter().chain(MONITORING.iter()).chain(HIGH_AVAILABILITY.iter());
    for object in objects.chain(COMPONENTS.iter()) {
        // The autoscaler alone changes the value that the API server fills in at the creation.
        let is_scaled = |path: &String| path == "/spec/replicas" && object["metadata"]["name"] == "divvy-worker";
        let mut stored = object.clone();
        let mut filled = fill_in_defaults(&mut stored);
        filled.retain(|path| !is_scaled(path));
        assert_eq!(filled, [""; 0], "in {object:#}");
    }
}

#[test]
fn default_that_was_left_out_is_named() {
    let set = GRID.iter().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
    for path in [
        "/spec/volumeClaimTemplates/0/spec/volumeMode",
        "/spec/template/spec/containers/0/livenessProbe/httpGet/scheme",
        "/spec/revisionHistoryLimit",
    ] {
        let mut object = set.clone();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        object.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(field).expect("a field");
        let filled = fill_in_defaults(&mut object);
        assert_eq!(filled.len(), 1, "{filled:?}");
        assert_eq!(&object, set, "the API server fills in what is written");
    }
}

#[test]
fn load_balancer_that_leaves_its_defaults_out_is_named() {
    let mut service = json!({ "kind": "Service", "spec": { "type": "LoadBalancer", "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack" } });
    assert_eq!(fill_in_defaults(&mut service), ["/spec/allocateLoadBalancerNodePorts", "/spec/externalTrafficPolicy"]);
}

/// Fills in the API server's defaults; returns the paths of the missing fields.
fn fill_in_defaults(object: &mut Value) -> Vec<String> {
    let mut filled = Vec::new();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    for (of, path, field, default) in DEFAULTS {
        if *of == "*" || *of == kind {
            let default: Value = serde_json::from_str(default).expect("a default is JSON");
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            fill_in(object, &parts, field, &default, path, &mut filled);
        }
    }
    if kind == "Service" && object["spec"]["type"] == "LoadBalancer" {
        for (field, default) in OF_LOAD_BALANCERS {
            let default: Value = serde_json::from_str(default).expect("a default is JSON");
            fill_in(object, &["spec"], field, &default, "/spec", &mut filled);
        }
    }
    filled
}

fn fill_in(object: &mut Value, path: &[&str], field: &str, default: &Value, whole: &str, filled: &mut Vec<String>) {
    match (path, object) {
        ([], Value::Object(fields)) if !fields.contains_key(field) => {
            fields.insert(field.to_owned(), default.clone());
            filled.push(format!("{whole}/{field}"));
        }
        (["*", rest @ ..], Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| fill_in(element, rest, field, default, whole, filled));
        }
        ([part, rest @ ..], Value::Object(fields)) => {
            if let Some(part) = fields.get_mut(*part) {
                fill_in(part, rest, field, default, whole, filled);
            }
        }
        _ => {}
    }
}
