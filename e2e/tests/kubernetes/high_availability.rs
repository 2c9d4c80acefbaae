//! The overlay `k8s/overlays/high-availability`: several coordinators over one database.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{EnvVar, PodSpec, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use serde_json::{Value, json};

use crate::helpers::{HIGH_AVAILABILITY, all_of, coordinator, object, pairs, read, render_overlay};
use crate::schema::faults;

fn coordinators() -> StatefulSet {
    let mut sets = all_of::<StatefulSet>(&HIGH_AVAILABILITY);
    assert_eq!(sets.len(), 1);
    sets.remove(0)
}

fn pod() -> PodSpec {
    coordinators().spec.template.spec.expect("a pod")
}

fn variables() -> Vec<EnvVar> {
    pod().containers.remove(0).env.expect("variables")
}

#[test]
fn three_coordinators_share_no_node_of_three() {
    let set = coordinators();
    assert_eq!(set.spec.replicas, Some(3));
    let spread = pod().topology_spread_constraints.expect("they spread");
    let by_node = spread.iter().find(|constraint| constraint.topology_key == "kubernetes.io/hostname");
    let by_node = by_node.expect("over nodes");
    assert_eq!((by_node.max_skew, by_node.when_unsatisfiable.as_str()), (1, "DoNotSchedule"));
    let selected = by_node.label_selector.clone().and_then(|selector| selector.match_labels);
    assert_eq!(pairs(selected), pairs(set.spec.selector.match_labels));
}

#[test]
fn the_database_and_the_object_store_are_named_by_a_secret_that_must_be_there() {
    for (name, key) in [("DIVVY_STORE_URL", "url"), ("DIVVY_RESULTS_URL", "results-url")] {
        let variable = variables().into_iter().find(|variable| variable.name == name).expect(name);
        let secret = variable.value_from.and_then(|source| source.secret_key_ref).expect("from a Secret");
        assert_eq!((secret.name.as_str(), secret.key.as_str(), secret.optional), ("divvy-store", key, None));
    }
    assert!(variables().iter().all(|variable| variable.name != "DIVVY_DATA_DIR"));
    assert!(coordinators().spec.volume_claim_templates.is_none(), "no pod has data of its own");
    assert!(pod().containers[0].volume_mounts.is_none());
}

/// Kubelet starts a pod that has ended again after up to five minutes.
#[test]
fn start_waits_for_a_database_that_is_away_almost_as_long_as_kubelet_waits_for_the_start() {
    let wait = variables().into_iter().find(|it| it.name == "DIVVY_LOCK_TIMEOUT_MS").and_then(|it| it.value);
    let wait: i32 = wait.expect("a time").parse().expect("milliseconds");
    let probe = pod().containers[0].startup_probe.clone().expect("a startup probe");
    let patience = probe.period_seconds.zip(probe.failure_threshold).map(|(period, times)| period * times);
    let patience = patience.expect("a period and a number of failures") * 1000;
    assert!((patience / 2..patience - 30_000).contains(&wait), "{wait} of {patience} ms");
}

#[test]
fn each_coordinator_has_its_pods_name_and_address() {
    for (name, field) in [("DIVVY_COORDINATOR_ID", "metadata.name"), ("POD_IP", "status.podIP")] {
        let variable = variables().into_iter().find(|variable| variable.name == name).expect(name);
        let source = variable.value_from.and_then(|source| source.field_ref).expect("a field of the pod");
        assert_eq!(source.field_path, field);
    }
    let manual = read("coordinator/src/config.rs");
    for variable in variables() {
        assert!(manual.contains(&format!("`{}`", variable.name)), "{} is not read", variable.name);
    }
}

#[test]
fn workers_register_with_every_coordinator_also_with_those_that_are_not_ready() {
    let worker = all_of::<Deployment>(&HIGH_AVAILABILITY).remove(0).spec.template.spec.expect("a pod");
    let variables = worker.containers[0].env.clone().expect("variables");
    let url = variables.into_iter().find(|variable| variable.name == "DIVVY_COORDINATOR").and_then(|it| it.value);
    let service_name = coordinators().spec.service_name.expect("a Service");
    assert_eq!(url, Some(format!("http://{service_name}:8081")));
    let services = all_of::<Service>(&HIGH_AVAILABILITY);
    let service = services.into_iter().find(|service| service.metadata.name.as_deref() == Some(&service_name));
    let spec = service.and_then(|service| service.spec).expect("the Service");
    assert_eq!((spec.cluster_ip.as_deref(), spec.publish_not_ready_addresses), (Some("None"), Some(true)));
}

#[test]
fn load_balancers_ask_each_node_for_its_coordinators_and_hear_in_time_that_one_ends() {
    let services = all_of::<Service>(&HIGH_AVAILABILITY);
    let service = services.into_iter().find(|service| service.metadata.name.as_deref() == Some("divvy-coordinator"));
    let spec = service.and_then(|service| service.spec).expect("the Service");
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    let pod = pod();
    let hook = pod.containers[0].lifecycle.clone().and_then(|it| it.pre_stop).and_then(|it| it.sleep).expect("a sleep");
    // Two questions five seconds apart, as load balancers of clouds ask at the least.
    assert!(hook.seconds >= 10);
    let drain = variables().into_iter().find(|it| it.name == "DIVVY_DRAIN_TIMEOUT_MS").and_then(|it| it.value);
    let drain: i64 = drain.expect("a drain timeout").parse().expect("milliseconds");
    let grace = pod.termination_grace_period_seconds.expect("a grace period");
    assert!(grace >= hook.seconds + drain / 1000 + 5);
}

