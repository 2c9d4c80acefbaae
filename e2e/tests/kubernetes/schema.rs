//! Strict reading: a field that the API does not know, one it demands, a value outside its choices.
//!
//! The typed objects alone are lenient: they skip what they do not know and fill in what is missing. So each object is
//! also written back and must come out as it went in. Objects of operators are compared with the operators' own definitions.

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRoleBinding, Role, RoleBinding},
    scheduling::v1::PriorityClass,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::custom_resources::departures;
use crate::helpers::{COMPONENTS, GRID, HIGH_AVAILABILITY, MONITORING};

/// Strings whose values the API bounds, by the end of their path. The generated types leave them open.
const CHOICES: &[(&str, &[&str])] = &[
    ("/imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("/podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("/policyTypes/*", &["Ingress", "Egress"]),
    ("/protocol", &["TCP", "UDP", "SCTP"]),
    ("/seccompProfile/type", &["RuntimeDefault", "Localhost", "Unconfined"]),
    ("Service/spec/type", &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    ("/strategy/type", &["RollingUpdate", "Recreate"]),
    ("/unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("/updateStrategy/type", &["RollingUpdate", "OnDelete"]),
    ("/whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
];

/// The suffixes of a Kubernetes quantity that a manifest may use.
const QUANTITY_SUFFIXES: &[&str] = &["Ki", "Mi", "Gi", "Ti", "m", "k", "M", "G", "T", ""];

#[test]
fn every_object_fits_its_schema() {
    let objects = GRID.iter().chain(MONITORING.iter()).chain(HIGH_AVAILABILITY.iter());
    let objects: Vec<&Value> = objects.chain(COMPONENTS.iter()).collect();
    assert!(objects.len() > 10, "kustomize left objects out");
    for object in objects {
        assert_eq!(faults(object), [""; 0], "in {object:#}");
    }
}

#[test]
fn misspelt_field_is_named() {
    let mut policy = sample();
    policy["spec"]["podSelektor"] = json!({});
    assert_eq!(faults(&policy), ["unknown field spec.?.podSelektor", "changed /spec/podSelektor"]);
}

#[test]
fn missing_field_is_named() {
    let mut deployment = deployment();
    deployment["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .expect("a container is an object")
        .remove("name");
    assert_eq!(faults(&deployment), ["changed /spec/template/spec/containers/0/name"]);
}

#[test]
fn value_outside_its_choices_is_named() {
    let mut policy = sample();
    policy["spec"]["policyTypes"] = json!(["Ingres"]);
    assert_eq!(faults(&policy), ["\"Ingres\" at NetworkPolicy/spec/policyTypes/*"]);
}

#[test]
fn quantity_without_a_known_unit_is_named() {
    let mut deployment = deployment();
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = json!("512MB");
    let path = "Deployment/spec/template/spec/containers/*/resources/limits/memory";
    assert_eq!(faults(&deployment), [format!("\"512MB\" at {path}")]);
}

fn sample() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "sample"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    })
}

fn deployment() -> Value {
    let mut deployments = GRID.iter().filter(|object| object["kind"] == "Deployment");
    deployments.next().expect("there is a Deployment").clone()
}

pub(crate) fn faults(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let mut faults = match (object["apiVersion"].as_str().unwrap_or_default(), kind) {
        ("autoscaling/v2", "HorizontalPodAutoscaler") => typed_faults::<HorizontalPodAutoscaler>(object),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            typed_faults::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            typed_faults::<ValidatingAdmissionPolicyBinding>(object)
        }
        ("batch/v1", "Job") => typed_faults::<Job>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => typed_faults::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => typed_faults::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => typed_faults::<RoleBinding>(object),
        ("v1", "ServiceAccount") => typed_faults::<ServiceAccount>(object),
        ("v1", "ConfigMap") => typed_faults::<ConfigMap>(object),
        ("v1", "Namespace") => typed_faults::<Namespace>(object),
        ("v1", "Service") => typed_faults::<Service>(object),
        ("apps/v1", "Deployment") => typed_faults::<Deployment>(object),
        ("apps/v1", "StatefulSet") => typed_faults::<StatefulSet>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => typed_faults::<NetworkPolicy>(object),
        ("scheduling.k8s.io/v1", "PriorityClass") => typed_faults::<PriorityClass>(object),
        ("policy/v1", "PodDisruptionBudget") => typed_faults::<PodDisruptionBudget>(object),
        (version, kind) => {
            departures(object).unwrap_or_else(|| vec![format!("no schema here for {kind} of {version}")])
        }
    };
    each_string(object, kind.to_owned(), &mut |path, value| {
        if !is_allowed(path, value) {
            faults.push(format!("{value:?} at {path}"));
        }
    });
    faults
}

pub(crate) fn typed_faults<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let typed: Result<T, _> = serde_ignored::deserialize(object, |path| {
        faults.push(format!("unknown field {path}"));
    });
    match typed {
        Ok(typed) => {
            let again = serde_json::to_value(typed).expect("an object of the API is JSON");
            differences(object, &again, String::new(), &mut faults);
        }
        Err(error) => faults.push(error.to_string()),
    }
    faults
}

fn differences(read: &Value, again: &Value, path: String, faults: &mut Vec<String>) {
    match (read, again) {
        (Value::Object(left), Value::Object(right)) => {
            let added = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(added) {
                differences(&read[key], &again[key], format!("{path}/{key}"), faults);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(left, right, format!("{path}/{index}"), faults);
            }
        }
        _ if read == again => {}
        _ => faults.push(format!("changed {path}")),
    }
}

fn each_string(value: &Value, path: String, visit: &mut impl FnMut(&str, &str)) {
    if let Some(text) = value.as_str() {
        visit(&path, text);
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        each_string(value, format!("{path}/{key}"), visit);
    }
    for value in value.as_array().into_iter().flatten() {
        each_string(value, format!("{path}/*"), visit);
    }
}

fn is_allowed(path: &str, value: &str) -> bool {
    let mut choices = CHOICES.iter().filter(|(end, _)| path.ends_with(end));
    let is_chosen = choices.all(|(_, choices)| choices.contains(&value));
    let is_quantity = path.contains("/resources/limits/") || path.contains("/resources/requests/");
    is_chosen && (!is_quantity || fits_quantity(value))
}

fn fits_quantity(value: &str) -> bool {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    digits.parse::<f64>().is_ok() && QUANTITY_SUFFIXES.contains(&&value[digits.len()..])
}
