//! The component that puts TLS on every port, over one coordinator and over several, with and without Python workers and
//! monitoring.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::helpers::{GRID, HIGH_AVAILABILITY, read, render_overlay};

const MOUNT: &str = "/etc/divvy/tls";
const COMPONENT: &str = "k8s/components/tls";

const FILES_OF_CLIENTS: [(&str, &str); 3] =
    [("DIVVY_CA_FILE", "ca.crt"), ("DIVVY_CLIENT_CERT", "tls.crt"), ("DIVVY_CLIENT_KEY", "tls.key")];
const FILES_OF_LISTENERS: [(&str, &str); 3] =
    [("DIVVY_TLS_CERT", "tls.crt"), ("DIVVY_TLS_KEY", "tls.key"), ("DIVVY_TLS_CLIENT_CA", "ca.crt")];

/// The directories under the component, with their objects.
static GRIDS: LazyLock<[(&str, Vec<Value>); 2]> = LazyLock::new(|| {
    ["k8s", "k8s/overlays/high-availability"].map(|grid| (grid, render_overlay(&[grid], &[COMPONENT])))
});

#[test]
fn certificates_are_a_whole_directory_so_that_renewed_ones_are_seen() {
    for (grid, objects) in GRIDS.iter() {
        for (workload, secret) in [("divvy-coordinator", "divvy-coordinator-tls"), ("divvy-worker", "divvy-worker-tls")]
        {
            assert_mounted(&pod(objects, workload), secret, grid);
        }
    }
}

#[test]
fn both_services_show_and_demand_certificates() {
    let manual = read("docs/security.md");
    for (grid, objects) in GRIDS.iter() {
        for workload in ["divvy-coordinator", "divvy-worker"] {
            for (name, file) in FILES_OF_LISTENERS.into_iter().chain(FILES_OF_CLIENTS) {
                assert_eq!(variable(objects, workload, name), format!("{MOUNT}/{file}"), "{workload} of {grid}");
                assert!(manual.contains(&format!("`{name}`")), "{name} is not described");
            }
        }
    }
}

#[test]
fn each_side_knows_the_other_by_a_name_of_its_certificate() {
    let manual = read("k8s/README.md");
    for (grid, objects) in GRIDS.iter() {
        let worker = variable(objects, "divvy-coordinator", "DIVVY_WORKER_TLS_NAME");
        let coordinator = variable(objects, "divvy-worker", "DIVVY_TLS_SERVER_NAME");
        // A coordinator asks the leader by an address that no certificate has.
        assert_eq!(variable(objects, "divvy-coordinator", "DIVVY_TLS_SERVER_NAME"), coordinator, "{grid}");
        for name in [worker, coordinator] {
            assert!(manual.contains(&format!("- {name}\n")), "the certificate of the manual has no name {name}");
        }
    }
}

#[test]
fn workers_ask_the_same_coordinators_as_without_tls() {
    for (plain, (grid, objects)) in [&*GRID, &*HIGH_AVAILABILITY].into_iter().zip(GRIDS.iter()) {
        let url = variable(plain, "divvy-worker", "DIVVY_COORDINATOR");
        let host = url.strip_prefix("http://").expect("a plain URL");
        assert_eq!(variable(objects, "divvy-worker", "DIVVY_COORDINATOR"), format!("https://{host}"), "{grid}");
        assert_eq!(objects.len(), plain.len(), "{grid}");
    }
}

#[test]
fn probes_and_clients_ask_over_tls() {
    for (grid, objects) in GRIDS.iter() {
        for workload in ["divvy-coordinator", "divvy-worker"] {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let probe = &pod(objects, workload)["containers"][0][probe];
                assert_eq!(probe["httpGet"]["scheme"], "HTTPS", "{workload} of {grid}");
            }
        }
        let services: Vec<_> = objects.iter().filter(|object| object["kind"] == "Service").collect();
        assert_eq!(services.len(), 3);
        for service in services {
            let port = &service["spec"]["ports"][0];
            assert_eq!(port["appProtocol"], "https", "{service:#}");
            assert_eq!(service["spec"]["type"] == "LoadBalancer", port["port"] == 443, "{service:#}");
        }
    }
}

