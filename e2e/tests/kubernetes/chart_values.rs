//! Values of the Helm chart reach the objects that they are for.

use serde_json::json;

use crate::chart::{by_name, helm, joined, several_coordinators, template, variables};

#[test]
fn values_reach_the_objects_they_are_for() {
    let headers = json!({ "secretKeyRef": { "name": "collector", "key": "headers" } });
    let objects = by_name(&helm(&json!({
        "worker": {
            "image": { "repository": "registry.example:5000/team/divvy-worker", "tag": "1.2.3" },
            "env": { "DIVVY_SLOTS": "2" },
            "extraEnv": [{ "name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": headers }],
        },
        "coordinator": {
            "env": { "DIVVY_MAX_INFLIGHT": "50", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318" },
            "storage": { "className": "fast" },
            "startSeconds": 3600,
            "extraEnv": [{ "name": "AWS_REGION", "value": "eu-central-1" }],
        },
        "front": { "enabled": true, "replicas": 3, "env": { "DIVVY_FRONT_PATIENCE_MS": "5000" } },
    })));
    let deployment = &objects[&("Deployment".to_owned(), "divvy-worker".to_owned())];
    assert_eq!(deployment["metadata"]["labels"]["app.kubernetes.io/version"], "1.2.3");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example:5000/team/divvy-worker:1.2.3");
    assert!(variables(container).contains(&json!({ "name": "DIVVY_SLOTS", "value": "2" })));
    let secret = json!({ "name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": headers });
    assert!(variables(container).contains(&secret));
    let set = &objects[&("StatefulSet".to_owned(), "divvy-coordinator".to_owned())];
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    for (name, value) in [
        ("DIVVY_MAX_INFLIGHT", "50"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("AWS_REGION", "eu-central-1"),
    ] {
        assert!(variables(container).contains(&json!({ "name": name, "value": value })), "{name}");
    }
    let front = &objects[&("Deployment".to_owned(), "divvy-front".to_owned())];
    assert_eq!(front["spec"]["replicas"], 3);
    let patience = json!({ "name": "DIVVY_FRONT_PATIENCE_MS", "value": "5000" });
    assert!(variables(&front["spec"]["template"]["spec"]["containers"][0]).contains(&patience));
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast");
    let probe = &set["spec"]["template"]["spec"]["containers"][0]["startupProbe"];
    assert_eq!((&probe["failureThreshold"], &probe["periodSeconds"]), (&json!(3600), &json!(1)));
    assert_eq!(set["metadata"]["labels"]["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn prometheus_of_another_namespace_may_read_the_metrics() {
    let objects = by_name(&helm(&json!({ "monitoring": { "enabled": true, "namespace": "observability" } })));
    let policy = &objects[&("NetworkPolicy".to_owned(), "divvy-metrics".to_owned())];
    let namespaces = &policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(*namespaces, json!({ "kubernetes.io/metadata.name": "observability" }));
}

#[test]
fn coordinators_reach_a_database_and_an_object_store_at_other_ports() {
    let mut values = several_coordinators();
    values["store"]["port"] = json!(6432);
    values["store"]["objectStorePort"] = json!(9000);
    let objects = by_name(&helm(&values));
    let policy = &objects[&("NetworkPolicy".to_owned(), "divvy-coordinators".to_owned())];
    let ways = policy["spec"]["egress"].as_array().expect("ways out");
    let anywhere: Vec<_> = ways.iter().filter(|way| way["to"].is_null()).map(|way| &way["ports"][0]["port"]).collect();
    assert_eq!(anywhere, [&json!(6432), &json!(9000)]);
}

#[test]
fn every_pod_finds_a_dns_that_is_elsewhere() {
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": "openshift-dns" } });
    let dns = json!({ "peers": [{ "namespaceSelector": selector }], "port": 5353 });
    let objects = by_name(&helm(&json!({ "networkPolicies": { "dns": dns }, "front": { "enabled": true } })));
    let policy = &objects[&("NetworkPolicy".to_owned(), "divvy-dns".to_owned())]["spec"];
    let ports = json!([{ "port": 5353, "protocol": "UDP" }, { "port": 5353, "protocol": "TCP" }]);
    assert_eq!(policy["egress"], json!([{ "to": [{ "namespaceSelector": selector }], "ports": ports }]));
    let selected = policy["podSelector"]["matchLabels"].as_object().expect("labels");
    for (kind, name) in
        [("StatefulSet", "divvy-coordinator"), ("Deployment", "divvy-worker"), ("Deployment", "divvy-front")]
    {
        let template = &objects[&(kind.to_owned(), name.to_owned())]["spec"]["template"];
        assert!(selected.iter().all(|(key, value)| &template["metadata"]["labels"][key] == value), "{name}");
    }
}

#[test]
fn values_reach_python_workers_and_the_policy_of_kafka() {
    let objects = by_name(&helm(&json!({
        "pythonWorker": {
            "enabled": true,
            "image": { "repository": "registry.example/team/python", "tag": "1.2.3" },
            "args": ["--import", "reports"],
            "drainSeconds": 60,
            "nodeSelector": { "pool": "batch" },
            "env": { "DIVVY_SLOTS": "2" },
        },
        "kafka": { "secretName": "brokers", "port": 19092, "endPort": 19094 },
        "imagePullSecrets": [{ "name": "registry" }],
    })));
    let deployment = &objects[&("Deployment".to_owned(), "divvy-python-worker".to_owned())];
    assert_eq!(deployment["metadata"]["labels"]["app.kubernetes.io/version"], "1.2.3");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 70);
    assert_eq!(pod["nodeSelector"], json!({ "pool": "batch" }));
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/team/python:1.2.3");
    let args = ["--import", "reports", "--label=node=$(NODE)", "--label=zone=$(ZONE)"];
    assert_eq!(container["args"], json!(args));
    for (name, value) in [("DIVVY_SLOTS", "2"), ("DIVVY_DRAIN_TIMEOUT_MS", "60000")] {
        assert!(variables(container).contains(&json!({ "name": name, "value": value })), "{name}");
    }
    for (name, version) in
        [("divvy-python-worker", json!("1.2.3")), ("divvy-coordinator-from-python-workers", json!(null))]
    {
        let policy = &objects[&("NetworkPolicy".to_owned(), name.to_owned())];
        assert_eq!(policy["metadata"]["labels"]["app.kubernetes.io/version"], version, "{name}");
    }
    let policy = &objects[&("NetworkPolicy".to_owned(), "divvy-coordinator-kafka".to_owned())];
    let brokers = json!([{ "port": 19092, "endPort": 19094, "protocol": "TCP" }]);
    assert_eq!(policy["spec"]["egress"][0]["ports"], brokers);
    let output = template(&json!({ "kafka": { "secretName": "brokers", "port": 9093, "endPort": 9092 } }));
    assert!(String::from_utf8_lossy(&output.stderr).contains("port is more than"), "{output:?}");
}

#[test]
fn values_say_where_pods_run_what_they_mount_and_who_may_pull_their_images() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let (nodes, taints) = (json!({ "pool": "batch" }), json!([{ "key": "batch", "operator": "Exists" }]));
    let volume = json!({ "name": "tokens", "secret": { "secretName": "divvy-api-tokens" } });
    let mount = json!({ "name": "tokens", "mountPath": "/etc/divvy/tokens", "readOnly": true });
    let placed = json!({ "nodeSelector": nodes, "tolerations": taints, "podAnnotations": { "team/owner": "grid" } });
    let mounted = json!({ "extraVolumes": [volume], "extraVolumeMounts": [mount] });
    for store in [json!({}), several_coordinators()] {
        let ranges = json!(["192.0.2.0/24", "2001:db8::/32"]);
        let own = json!({
            "replicas": store["coordinator"].get("replicas").unwrap_or(&json!(1)),
            "image": { "digest": digest },
            "service": { "annotations": { "cloud/check": "5s" }, "sourceRanges": ranges },
        });
        let objects = by_name(&helm(&joined(&[
            &store,
            &json!({
                "imagePullSecrets": [{ "name": "registry" }],
                "coordinator": joined(&[&own, &placed, &mounted]),
                "worker": joined(&[&placed, &mounted]),
            }),
        ])));
        for (kind, name) in [("StatefulSet", "divvy-coordinator"), ("Deployment", "divvy-worker")] {
            let template = &objects[&(kind.to_owned(), name.to_owned())]["spec"]["template"];
            let pod = &template["spec"];
            assert_eq!(template["metadata"]["annotations"], json!({ "team/owner": "grid" }), "{name}");
            assert_eq!((&pod["nodeSelector"], &pod["tolerations"]), (&nodes, &taints), "{name}");
            assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]), "{name}");
            assert!(pod["volumes"].as_array().is_some_and(|volumes| volumes.contains(&volume)), "{name}");
            let mounts = pod["containers"][0]["volumeMounts"].as_array();
            assert!(mounts.is_some_and(|mounts| mounts.contains(&mount)), "{name}");
        }
        let set = &objects[&("StatefulSet".to_owned(), "divvy-coordinator".to_owned())];
        let image = format!("divvy-coordinator:{}@{digest}", env!("CARGO_PKG_VERSION"));
        assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], image);
        let service = &objects[&("Service".to_owned(), "divvy-coordinator".to_owned())];
        assert_eq!(service["metadata"]["annotations"], json!({ "cloud/check": "5s" }));
        assert_eq!(service["spec"]["loadBalancerSourceRanges"], ranges);
    }
}

