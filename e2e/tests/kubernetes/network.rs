//! Network access: Services, and the policies that open nothing else.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Service, ServiceSpec},
        networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::helpers::{MONITORING, Workload, all, coordinator, object, pairs, read, render_overlay, worker};
use crate::schema::faults;

#[test]
fn public_port_is_behind_a_load_balancer_on_port_80() {
    let spec = service("divvy-coordinator");
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(ports(&spec), [(80, coordinator().port("public"))]);
}

#[test]
fn internal_port_is_behind_a_cluster_address_only() {
    let spec = service("divvy-coordinator-internal");
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(spec.cluster_ip, None);
    let port = coordinator().port("internal");
    assert_eq!(ports(&spec), [(port, port)]);
    assert_eq!(spec.publish_not_ready_addresses, Some(true));
}

#[test]
fn only_the_public_service_leaves_the_cluster() {
    let open: Vec<_> = all::<Service>()
        .into_iter()
        .filter(|service| {
            let spec = service.spec.as_ref().expect("a Service has a spec");
            spec.type_.as_deref() != Some("ClusterIP")
        })
        .filter_map(|service| service.metadata.name)
        .collect();
    assert_eq!(open, ["divvy-coordinator"]);
}

/// A listener on `0.0.0.0` answers no connection over IPv6, such as those of the kubelet's probes.
#[test]
fn every_port_takes_connections_over_ipv6_with_the_component_for_it() {
    let objects = render_overlay(&["k8s"], &["k8s/components/front", "k8s/components/ipv6"]);
    let text = json!(objects).to_string();
    assert_eq!((text.matches("\"[::]:").count(), text.matches("\"0.0.0.0:").count()), (4, 0), "{text}");
}

#[test]
fn services_select_the_coordinator_alone() {
    for service in all::<Service>() {
        let selector = pairs(service.spec.and_then(|spec| spec.selector));
        assert!(coordinator().is_selected(&selector));
        assert!(!worker().is_selected(&selector));
    }
}

#[test]
fn workers_find_the_coordinator_by_its_internal_service() {
    let [(port, _)] = ports(&service("divvy-coordinator-internal"))[..] else {
        panic!("the internal Service has one port");
    };
    let url = format!("http://divvy-coordinator-internal:{port}");
    assert_eq!(worker().env("DIVVY_COORDINATOR"), url);
}

#[test]
fn coordinator_pod_is_named_by_a_headless_service() {
    let set: StatefulSet = object("divvy-coordinator");
    let name = set.spec.service_name.expect("serviceName is stated");
    let spec = service(&name);
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
}

#[test]
fn everything_is_shut_unless_opened() {
    let shut = policy("divvy-default-deny");
    assert_eq!(shut.pod_selector, Some(LabelSelector::default()));
    assert_eq!(shut.ingress, None);
    assert_eq!(shut.egress, None);
    for policy in all::<NetworkPolicy>() {
        let types = policy.spec.and_then(|spec| spec.policy_types);
        let both = vec!["Ingress".to_owned(), "Egress".to_owned()];
        assert_eq!(types, Some(both));
    }
}

#[test]
fn coordinator_lets_clients_to_the_public_port_and_workers_to_the_internal_one() {
    let (coordinator, worker) = (coordinator(), worker());
    let policy = own_policy(&coordinator);
    let ingress = policy.ingress.expect("some paths are open");
    let [public, internal] = ingress.as_slice() else {
        panic!("two paths lead in, not {}", ingress.len());
    };
    assert_eq!(public.from, None);
    assert_eq!(numbers(&public.ports), [("TCP", coordinator.port("public"))]);
    assert_only(&internal.from, &worker, &coordinator);
    assert_eq!(numbers(&internal.ports), [("TCP", coordinator.port("internal"))]);
}

#[test]
fn coordinator_calls_workers_and_nobody_else() {
    let (coordinator, worker) = (coordinator(), worker());
    let egress = own_policy(&coordinator).egress.expect("one path is open");
    let [path] = egress.as_slice() else {
        panic!("one path leads out, not {}", egress.len());
    };
    assert_only(&path.to, &worker, &coordinator);
    assert_eq!(numbers(&path.ports), [("TCP", worker.port("worker"))]);
}

#[test]
fn worker_is_called_by_the_coordinator_and_nobody_else() {
    let (coordinator, worker) = (coordinator(), worker());
    let ingress = own_policy(&worker).ingress.expect("one path is open");
    let [path] = ingress.as_slice() else {
        panic!("one path leads in, not {}", ingress.len());
    };
    assert_only(&path.from, &coordinator, &worker);
    assert_eq!(numbers(&path.ports), [("TCP", worker.port("worker"))]);
}

