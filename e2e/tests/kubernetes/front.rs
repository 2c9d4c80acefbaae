//! `k8s/components/front`: the front before the one coordinator, which keeps its clients.

use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodSpec, Service, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::helpers::{HIGH_AVAILABILITY, all_of, coordinator, object, pairs, with_component};

static FRONT: LazyLock<Vec<Value>> = LazyLock::new(|| with_component("front"));

fn front() -> Deployment {
    let found = all_of::<Deployment>(&FRONT).into_iter().find(|it| it.metadata.name.as_deref() == Some("divvy-front"));
    found.expect("a front")
}

fn pod() -> PodSpec {
    front().spec.template.spec.expect("a pod")
}

fn variable(name: &str) -> String {
    let mut variables = pod().containers.remove(0).env.unwrap_or_default().into_iter();
    let found = variables.find(|variable| variable.name == name);
    found.and_then(|variable| variable.value).unwrap_or_else(|| panic!("the front has {name}"))
}

fn service(name: &str) -> ServiceSpec {
    let found = all_of::<Service>(&FRONT).into_iter().find(|it| it.metadata.name.as_deref() == Some(name));
    found.and_then(|service| service.spec).unwrap_or_else(|| panic!("a Service {name}"))
}

#[test]
fn clients_reach_the_front_and_the_front_the_coordinator() {
    let labels = pairs(front().spec.template.metadata.and_then(|metadata| metadata.labels));
    let (public, own) = (service("divvy-coordinator"), service("divvy-coordinator-public"));
    assert_eq!(public.type_.as_deref(), Some("LoadBalancer"));
    let selector = pairs(public.selector);
    assert!(!selector.is_empty() && selector.iter().all(|pair| labels.contains(pair)), "{selector:?}");
    assert!(!coordinator().is_selected(&selector));
    // A front that starts or ends takes no connections.
    assert_eq!(public.publish_not_ready_addresses, None);
    assert!(coordinator().is_selected(&pairs(own.selector)));
    assert_eq!((own.type_.as_deref(), own.publish_not_ready_addresses), (Some("ClusterIP"), Some(true)));

    let container = pod().containers.remove(0);
    assert_eq!(container.args.expect("arguments"), ["front"]);
    let port = own.ports.and_then(|ports| Some(ports.first()?.port)).expect("a port");
    assert_eq!(variable("DIVVY_FRONT_TARGET"), format!("divvy-coordinator-public:{port}"));
    assert_eq!(variable("DIVVY_PUBLIC_ADDR"), "0.0.0.0:8080");
    let ports: Vec<_> = container.ports.unwrap_or_default().into_iter().map(|port| port.container_port).collect();
    assert_eq!(ports, [8080]);
}

#[test]
fn front_is_the_coordinators_own_image_and_two_are_there() {
    assert_eq!(pod().containers[0].image, coordinator().container().image);
    let spec = front().spec;
    assert_eq!(spec.replicas, Some(2));
    let rolling = spec.strategy.and_then(|strategy| strategy.rolling_update).expect("in turn");
    assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)));
}

/// A lost node takes the coordinator or a front, where there is room for it, and the connections of neither for long.
#[test]
fn front_keeps_away_from_the_coordinators_node_and_load_balancers_from_nodes_without_one() {
    let affinity = pod().affinity.and_then(|affinity| affinity.pod_anti_affinity).expect("an anti-affinity");
    assert_eq!(affinity.required_during_scheduling_ignored_during_execution, None, "one node is enough");
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
    let [term] = terms.as_slice() else { panic!("one term, not {}", terms.len()) };
    let (term, selector) = (&term.pod_affinity_term, term.pod_affinity_term.label_selector.clone());
    assert_eq!(term.topology_key, "kubernetes.io/hostname");
    assert!(coordinator().is_selected(&pairs(selector.and_then(|selector| selector.match_labels))));
    assert_eq!(service("divvy-coordinator").external_traffic_policy.as_deref(), Some("Local"));
    let hook = pod().containers[0].lifecycle.clone().and_then(|lifecycle| lifecycle.pre_stop?.sleep).expect("a sleep");
    assert!(hook.seconds >= 10, "two questions of a load balancer, five seconds apart");
}

#[test]
fn front_ends_once_its_connections_had_their_time() {
    let pod = pod();
    let hook = pod.containers[0].lifecycle.clone().and_then(|lifecycle| lifecycle.pre_stop?.sleep).expect("a sleep");
    let drain = Duration::from_millis(variable("DIVVY_DRAIN_TIMEOUT_MS").parse().expect("a number"));
    let grace = pod.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let sleep = u64::try_from(hook.seconds).expect("a duration");
    assert!(Duration::from_secs(grace.expect("stated")) >= Duration::from_secs(sleep) + drain + Duration::from_secs(5));
}

#[test]
fn policies_let_the_front_ask_the_coordinators_public_port() {
    let policy =
        all_of::<NetworkPolicy>(&FRONT).into_iter().find(|it| it.metadata.name.as_deref() == Some("divvy-front"));
    let spec = policy.and_then(|policy| policy.spec).expect("a policy");
    let out = spec.egress.unwrap_or_default().remove(0);
    let peer = out.to.unwrap_or_default().remove(0);
    assert!(coordinator().is_selected(&pairs(peer.pod_selector.and_then(|selector| selector.match_labels))));
    let ports: Vec<_> = out.ports.unwrap_or_default().into_iter().filter_map(|port| port.port).collect();
    assert_eq!(ports, [IntOrString::Int(coordinator().port("public"))]);
}

#[test]
fn one_coordinator_is_asked_as_soon_as_it_has_an_address_and_three_when_they_are_ready() {
    let single: Service = object("divvy-coordinator");
    assert_eq!(single.spec.and_then(|spec| spec.publish_not_ready_addresses), Some(true));
    let several = all_of::<Service>(&HIGH_AVAILABILITY);
    let several = several.into_iter().find(|it| it.metadata.name.as_deref() == Some("divvy-coordinator"));
    assert_eq!(several.and_then(|service| service.spec).and_then(|spec| spec.publish_not_ready_addresses), None);
}
