//! The components whose pods ask the API server: identity by service accounts, and deletion costs.

use std::fs;

use serde_json::{Value, json};

use crate::helpers::{GRID, read, render_overlay, with_component};

const IDENTITY: &str = "service-account-identity";
const DELETION_COST: &str = "deletion-cost";
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Each with the workload whose pods ask the API server.
const COMPONENTS: [(&str, &str); 2] = [(IDENTITY, "divvy-coordinator"), (DELETION_COST, "divvy-worker")];

#[test]
fn workers_show_a_token_for_the_audience_that_the_coordinator_demands() {
    let objects = render_overlay(&["k8s"], &["k8s/components/python-workers", &format!("k8s/components/{IDENTITY}")]);
    let audience = variable(&objects, "divvy-coordinator", "DIVVY_WORKER_AUDIENCE")["value"].clone();
    let accounts = &variable(&objects, "divvy-coordinator", "DIVVY_WORKER_SERVICE_ACCOUNTS")["value"];
    let mut accounts: Vec<_> = accounts.as_str().expect("accounts").split(',').collect();
    for worker in ["divvy-worker", "divvy-python-worker"] {
        let pod = pod(&objects, worker);
        let token = source(&pod, "serviceAccountToken");
        assert_eq!(token["audience"], audience);
        let file = variable(&objects, worker, "DIVVY_WORKER_TOKEN_FILE")["value"].clone();
        let directory = mount(&pod, "identity");
        assert_eq!(file, format!("{directory}/{}", token["path"].as_str().expect("a path")));
        let account = format!("$(NAMESPACE):{}", pod["serviceAccountName"].as_str().expect("an account"));
        accounts.retain(|other| *other != account);
    }
    assert_eq!(accounts, Vec::<&str>::new(), "accounts of nobody");
    assert_named_before(&objects, "divvy-coordinator", "NAMESPACE", "DIVVY_WORKER_SERVICE_ACCOUNTS");
}

#[test]
fn coordinator_may_ask_about_tokens_and_nothing_else_of_the_cluster() {
    let objects = with_component(IDENTITY);
    let binding = find(&objects, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], "system:auth-delegator");
    let account = pod(&objects, "divvy-coordinator")["serviceAccountName"].clone();
    assert_eq!(binding["subjects"], json!([{ "kind": "ServiceAccount", "name": account, "namespace": "divvy" }]));
    assert!(objects.iter().all(|object| object["kind"] != "Role" && object["kind"] != "ClusterRole"));
}

#[test]
fn worker_may_patch_pods_and_a_policy_leaves_it_one_annotation_of_its_own() {
    let objects = with_component(DELETION_COST);
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"] }]);
    assert_eq!(find(&objects, "Role")["rules"], rules);
    let account = pod(&objects, "divvy-worker")["serviceAccountName"].clone();
    let binding = find(&objects, "RoleBinding");
    assert_eq!(binding["roleRef"]["name"], find(&objects, "Role")["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account);
    let policy = find(&objects, "ValidatingAdmissionPolicy");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().expect("an expression");
    assert!(condition.ends_with(&format!(":{}'", account.as_str().expect("a name"))), "{condition}");
    let annotation = read("worker/src/deletion_cost.rs");
    let annotation = annotation.split("const ANNOTATION: &str = \"").nth(1).and_then(|rest| rest.split('"').next());
    let validations = policy["spec"]["validations"].to_string();
    assert!(validations.contains(&format!("'{}'", annotation.expect("the annotation"))), "{validations}");
    let binding = find(&objects, "ValidatingAdmissionPolicyBinding");
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
}

#[test]
fn worker_knows_its_own_pod() {
    let objects = with_component(DELETION_COST);
    assert_eq!(variable(&objects, "divvy-worker", "DIVVY_DELETION_COST_POD")["value"], "$(NAMESPACE)/$(POD)");
    for (name, field) in [("NAMESPACE", "metadata.namespace"), ("POD", "metadata.name")] {
        let variable = variable(&objects, "divvy-worker", name);
        assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], field);
        assert_named_before(&objects, "divvy-worker", name, "DIVVY_DELETION_COST_POD");
    }
}

