//! The pods: their rights, how they start, live and end.

use std::fs;
use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{Namespace, Probe, ServiceAccount},
        policy::v1::PodDisruptionBudget,
        scheduling::v1::PriorityClass,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use tempfile::TempDir;

use crate::helpers::{GRID, Workload, all, coordinator, object, pairs, read, render, repository, worker};

const RECOMMENDED_LABELS: [&str; 4] = ["name", "part-of", "version", "managed-by"];

#[test]
fn every_object_carries_the_recommended_labels_and_this_release() {
    for object in GRID.iter() {
        let labels = &object["metadata"]["labels"];
        for label in RECOMMENDED_LABELS {
            let value = &labels[format!("app.kubernetes.io/{label}")];
            assert!(value.is_string(), "{label} is missing in {object:#}");
        }
        let version = &labels["app.kubernetes.io/version"];
        assert_eq!(version, env!("CARGO_PKG_VERSION"), "in {object:#}");
        let template = &object["spec"]["template"]["metadata"]["labels"];
        assert!(template.is_null() || template == labels, "in {object:#}");
    }
}

#[test]
fn everything_is_in_the_namespace_of_the_grid() {
    for object in GRID.iter().filter(|object| object["kind"] != "PriorityClass") {
        assert_eq!(object["metadata"]["namespace"], "divvy", "in {object:#}");
    }
    let namespace: Namespace = serde_saphyr::from_str(&read("k8s/namespace.yaml")).expect("it is a Namespace");
    assert_eq!(namespace.metadata.name.as_deref(), Some("divvy"));
    let enforced = "pod-security.kubernetes.io/enforce".to_owned();
    assert!(pairs(namespace.metadata.labels).contains(&(enforced, "restricted".to_owned())));
}

#[test]
fn removing_what_was_applied_keeps_the_namespace_and_the_volume_in_it() {
    let kinds: Vec<_> = GRID.iter().map(|object| object["kind"].as_str()).collect();
    assert!(!kinds.contains(&Some("Namespace")), "{kinds:?}");
    assert!(!kinds.contains(&Some("PersistentVolumeClaim")), "{kinds:?}");
}

#[test]
fn coordinator_takes_the_place_of_workers_where_cpus_are_short() {
    let class = coordinator().pod.priority_class_name.expect("a class");
    let class: PriorityClass = object(&class);
    assert!(class.value > Some(0) && class.global_default.is_none(), "{class:?}");
    assert_eq!(class.preemption_policy.as_deref(), Some("PreemptLowerPriority"));
    assert_eq!(worker().pod.priority_class_name, None);
}

