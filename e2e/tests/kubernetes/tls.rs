//! The component that puts TLS on every port.

use serde_json::{Value, json};

use crate::helpers::{GRID, read, with_component};

const MOUNT: &str = "/etc/divvy/tls";

#[test]
fn certificates_are_a_whole_directory_so_that_renewed_ones_are_seen() {
    for (workload, secret) in [("divvy-coordinator", "divvy-coordinator-tls"), ("divvy-worker", "divvy-worker-tls")] {
        let pod = pod(workload);
        let volumes = pod["volumes"].as_array().expect("volumes");
        assert_eq!(volumes.iter().filter(|volume| volume["secret"]["secretName"] == secret).count(), 1);
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
        let mount = mounts.iter().find(|mount| mount["name"] == "tls").expect("a mount");
        assert_eq!(mount, &json!({ "name": "tls", "mountPath": MOUNT, "readOnly": true }));
        // The files are of the group, and nobody else reads them.
        assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"]);
        assert_eq!(
            volumes.iter().find(|volume| volume["name"] == "tls").expect("a volume")["secret"]["defaultMode"],
            0o440
        );
    }
}

#[test]
fn both_services_show_and_demand_certificates() {
    let manual = read("docs/security.md");
    for workload in ["divvy-coordinator", "divvy-worker"] {
        for (name, file) in [
            ("DIVVY_TLS_CERT", "tls.crt"),
            ("DIVVY_TLS_KEY", "tls.key"),
            ("DIVVY_TLS_CLIENT_CA", "ca.crt"),
            ("DIVVY_CA_FILE", "ca.crt"),
            ("DIVVY_CLIENT_CERT", "tls.crt"),
            ("DIVVY_CLIENT_KEY", "tls.key"),
        ] {
            assert_eq!(variable(workload, name), format!("{MOUNT}/{file}"), "{workload}");
            assert!(manual.contains(&format!("`{name}`")), "{name} is not described");
        }
    }
}

#[test]
fn each_side_knows_the_other_by_a_name_of_its_certificate() {
    let manual = read("k8s/README.md");
    let worker = variable("divvy-coordinator", "DIVVY_WORKER_TLS_NAME");
    let coordinator = variable("divvy-worker", "DIVVY_TLS_SERVER_NAME");
    assert_eq!(variable("divvy-worker", "DIVVY_COORDINATOR"), format!("https://{coordinator}:8081"));
    for name in [worker, coordinator] {
        assert!(manual.contains(&format!("- {name}\n")), "the certificate of the manual has no name {name}");
    }
}

#[test]
fn probes_and_clients_ask_over_tls() {
    for workload in ["divvy-coordinator", "divvy-worker"] {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(pod(workload)["containers"][0][probe]["httpGet"]["scheme"], "HTTPS");
        }
    }
    let objects = with_component("tls");
    let is_public = |object: &&Value| object["kind"] == "Service" && object["spec"]["type"] == "LoadBalancer";
    let service = objects.iter().find(is_public).expect("a public Service");
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
    assert_eq!(objects.len(), GRID.len());
}

fn pod(workload: &str) -> Value {
    let objects = with_component("tls");
    let mut found = objects
        .iter()
        .filter(|object| object["metadata"]["name"] == workload && object["spec"]["template"].is_object());
    found.next().expect("a workload")["spec"]["template"]["spec"].clone()
}

fn variable(workload: &str, name: &str) -> String {
    let pod = pod(workload);
    let variables = pod["containers"][0]["env"].as_array().expect("variables");
    let found: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
    let [variable] = found.as_slice() else { panic!("{name} is set once, not {found:?}") };
    variable["value"].as_str().expect("a value").to_owned()
}