#[test]
fn worker_calls_the_coordinator_and_asks_for_names() {
    let (coordinator, worker) = (coordinator(), worker());
    let egress = own_policy(&worker).egress.expect("two paths are open");
    let [register, names] = egress.as_slice() else {
        panic!("two paths lead out, not {}", egress.len());
    };
    assert_only(&register.to, &coordinator, &worker);
    assert_eq!(numbers(&register.ports), [("TCP", coordinator.port("internal"))]);
    assert_eq!(numbers(&names.ports), [("UDP", 53), ("TCP", 53)]);
    for peer in names.to.iter().flatten() {
        assert!(peer.namespace_selector.is_some() || peer.ip_block.is_some());
    }
}

#[test]
fn monitoring_reads_the_two_ports_that_carry_metrics() {
    let policy = MONITORING.iter().find(|object| object["kind"] == "NetworkPolicy").expect("a policy");
    assert_eq!(policy["metadata"]["namespace"], "divvy");
    let policy = NetworkPolicy::deserialize(policy).expect("it is a policy");
    let spec = policy.spec.expect("the policy has a spec");
    let selector = pairs(spec.pod_selector.and_then(|selector| selector.match_labels));
    assert!(coordinator().is_selected(&selector) && worker().is_selected(&selector));
    let ingress = spec.ingress.expect("one path is open");
    let [path] = ingress.as_slice() else {
        panic!("one path leads in, not {}", ingress.len());
    };
    let metrics = [("TCP", coordinator().port("internal")), ("TCP", worker().port("worker"))];
    assert_eq!(numbers(&path.ports), metrics);
    let peers = path.from.as_deref().expect("not everybody reads metrics");
    assert!(peers.iter().all(|peer| peer.namespace_selector.is_some()));
}

#[test]
fn policy_of_the_manual_opens_a_way_for_coordinators_and_no_other_pods() {
    let manual = read("k8s/README.md");
    let blocks = manual.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
    let policy =
        blocks.into_iter().find(|block| block.contains("kind: NetworkPolicy")).expect("a policy in the manual");
    let policy: Value = serde_saphyr::from_str(policy).expect("YAML");
    assert_eq!(faults(&policy), [""; 0]);
    let spec = NetworkPolicy::deserialize(&policy).expect("it is a policy").spec.expect("a spec");
    let selector = pairs(spec.pod_selector.and_then(|selector| selector.match_labels));
    assert!(coordinator().is_selected(&selector) && !worker().is_selected(&selector), "{selector:?}");
    assert_eq!((spec.policy_types, spec.ingress), (Some(vec!["Egress".to_owned()]), None));
    assert_eq!(numbers(&spec.egress.expect("a way out")[0].ports), [("TCP", 9000), ("UDP", 53), ("TCP", 53)]);
}

fn service(name: &str) -> ServiceSpec {
    object::<Service>(name).spec.expect("a Service has a spec")
}

fn policy(name: &str) -> NetworkPolicySpec {
    let policy: NetworkPolicy = object(name);
    policy.spec.expect("a NetworkPolicy has a spec")
}

/// The policy of a workload's name, which takes its pods and no others.
fn own_policy(workload: &Workload) -> NetworkPolicySpec {
    let policy = policy(workload.name);
    let selector = policy.pod_selector.clone();
    let selector = pairs(selector.and_then(|selector| selector.match_labels));
    assert_eq!(selector, workload.selector);
    policy
}

/// The Service's ports, each with the coordinator's port that it leads to.
fn ports(spec: &ServiceSpec) -> Vec<(i32, i32)> {
    let ports = spec.ports.iter().flatten();
    ports
        .map(|port| match &port.target_port {
            Some(IntOrString::String(name)) => (port.port, coordinator().port(name)),
            target => panic!("a target port is a name, not {target:?}"),
        })
        .collect()
}

fn numbers(ports: &Option<Vec<NetworkPolicyPort>>) -> Vec<(&str, i32)> {
    let ports = ports.iter().flatten();
    ports
        .map(|port| match (&port.protocol, &port.port) {
            (Some(protocol), Some(IntOrString::Int(number))) => (protocol.as_str(), *number),
            _ => panic!("a path states protocol and port, not {port:?}"),
        })
        .collect()
}

/// The only peers are pods of `wanted` in the same namespace.
fn assert_only(peers: &Option<Vec<NetworkPolicyPeer>>, wanted: &Workload, other: &Workload) {
    let peers = peers.as_deref().expect("a path without peers is open to all");
    assert!(!peers.is_empty(), "an empty list is open to all");
    for peer in peers {
        assert_eq!(peer.ip_block, None);
        assert_eq!(peer.namespace_selector, None);
        let selector = peer.pod_selector.clone().expect("a peer is a kind of pod");
        let selector = pairs(selector.match_labels);
        assert!(wanted.is_selected(&selector));
        assert!(!other.is_selected(&selector));
    }
}