#[test]
fn label_of_the_version_follows_the_tags_of_the_images() {
    // No label may be a number: the API server refuses the object.
    for (of_coordinator, of_worker) in [("1.2.3", "4.5.6"), ("20261127", "1e5")] {
        let copy = copy_of_the_manifests();
        let kustomization = copy.path().join("release/kustomization.yaml");
        let text = fs::read_to_string(&kustomization).expect("a kustomization");
        let name = "newName: registry.example:5000/team/divvy-coordinator";
        let tagged = text.replacen("newTag: 0.1.0", &format!("newTag: '{of_coordinator}'\n    {name}"), 1).replacen(
            "newTag: 0.1.0",
            &format!("newTag: '{of_worker}'"),
            1,
        );
        fs::write(&kustomization, tagged).expect("write a copy");
        let grid = copy.path().join("kustomization.yaml");
        let text = fs::read_to_string(&grid).expect("a kustomization");
        fs::write(&grid, text + "  - components/front\n").expect("write a copy");
        for object in render(copy.path()) {
            let is_worker = object["metadata"]["name"] == "divvy-worker";
            let version = if is_worker { of_worker } else { of_coordinator };
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/version"], version, "in {object:#}");
            let template = &object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"];
            assert!(template.is_null() || template == version, "in {object:#}");
        }
    }
}

/// Claims of a StatefulSet are immutable, so a label of the version must not reach them.
#[test]
fn claims_of_the_coordinator_do_not_change_with_the_version() {
    let set: StatefulSet = object("divvy-coordinator");
    let claims = set.spec.volume_claim_templates.expect("a claim");
    assert!(claims.iter().all(|claim| claim.metadata.labels.is_none()), "{claims:?}");
}

fn copy_of_the_manifests() -> TempDir {
    let copy = TempDir::new().expect("a directory");
    for directory in ["", "base", "release", "components/front"] {
        let to = copy.path().join(directory);
        fs::create_dir_all(&to).expect("make a directory");
        for entry in fs::read_dir(repository("k8s").join(directory)).expect("the manifests") {
            let from = entry.expect("an entry").path();
            if from.extension().is_some_and(|extension| extension == "yaml") {
                fs::copy(&from, to.join(from.file_name().expect("a name"))).expect("copy a manifest");
            }
        }
    }
    copy
}

#[test]
fn pods_have_no_more_rights_than_they_need() {
    for workload in [coordinator(), worker()] {
        let pod = &workload.pod;
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.enable_service_links, Some(false));
        assert_eq!(pod.host_network, None);
        let volumes = pod.volumes.iter().flatten().filter(|volume| volume.empty_dir.is_none());
        assert_eq!(volumes.count(), 0, "{}", workload.name);
        let rights = pod.security_context.clone().expect("the pod is secured");
        assert_eq!(rights.run_as_non_root, Some(true));
        assert!(rights.run_as_user > Some(10_000));
        assert!(rights.run_as_group > Some(10_000));
        let seccomp = rights.seccomp_profile.map(|profile| profile.type_);
        assert_eq!(seccomp.as_deref(), Some("RuntimeDefault"));

        let rights = workload.container().security_context.clone();
        let rights = rights.expect("the container is secured");
        assert_eq!(rights.allow_privilege_escalation, Some(false));
        assert_eq!(rights.read_only_root_filesystem, Some(true));
        assert_eq!(rights.privileged, None);
        let capabilities = rights.capabilities.expect("capabilities are dropped");
        assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(capabilities.add, None);
    }
}

#[test]
fn pods_run_as_accounts_of_their_own_that_have_no_rights() {
    for workload in [coordinator(), worker()] {
        assert_eq!(workload.pod.service_account_name.as_deref(), Some(workload.name));
        let account: ServiceAccount = object(workload.name);
        assert_eq!(account.automount_service_account_token, Some(false));
    }
    assert!(GRID.iter().all(|object| !object["kind"].as_str().unwrap_or_default().contains("Role")));
}

#[test]
fn probes_ask_the_paths_and_ports_that_answer_them() {
    let (coordinator, worker) = (coordinator(), worker());
    for (workload, live_port, ready_port) in [(&coordinator, "internal", "public"), (&worker, "worker", "worker")] {
        let container = workload.container();
        assert_probe(workload, &container.startup_probe, "/livez", live_port);
        assert_probe(workload, &container.liveness_probe, "/livez", live_port);
        assert_probe(workload, &container.readiness_probe, "/readyz", ready_port);
    }
}

fn assert_probe(workload: &Workload, probe: &Option<Probe>, path: &str, port: &str) {
    let probe = probe.clone().expect("all three probes are stated");
    let request = probe.http_get.expect("probes ask over HTTP");
    assert_eq!(request.path.as_deref(), Some(path));
    assert_eq!(request.port, IntOrString::String(port.to_owned()));
    assert!(workload.port(port) > 0);
    assert!(probe.timeout_seconds <= probe.period_seconds);
}

#[test]
fn listeners_are_bound_to_the_container_ports() {
    let (coordinator, worker) = (coordinator(), worker());
    for (workload, variable, port) in [
        (&coordinator, "DIVVY_PUBLIC_ADDR", "public"),
        (&coordinator, "DIVVY_INTERNAL_ADDR", "internal"),
        (&worker, "DIVVY_LISTEN_ADDR", "worker"),
    ] {
        let address = format!("0.0.0.0:{}", workload.port(port));
        assert_eq!(workload.env(variable), address);
    }
}