#[test]
fn second_release_has_nothing_that_the_cluster_has_once() {
    let objects = by_name(&helm(&json!({
        "priorityClass": { "create": false },
        "serviceAccountIdentity": { "enabled": true, "bindingName": "second" },
        "deletionCost": { "enabled": true, "createPolicy": false },
    })));
    let of_the_cluster =
        ["ClusterRoleBinding", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let found: Vec<_> = objects.keys().filter(|(kind, _)| of_the_cluster.contains(&kind.as_str())).collect();
    assert_eq!(found, [&("ClusterRoleBinding".to_owned(), "second".to_owned())]);
}

#[test]
fn variables_of_a_component_win_over_those_of_the_traces() {
    let traces = json!({ "enabled": true, "endpoint": "http://collector:4318", "share": 1 });
    let worker = json!({ "env": { "OTEL_TRACES_SAMPLER": "always_off" } });
    let objects = by_name(&helm(&json!({ "traces": traces, "worker": worker })));
    for (kind, name, sampler) in
        [("StatefulSet", "divvy-coordinator", "parentbased_traceidratio"), ("Deployment", "divvy-worker", "always_off")]
    {
        let container = &objects[&(kind.to_owned(), name.to_owned())]["spec"]["template"]["spec"]["containers"][0];
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ] {
            let named: Vec<_> = variables(container).iter().filter(|variable| variable["name"] == name).collect();
            assert_eq!(named, [&json!({ "name": name, "value": value })]);
        }
    }
}