#[test]
fn python_workers_ask_over_tls_and_show_a_certificate() {
    let objects = render_overlay(&["k8s"], &["k8s/components/python-workers", COMPONENT]);
    let worker = "divvy-python-worker";
    assert_mounted(&pod(&objects, worker), "divvy-worker-tls", "k8s");
    for (name, file) in FILES_OF_CLIENTS {
        assert_eq!(variable(&objects, worker, name), format!("{MOUNT}/{file}"));
    }
    let name = variable(&objects, worker, "DIVVY_TLS_SERVER_NAME");
    assert_eq!(name, variable(&objects, "divvy-worker", "DIVVY_TLS_SERVER_NAME"));
    assert_eq!(variable(&objects, worker, "DIVVY_COORDINATOR"), "https://divvy-coordinator-internal:8081");
}

#[test]
fn prometheus_reads_metrics_over_tls_and_shows_a_certificate() {
    let objects = render_overlay(&["k8s/monitoring"], &["k8s/components/monitoring-tls"]);
    let (_, grid) = &GRIDS[0];
    for (kind, endpoints, name) in [
        ("ServiceMonitor", "endpoints", variable(grid, "divvy-worker", "DIVVY_TLS_SERVER_NAME")),
        ("PodMonitor", "podMetricsEndpoints", variable(grid, "divvy-coordinator", "DIVVY_WORKER_TLS_NAME")),
    ] {
        let monitor = objects.iter().find(|object| object["kind"] == kind).expect(kind);
        let [endpoint] = monitor["spec"][endpoints].as_array().expect("endpoints").as_slice() else {
            panic!("one endpoint")
        };
        assert_eq!(endpoint["scheme"], "https");
        let of_secret = |key: &str| json!({ "name": "divvy-metrics-tls", "key": key });
        let expected = json!({
            "ca": { "secret": of_secret("ca.crt") },
            "cert": { "secret": of_secret("tls.crt") },
            "keySecret": of_secret("tls.key"),
            "serverName": name,
        });
        assert_eq!(endpoint["tlsConfig"], expected, "{kind}");
    }
    assert!(read("k8s/README.md").contains("secretName: divvy-metrics-tls"), "no certificate for Prometheus");
}

/// The pod has the Secret's files, for its group and nobody else.
fn assert_mounted(pod: &Value, secret: &str, grid: &str) {
    let volumes = pod["volumes"].as_array().expect("volumes");
    let of_secret: Vec<_> = volumes.iter().filter(|volume| volume["secret"]["secretName"] == secret).collect();
    let [volume] = of_secret.as_slice() else { panic!("{secret} is one volume of {grid}: {of_secret:?}") };
    assert_eq!(volume["secret"]["defaultMode"], 0o440);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("a mount");
    assert_eq!(mount, &json!({ "name": "tls", "mountPath": MOUNT, "readOnly": true }));
    // Without a group the files would be of root alone, and the key could not be read.
    let rights = &pod["securityContext"];
    assert!(rights["fsGroup"].is_u64(), "{grid}: {rights}");
    assert_eq!(rights["fsGroup"], rights["runAsGroup"], "{grid}");
}

fn pod(objects: &[Value], workload: &str) -> Value {
    let mut found = objects
        .iter()
        .filter(|object| object["metadata"]["name"] == workload && object["spec"]["template"].is_object());
    found.next().expect("a workload")["spec"]["template"]["spec"].clone()
}

fn variable(objects: &[Value], workload: &str, name: &str) -> String {
    let pod = pod(objects, workload);
    let variables = pod["containers"][0]["env"].as_array().expect("variables");
    let found: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
    let [variable] = found.as_slice() else { panic!("{name} is set once, not {found:?}") };
    variable["value"].as_str().expect("a value").to_owned()
}