#[test]
fn every_variable_is_one_that_the_service_reads() {
    for (workload, config) in [(coordinator(), "coordinator/src/config.rs"), (worker(), "worker/src/config.rs")] {
        let manual = read(config);
        let variables = || workload.container().env.iter().flatten();
        let is_part = |name: &str| {
            let mut values = variables().filter_map(|variable| variable.value.as_deref());
            values.any(|value| value.contains(&format!("$({name})")))
        };
        for variable in variables() {
            let name = format!("`{}`", variable.name);
            assert!(manual.contains(&name) || is_part(&variable.name), "{name} is not in {config}");
        }
    }
}

#[test]
fn worker_is_named_after_its_pod_and_labelled_with_its_node_and_zone() {
    let container = worker().container().clone();
    let variables = container.env.unwrap_or_default();
    let field = |name: &str| {
        let variable = variables.iter().find(|variable| variable.name == name);
        let source = variable.and_then(|variable| variable.value_from.clone()?.field_ref);
        source.unwrap_or_else(|| panic!("{name} is a field of the pod")).field_path
    };
    assert_eq!(field("DIVVY_WORKER_ID"), "metadata.name");
    assert_eq!(field("NODE"), "spec.nodeName");
    assert_eq!(field("ZONE"), "metadata.labels['topology.kubernetes.io/zone']");
    assert_eq!(worker().env("DIVVY_WORKER_LABELS"), "node=$(NODE),zone=$(ZONE)");
    // A variable can name those before it only.
    let place = |name: &str| variables.iter().position(|variable| variable.name == name);
    assert!(place("NODE") < place("DIVVY_WORKER_LABELS") && place("ZONE") < place("DIVVY_WORKER_LABELS"));
}

#[test]
fn successor_waits_for_its_predecessor_as_long_as_that_may_take_to_stop() {
    let workload = coordinator();
    let milliseconds = |name: &str| Duration::from_millis(workload.env(name).parse().expect("a number"));
    let wait = milliseconds("DIVVY_LOCK_TIMEOUT_MS");
    assert!(wait >= pre_stop(&workload) + milliseconds("DIVVY_DRAIN_TIMEOUT_MS") + Duration::from_secs(5));
    let probe = workload.container().startup_probe.clone().expect("a startup probe");
    let patience =
        probe.period_seconds.zip(probe.failure_threshold).map(|(period, times)| seconds((period * times).into()));
    assert!(patience > Some(wait + Duration::from_secs(5)), "{probe:?}");
}

#[test]
fn token_comes_from_one_optional_secret() {
    for workload in [coordinator(), worker()] {
        let mut env = workload.container().env.iter().flatten();
        let token = env.find(|variable| variable.name == "DIVVY_WORKER_TOKEN");
        let source = token.and_then(|variable| variable.value_from.clone()?.secret_key_ref);
        let source = source.expect("the token is a secret's");
        assert_eq!(source.name, "divvy-worker-token");
        assert_eq!(source.key, "token");
        assert_eq!(source.optional, Some(true), "the grid starts without it");
    }
    assert!(GRID.iter().all(|object| object["kind"] != "Secret"));
}

#[test]
fn grace_period_outlasts_pre_stop_and_drain() {
    for workload in [coordinator(), worker()] {
        let grace = workload.pod.termination_grace_period_seconds;
        let grace = seconds(grace.expect("the grace period is stated"));
        let drain = workload.env("DIVVY_DRAIN_TIMEOUT_MS").parse();
        let drain = Duration::from_millis(drain.expect("the drain timeout is a number"));
        let margin = Duration::from_secs(5);
        assert!(grace >= pre_stop(&workload) + drain + margin);
    }
}

#[test]
fn coordinator_serves_on_while_load_balancers_learn_of_its_end() {
    assert!(pre_stop(&coordinator()) >= Duration::from_secs(1));
}

/// The sleep of the container's preStop hook; the images hold no shell, so the hook can do nothing else.
fn pre_stop(workload: &Workload) -> Duration {
    let Some(lifecycle) = workload.container().lifecycle.clone() else {
        return Duration::ZERO;
    };
    let hook = lifecycle.pre_stop.expect("the only hook is preStop");
    assert!(hook.exec.is_none(), "the images hold nothing to execute");
    seconds(hook.sleep.expect("preStop sleeps").seconds)
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).expect("a duration is not negative"))
}