#[test]
fn pods_that_ask_the_api_server_have_a_token_its_authority_and_a_way_to_it() {
    for (component, workload) in COMPONENTS {
        let objects = with_component(component);
        let pod = pod(&objects, workload);
        assert_eq!(mount(&pod, "api-server"), ACCOUNT_DIR, "{component}");
        // Not by the kubelet's own volume, which every container would have.
        assert_eq!(pod["automountServiceAccountToken"], false);
        let volumes = pod["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == "api-server").expect("a volume");
        let sources = volume["projected"]["sources"].as_array().expect("sources");
        assert_eq!(sources[0]["serviceAccountToken"]["path"], "token");
        assert_eq!(sources[0]["serviceAccountToken"]["audience"], Value::Null, "the API server's own audience");
        assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
        assert_eq!(sources[1]["configMap"]["items"][0]["path"], "ca.crt");
        let policy = objects.iter().find(|object| {
            object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == format!("{workload}-api-server")
        });
        let policy = &policy.expect("a policy")["spec"];
        assert_eq!(policy["policyTypes"], json!(["Egress"]));
        let selected =
            policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"].as_str().expect("a component");
        assert!(workload.ends_with(selected), "{policy}");
        let ports = policy["egress"][0]["ports"].as_array().expect("ports").iter().map(|port| port["port"].as_u64());
        assert_eq!(ports.collect::<Vec<_>>(), [Some(443), Some(6443)]);
    }
}

#[test]
fn components_go_together_over_several_coordinators_with_tls() {
    let components = [IDENTITY, DELETION_COST, "tls"].map(|name| format!("k8s/components/{name}"));
    let components = components.each_ref().map(String::as_str);
    let objects = render_overlay(&["k8s/overlays/high-availability"], &components);
    for (workload, volumes) in [("divvy-coordinator", 2), ("divvy-worker", 4)] {
        let pod = pod(&objects, workload);
        let names: Vec<_> = pod["volumes"].as_array().expect("volumes").iter().map(|volume| &volume["name"]).collect();
        assert_eq!(names.len(), volumes, "{names:?}");
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
        assert_eq!(mounts.len(), volumes, "{mounts:?}");
    }
}

#[test]
fn every_variable_of_the_components_is_one_that_the_service_reads() {
    for (component, _) in COMPONENTS {
        for (workload, config) in [("divvy-coordinator", "coordinator"), ("divvy-worker", "worker")] {
            let manual = read(&format!("{config}/src/config.rs"));
            let objects = with_component(component);
            let pod = pod(&objects, workload);
            for variable in pod["containers"][0]["env"].as_array().expect("variables") {
                let name = variable["name"].as_str().expect("a name");
                let is_read = !name.starts_with("DIVVY_") || manual.contains(&format!("`{name}`"));
                assert!(is_read, "{name} of {component}");
            }
        }
    }
    // The manual states the purpose of every component.
    let manual = read("k8s/README.md");
    for entry in fs::read_dir(crate::helpers::repository("k8s/components")).expect("components") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        assert!(manual.contains(&name), "{name} is not in the manual");
    }
    assert!(GRID.iter().all(|object| object["kind"] != "ClusterRoleBinding"));
}

/// A variable can name those before it only.
fn assert_named_before(objects: &[Value], workload: &str, first: &str, second: &str) {
    let pod = pod(objects, workload);
    let variables = pod["containers"][0]["env"].as_array().expect("variables");
    let place = |name: &str| variables.iter().position(|variable| variable["name"] == name).expect("a variable");
    assert!(place(first) < place(second), "{second} names {first}");
}

fn source(pod: &Value, kind: &str) -> Value {
    let volumes = pod["volumes"].as_array().expect("volumes").iter();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().cloned().unwrap_or_default());
    let found: Vec<_> = sources.filter(|source| source[kind].is_object()).collect();
    let [source] = found.as_slice() else { panic!("one {kind}, not {found:?}") };
    source[kind].clone()
}

/// The path at which a volume is mounted, read-only and whole.
fn mount(pod: &Value, volume: &str) -> String {
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["name"] == volume).expect("a mount");
    assert_eq!((&mount["readOnly"], &mount["subPath"]), (&json!(true), &Value::Null));
    mount["mountPath"].as_str().expect("a path").to_owned()
}

fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn pod(objects: &[Value], workload: &str) -> Value {
    let mut found = objects
        .iter()
        .filter(|object| object["metadata"]["name"] == workload && object["spec"]["template"].is_object());
    found.next().expect("a workload")["spec"]["template"]["spec"].clone()
}

fn variable(objects: &[Value], workload: &str, name: &str) -> Value {
    let pod = pod(objects, workload);
    let variables = pod["containers"][0]["env"].as_array().expect("variables");
    variables.iter().find(|variable| variable["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}
