//! Objects of operators against the definitions in the operators' releases, read as strictly as an API server can: no field is
//! unknown, and none is dropped.
//!
//! Needs the definitions under `target/tools/crds`, where `scripts/test.sh` puts them. Their rules in CEL are for a real API server
//! (`scripts/try-cluster.sh`).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::Regex;
use serde_json::{Value, json};

use crate::chart::{helm, several_coordinators};
use crate::helpers::{COMPONENTS, MONITORING, read, repository};
use crate::schema::{faults, typed_faults};

/// The schemas of a kind by the names of the releases that have it.
type Definitions = Vec<(String, Value)>;

/// Keywords that admit every value by themselves: texts, defaults, and how changes are merged.
const WITHOUT_BOUNDS: &[&str] = &[
    "default",
    "description",
    "nullable",
    "x-kubernetes-int-or-string",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

#[test]
fn objects_of_all_operators_are_compared_with_their_definitions() {
    for (kind, releases) in [("ScaledObject", 1), ("ServiceMonitor", 2), ("PodMonitor", 2), ("PrometheusRule", 2)] {
        let object = found(kind);
        let (group, version) = group_and_version(&object).expect("a group");
        assert_eq!(definitions(group, version, kind).len(), releases, "{kind}");
        assert_eq!(faults(&object), [""; 0], "{kind}");
    }
}

#[test]
fn certificates_of_the_manual_are_what_cert_manager_takes() {
    let manual = read("k8s/README.md");
    let blocks = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let objects = blocks.filter(|block| block.contains("cert-manager.io/")).flat_map(|block| {
        let objects: Vec<Value> = serde_saphyr::from_multiple(block).expect("valid YAML");
        objects
    });
    let objects: Vec<_> = objects.collect();
    assert_eq!(objects.len(), 3);
    for object in objects {
        assert_eq!(faults(&object), [""; 0], "in {object:#}");
        let mut misspelt = object;
        misspelt["spec"]["dnsName"] = json!(["divvy"]);
        assert_eq!(faults(&misspelt), ["cert-manager: unknown field /spec/dnsName"]);
    }
}

/// No manifest has the objects that a chart renders with other values, so no other test looks at them.
#[test]
fn chart_renders_objects_that_the_operators_take() {
    let monitoring = json!({
        "enabled": true,
        "labels": { "release": "kube-prometheus-stack" },
        "runbook": "https://docs.example/divvy/runbook.md",
    });
    let keda =
        json!({ "kind": "keda", "minReplicas": 0, "prometheusAddress": "https://prometheus.example/read?tenant=1" });
    for tls in [false, true] {
        let mut values = several_coordinators();
        values["tls"] = json!({ "enabled": tls });
        values["monitoring"] = monitoring.clone();
        values["autoscaling"] = keda.clone();
        let objects = helm(&values);
        let of_operators =
            objects.iter().filter(|object| group_and_version(object).is_some_and(|(group, _)| is_of_operator(group)));
        assert_eq!(of_operators.count(), 4);
        for object in objects {
            assert_eq!(faults(&object), [""; 0], "in {object:#}");
        }
    }
}

#[test]
fn what_a_definition_does_not_admit_is_named() {
    let both =
        |fault: &str| vec![format!("prometheus-operator: {fault}"), format!("prometheus-operator-0.85: {fault}")];
    let keda = |fault: &str| vec![format!("keda: {fault}")];
    for (kind, path, planted, expected) in [
        ("ScaledObject", "/spec/minReplicas", json!(0), keda("unknown field /spec/minReplicas")),
        ("ScaledObject", "/spec/pollingInterval", json!(0), keda("0 at /spec/pollingInterval: minimum is 1")),
        (
            "ScaledObject",
            "/spec/triggers/0/metadata/threshold",
            json!(1),
            keda(r#"1 at /spec/triggers/0/metadata/threshold: type is "string""#),
        ),
        (
            "ServiceMonitor",
            "/spec/endpoints/0/relabelling",
            json!([]),
            both("unknown field /spec/endpoints/0/relabelling"),
        ),
        ("ServiceMonitor", "/metadata/label", json!({}), both("unknown field /metadata/label")),
    ] {
        let mut object = found(kind);
        let (parent, field) = path.rsplit_once('/').expect("a path");
        object.pointer_mut(parent).expect("it is there")[field] = planted;
        let named: Vec<_> = faults(&object).into_iter().filter(|fault| !fault.contains("changed")).collect();
        assert_eq!(named, expected, "{path}");
    }
    let mut monitor = found("PodMonitor");
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = json!("15 seconds");
    assert!(
        faults(&monitor)[0]
            .starts_with(r#"prometheus-operator: "15 seconds" at /spec/podMetricsEndpoints/0/interval: pattern"#)
    );
    let mut rule = found("PrometheusRule");
    rule["spec"]["groups"][0]["rules"][0].as_object_mut().expect("a rule").remove("expr");
    assert_eq!(faults(&rule), both("missing /spec/groups/0/rules/0/expr"));
    rule = found("PrometheusRule");
    let twice = rule["spec"]["groups"][0].clone();
    rule["spec"]["groups"].as_array_mut().expect("groups").push(twice);
    assert_eq!(faults(&rule), both("an element twice in /spec/groups"));
}

fn found(kind: &str) -> Value {
    let mut objects = MONITORING.iter().chain(COMPONENTS.iter());
    objects.find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone()
}

fn is_of_operator(group: &str) -> bool {
    ["keda.sh", "monitoring.coreos.com", "cert-manager.io"].contains(&group)
}

fn group_and_version(object: &Value) -> Option<(&str, &str)> {
    object["apiVersion"].as_str()?.split_once('/')
}

/// Where the object departs from the definition of a release; nothing where no release defines it.
pub(crate) fn departures(object: &Value) -> Option<Vec<String>> {
    let (group, version) = group_and_version(object)?;
    let definitions = definitions(group, version, object["kind"].as_str()?);
    if definitions.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for (release, schema) in definitions.iter() {
        let mut faults = Vec::new();
        compare(schema, object, "", &mut faults);
        // A definition says no more of it than that it is an object.
        faults.extend(typed_faults::<ObjectMeta>(&object["metadata"]).into_iter().map(|fault| {
            let field = fault.strip_prefix("unknown field ");
            field.map_or_else(|| format!("{fault} in /metadata"), |field| format!("unknown field /metadata/{field}"))
        }));
        all.extend(faults.into_iter().map(|fault| format!("{release}: {fault}")));
    }
    Some(all)
}

/// The schema of a kind in every release that has it, in the order of the releases' names.
fn definitions(group: &str, version: &str, kind: &str) -> Arc<Definitions> {
    // They are long, and objects of a kind are many.
    static READ: Mutex<BTreeMap<String, Arc<Definitions>>> = Mutex::new(BTreeMap::new());
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{group}/{version} {kind}");
    Arc::clone(read.entry(key).or_insert_with(|| Arc::new(read_definitions(group, version, kind))))
}

fn read_definitions(group: &str, version: &str, kind: &str) -> Definitions {
    let crds = repository("target/tools/crds");
    let releases = fs::read_dir(&crds).expect("the definitions of operators (scripts/test.sh fetches them)");
    let file = format!("{group}_{}s.yaml", kind.to_lowercase());
    let mut found = Vec::new();
    for release in releases.map(|entry| entry.expect("an entry")) {
        let Ok(yaml) = fs::read_to_string(release.path().join(&file)) else { continue };
        let definition: Value = serde_saphyr::from_str(&yaml).expect("valid YAML");
        assert_eq!(definition["spec"]["names"]["kind"], kind);
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        let served = versions.iter().find(|it| it["name"] == version && it["served"] == true);
        let served = served.unwrap_or_else(|| panic!("{version} of {kind} is not served"));
        let name = release.file_name().into_string().expect("UTF-8");
        found.push((name, served["schema"]["openAPIV3Schema"].clone()));
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

fn compare(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, bound) in keywords {
        if !admits(keyword, bound, value, path, faults) {
            faults.push(format!("{value} at {path}: {keyword} is {bound}"));
        }
    }
    let is_closed = schema["additionalProperties"].is_null()
        && schema["x-kubernetes-preserve-unknown-fields"] != true
        && path != "/metadata";
    for (field, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{field}");
        match schema["properties"].get(field) {
            Some(known) => compare(known, value, &path, faults),
            None if is_closed => faults.push(format!("unknown field {path}")),
            None if schema["additionalProperties"].is_object() => {
                compare(&schema["additionalProperties"], value, &path, faults);
            }
            None => {}
        }
    }
}

/// Whether a value is within the bounds of one keyword; lists and demanded fields name their faults themselves.
fn admits(keyword: &str, bound: &Value, value: &Value, path: &str, faults: &mut Vec<String>) -> bool {
    let texts = |bound: &Value| -> Vec<String> { serde_json::from_value(bound.clone()).expect("texts") };
    match keyword {
        "type" => is_of_type(value, bound.as_str().expect("a type")),
        "enum" => bound.as_array().expect("values").contains(value),
        "format" => has_format(value, bound.as_str().expect("a format")),
        "pattern" => {
            let pattern = Regex::new(bound.as_str().expect("a pattern")).expect("a pattern");
            value.as_str().is_none_or(|text| pattern.is_match(text))
        }
        "minimum" => value.as_f64() >= bound.as_f64(),
        "maximum" => value.as_f64() <= bound.as_f64(),
        "minLength" | "minItems" | "minProperties" => length(value) >= bound.as_u64(),
        "maxLength" | "maxItems" | "maxProperties" => length(value) <= bound.as_u64(),
        "anyOf" => bound.as_array().expect("schemas").iter().any(|schema| {
            let mut faults = Vec::new();
            compare(schema, value, path, &mut faults);
            faults.is_empty()
        }),
        "required" => {
            let missing = texts(bound).into_iter().filter(|field| value[field].is_null());
            faults.extend(missing.map(|field| format!("missing {path}/{field}")));
            true
        }
        "items" => {
            for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                compare(bound, element, &format!("{path}/{index}"), faults);
            }
            true
        }
        "x-kubernetes-list-map-keys" => {
            let keys = texts(bound);
            let of_element = |element: &Value| keys.iter().map(|key| element[key].to_string()).collect::<Vec<_>>();
            note_repeated(value.as_array().into_iter().flatten().map(of_element), path, faults);
            true
        }
        "x-kubernetes-list-type" => {
            if bound == "set" {
                note_repeated(value.as_array().into_iter().flatten().map(Value::to_string), path, faults);
            }
            true
        }
        "properties" | "additionalProperties" => true,
        known if WITHOUT_BOUNDS.contains(&known) => true,
        unknown => panic!("the keyword {unknown} of {path} is not read"),
    }
}

fn is_of_type(value: &Value, of: &str) -> bool {
    match of {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        unknown => panic!("the type {unknown} is not known"),
    }
}

fn has_format(value: &Value, format: &str) -> bool {
    match format {
        "int32" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" => value.is_i64(),
        "date-time" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        unknown => panic!("the format {unknown} is not known"),
    }
}

/// Characters of a text, elements of a list, fields of an object.
fn length(value: &Value) -> Option<u64> {
    let length = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(elements) => elements.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    u64::try_from(length).ok()
}

fn note_repeated<T: std::hash::Hash + Eq>(mut keys: impl Iterator<Item = T>, path: &str, faults: &mut Vec<String>) {
    let mut seen = HashSet::new();
    if !keys.all(|key| seen.insert(key)) {
        faults.push(format!("an element twice in {path}"));
    }
}