#[test]
fn node_drain_is_never_blocked() {
    for workload in [coordinator(), worker()] {
        let budget: PodDisruptionBudget = object(workload.name);
        let spec = budget.spec.expect("the budget has a spec");
        let selector = pairs(spec.selector.and_then(|selector| selector.match_labels));
        assert_eq!(selector, workload.selector);
        let policy = spec.unhealthy_pod_eviction_policy.as_deref();
        assert_eq!(policy, Some("AlwaysAllow"));
        assert_eq!(spec.min_available, None);
        let allowed = spec.max_unavailable.expect("maxUnavailable is stated");
        assert!(pods(&allowed, workload.replicas) >= 1, "{allowed:?}");
    }
}

#[test]
fn rollouts_go_forward_without_room_for_more_pods() {
    let deployment: Deployment = object("divvy-worker");
    let rolling = deployment.spec.strategy.and_then(|strategy| strategy.rolling_update);
    let rolling = rolling.expect("workers are updated in turn");
    assert_eq!(rolling.max_surge, Some(IntOrString::Int(0)));
    let unavailable = rolling.max_unavailable.expect("maxUnavailable is stated");
    let unavailable = pods(&unavailable, worker().replicas);
    assert!((1..worker().replicas).contains(&unavailable));

    let set: StatefulSet = object("divvy-coordinator");
    let policy = set.spec.pod_management_policy.as_deref();
    assert_eq!(policy, Some("Parallel"));
}

/// The number of pods that a count or percentage of `replicas` means, rounded down.
fn pods(share: &IntOrString, replicas: i32) -> i32 {
    match share {
        IntOrString::Int(count) => *count,
        IntOrString::String(percent) => {
            let digits = percent.strip_suffix('%').expect("a share is a percentage");
            let percent: i32 = digits.parse().expect("a percentage is a number");
            replicas * percent / 100
        }
    }
}

#[test]
fn workers_spread_over_nodes_and_zones() {
    let worker = worker();
    let constraints = worker.pod.topology_spread_constraints.clone();
    let constraints = constraints.expect("workers spread");
    for constraint in &constraints {
        let selector = constraint.label_selector.clone();
        let selector = pairs(selector.and_then(|selector| selector.match_labels));
        assert_eq!(selector, worker.selector);
    }
    let keys: Vec<_> = constraints.iter().map(|it| it.topology_key.as_str()).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
}

#[test]
fn coordinators_data_is_on_a_volume_that_its_user_can_write_and_that_stays() {
    let coordinator = coordinator();
    let container = &coordinator.pod.containers[0];
    let env = container.env.clone().unwrap_or_default();
    let data_dir = env.iter().find(|variable| variable.name == "DIVVY_DATA_DIR").and_then(|it| it.value.clone());
    let mount = container.volume_mounts.clone().unwrap_or_default().pop().expect("a mounted volume");
    assert!(data_dir.expect("a data directory").starts_with(&format!("{}/", mount.mount_path)));
    let set: StatefulSet = object("divvy-coordinator");
    let claims = set.spec.volume_claim_templates.clone().unwrap_or_default();
    assert_eq!(claims.iter().map(|claim| claim.metadata.name.clone()).collect::<Vec<_>>(), [Some(mount.name)]);
    let security = coordinator.pod.security_context.clone().expect("a security context");
    assert_eq!(security.fs_group, security.run_as_group);
    let retention = set.spec.persistent_volume_claim_retention_policy.expect("what becomes of the volume is said");
    assert_eq!(retention.when_deleted.as_deref(), Some("Retain"));
}

#[test]
fn selectors_take_their_own_pods_and_no_others() {
    let (coordinator, worker) = (coordinator(), worker());
    assert!(coordinator.is_selected(&coordinator.selector));
    assert!(worker.is_selected(&worker.selector));
    assert!(!coordinator.is_selected(&worker.selector));
    assert!(!worker.is_selected(&coordinator.selector));
    assert_eq!(all::<StatefulSet>().len(), 1);
    assert_eq!(all::<Deployment>().len(), 1);
}