#[test]
fn autoscalers_count_the_slots_that_workers_have() {
    for (worker, slots) in [
        (json!({ "resources": { "limits": { "cpu": 4 } } }), "4"),
        (json!({ "resources": { "limits": { "cpu": "2500m" } } }), "2"),
        (json!({ "resources": { "limits": { "cpu": "0.5" } } }), "1"),
        (json!({ "env": { "DIVVY_SLOTS": "8" } }), "8"),
    ] {
        let hpa = by_name(&helm(&json!({ "worker": worker, "autoscaling": { "kind": "hpa" } })));
        let metric = &hpa[&("HorizontalPodAutoscaler".to_owned(), "divvy-worker".to_owned())]["spec"]["metrics"][0];
        assert_eq!(metric["external"]["target"]["averageValue"], slots, "{worker}");
        let keda = by_name(&helm(&json!({ "worker": worker, "autoscaling": { "kind": "keda", "maxReplicas": 3 } })));
        let scaled = &keda[&("ScaledObject".to_owned(), "divvy-worker".to_owned())]["spec"];
        assert_eq!(scaled["triggers"][0]["metadata"]["threshold"], slots, "{worker}");
        assert_eq!(scaled["fallback"]["replicas"], 3, "no more than there may be");
    }
    let output = template(&json!({ "autoscaling": { "kind": "keda", "minReplicas": 9, "maxReplicas": 3 } }));
    assert!(String::from_utf8_lossy(&output.stderr).contains("minReplicas is more than"), "{output:?}");
}