#[test]
fn one_coordinator_at_a_time_may_be_evicted() {
    let budgets = all_of::<PodDisruptionBudget>(&HIGH_AVAILABILITY);
    let budget = budgets.into_iter().find(|budget| budget.metadata.name.as_deref() == Some("divvy-coordinator"));
    let spec = budget.and_then(|budget| budget.spec).expect("a budget");
    assert_eq!(spec.max_unavailable, Some(IntOrString::Int(1)));
}

#[test]
fn coordinators_reach_each_other_the_database_and_the_object_store() {
    let policies = all_of::<NetworkPolicy>(&HIGH_AVAILABILITY);
    let policy = policies.into_iter().find(|policy| policy.metadata.name.as_deref() == Some("divvy-coordinators"));
    let spec = policy.and_then(|policy| policy.spec).expect("a policy");
    let own = pairs(coordinators().spec.selector.match_labels);
    assert_eq!(pairs(spec.pod_selector.and_then(|selector| selector.match_labels)), own);
    let inward: Vec<_> = spec.ingress.into_iter().flatten().flat_map(|rule| numbers(rule.ports)).collect();
    assert_eq!(inward, [8081]);
    let outward: Vec<_> = spec.egress.into_iter().flatten().flat_map(|rule| numbers(rule.ports)).collect();
    assert_eq!(outward, [8080, 8081, 5432, 443, 53, 53]);
}

#[test]
fn api_tokens_are_read_from_a_whole_directory_of_their_secret() {
    for grid in ["k8s", "k8s/overlays/high-availability"] {
        let objects = render_overlay(&[grid], &["k8s/components/api-tokens"]);
        let pod = all_of::<StatefulSet>(&objects).remove(0).spec.template.spec.expect("a pod");
        let container = &pod.containers[0];
        let mut variables = container.env.iter().flatten();
        let file = variables.find(|it| it.name == "DIVVY_API_TOKENS_FILE").and_then(|it| it.value.clone());
        let mut mounts = container.volume_mounts.iter().flatten();
        let mount = mounts.find(|it| it.name == "api-tokens").expect("a mount");
        assert_eq!((file, &mount.sub_path), (Some(format!("{}/tokens.toml", mount.mount_path)), &None));
        let volumes = pod.volumes.unwrap_or_default();
        let secret =
            volumes.iter().find(|it| it.name == mount.name).and_then(|it| it.secret.clone()).expect("a Secret");
        assert_eq!(secret.secret_name.as_deref(), Some("divvy-api-tokens"));
    }
}

#[test]
fn job_of_the_manual_moves_what_the_volume_of_one_coordinator_has_to_where_several_look() {
    let manual = read("k8s/README.md");
    let blocks = manual.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
    let job = blocks.into_iter().find(|block| block.contains("kind: Job")).expect("a Job in the manual");
    let job: Value = serde_saphyr::from_str(job).expect("YAML");
    assert_eq!(faults(&job), [""; 0]);
    let template = &job["spec"]["template"];
    let labels = coordinators().spec.selector.match_labels.expect("labels");
    assert_eq!(template["metadata"]["labels"], json!(labels), "the policies let it out");

    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
    let one = coordinator();
    let set: StatefulSet = object(one.name);
    let [claim] = &set.spec.volume_claim_templates.expect("a claim")[..] else { panic!("one claim") };
    let claim = format!("{}-{}-0", claim.metadata.name.as_deref().expect("a name"), one.name);
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], claim.as_str());
    let mounts = one.container().volume_mounts.clone().expect("a mount");
    assert_eq!(container["volumeMounts"][0]["mountPath"], mounts[0].mount_path.as_str());
    let data_dir = one.env("DIVVY_DATA_DIR");
    let arguments = ["migrate", "--from", data_dir, "--to", "$(STORE)", "--to-results", "$(RESULTS)"];
    assert_eq!(container["args"], json!(arguments));
    for (number, name) in [(0, "DIVVY_STORE_URL"), (1, "DIVVY_RESULTS_URL")] {
        let secret = variables().into_iter().find(|variable| variable.name == name).and_then(|it| it.value_from);
        assert_eq!(container["env"][number]["valueFrom"], json!(secret), "{name}");
    }
    assert_eq!(container["envFrom"], json!(self::pod().containers[0].env_from));
    let rights = one.pod.security_context.expect("the pod is secured");
    assert_eq!(pod["securityContext"]["fsGroup"], json!(rights.fs_group), "it may read the volume");
}

fn numbers(ports: Option<Vec<NetworkPolicyPort>>) -> Vec<i32> {
    let number = |port: NetworkPolicyPort| match port.port {
        Some(IntOrString::Int(number)) => number,
        other => panic!("a number, not {other:?}"),
    };
    ports.into_iter().flatten().map(number).collect()
}
