//! An upgrade that is tried before anything is changed: the Jobs of `k8s/components/preflight`, and `scripts/upgrade.sh`,
//! which here meets a stand-in for kubectl.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{overlay, read, render_overlay, repository};

/// Renders as the real one does, tells everything else to a file, and answers for the Jobs what `JOBS` says. The overlay changes the
/// revisions of the coordinator and the workers from `BEFORE` to `AFTER`. With `ROLLOUT` 1 the coordinator does not get ready, with 2
/// the workers do not, with 3 neither this coordinator nor that of the earlier revision does, and with 4 the API server refuses the
/// overlay.
const KUBECTL: &str = r#"#!/usr/bin/env bash
set -euo pipefail
if [ "$1" = kustomize ]; then
  if [ -x "$KUSTOMIZE" ]; then exec "$KUSTOMIZE" build "${@:2}"; fi
  exec "$REAL_KUBECTL" "$@"
fi
echo "$*" >>"$CALLS"
case "$*" in
  "--namespace "*" apply --filename "*) cp "$5" "$APPLIED" ;;
  *"get job"*) printf '%b' "$JOBS" ;;
  "apply --kustomize"*) touch "$CALLS.overlay" ;;
  *"get statefulset/divvy-coordinator"*|*"get deployment/divvy-worker"*) if [ -e "$CALLS.overlay" ]; then printf '%s' "$AFTER"; else printf '%s' "$BEFORE"; fi ;;
  "apply --dry-run=server --kustomize"*) exit "$((ROLLOUT == 4))" ;;
  *"rollout undo statefulset"*) touch "$CALLS.undone" ;;
  *"rollout status statefulset"*) if [ -e "$CALLS.undone" ]; then exit "$((ROLLOUT == 3))"; fi; exit "$((ROLLOUT == 1 || ROLLOUT == 3))" ;;
  *"rollout status deployment"*) exit "$((ROLLOUT == 2))" ;;
esac
"#;

#[test]
fn jobs_start_the_images_with_the_settings_of_the_pods_and_touch_nothing() {
    let preflight = "k8s/components/preflight";
    let (services, with_front) =
        (["divvy-coordinator", "divvy-worker"], ["divvy-coordinator", "divvy-worker", "divvy-front"]);
    for (grid, components, workloads) in [
        ("k8s", vec![preflight], &services[..]),
        ("k8s", vec!["k8s/components/front", preflight, "k8s/components/preflight-front"], &with_front),
        ("k8s/overlays/high-availability", vec!["k8s/components/tls", "k8s/components/kafka", preflight], &services),
    ] {
        let objects = render_overlay(&[grid], &components);
        for workload in workloads {
            let (own, job) = (pod(&objects, workload), pod(&objects, &format!("{workload}-preflight")));
            let (of_own, of_job) = (&own["containers"][0], &job["containers"][0]);
            for field in ["image", "env", "imagePullPolicy", "securityContext"] {
                assert_eq!(of_job[field], of_own[field], "{field} of {workload} in {grid}");
            }
            let command = of_own["args"].as_array().cloned().unwrap_or_default();
            assert_eq!(of_job["args"], Value::from([command, vec![json!("--check-config")]].concat()));
            // No volume: that of the coordinator is in use.
            assert_eq!((&job["volumes"], &of_job["volumeMounts"]), (&Value::Null, &Value::Null));
            assert_eq!(job["restartPolicy"], "Never");
            for right in ["runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"] {
                assert_eq!(job["securityContext"][right], own["securityContext"][right], "{right}");
            }
        }
    }
}

#[test]
fn no_service_and_no_budget_takes_a_pod_of_the_jobs_for_its_own() {
    let objects = render_overlay(&["k8s"], &["k8s/components/preflight"]);
    let job = objects.iter().find(|object| object["kind"] == "Job").expect("a Job");
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    for object in &objects {
        let selector = match object["kind"].as_str() {
            Some("Service") => &object["spec"]["selector"],
            Some("PodDisruptionBudget") => &object["spec"]["selector"]["matchLabels"],
            _ => continue,
        };
        assert_ne!(selector["app.kubernetes.io/component"], labels["app.kubernetes.io/component"], "{object:#}");
    }
}

#[test]
fn an_image_that_does_not_start_takes_nothing_away() {
    let failed = "divvy-coordinator-preflight=/1\\ndivvy-worker-preflight=1/\\n";
    let absent = "divvy-coordinator-preflight=/\\ndivvy-worker-preflight=1/\\n";
    for (jobs, why) in [(failed, "does not start"), (absent, "were not started within 1 s"), ("", "within 1 s")] {
        let (output, calls) = upgrade(&repository("k8s"), "divvy", jobs, 0);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why) && said.contains("nothing was changed"), "{said}");
        let applied: Vec<_> = calls.iter().filter(|call| call.contains("apply")).collect();
        assert!(
            applied.iter().all(|call| call.contains("--selector app.kubernetes.io/component=preflight")),
            "{calls:?}"
        );
        assert!(calls.last().is_some_and(|call| call.contains("delete job")), "{calls:?}");
    }
}

#[test]
fn an_image_that_starts_is_rolled_out_and_undone_where_it_does_not_get_ready() {
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    for (rollout, revisions, is_undone) in [
        (0, ["one", "two"], false),
        (1, ["one", "two"], true),
        // An object that this apply did not change, or created, has no revision to go back to.
        (1, ["one", "one"], false),
        (1, ["", "one"], false),
    ] {
        let (output, calls) = upgrade_between(revisions, &repository("k8s"), "divvy", jobs, rollout);
        assert_eq!(output.status.success(), rollout == 0, "{output:?}");
        let place = |part: &str| calls.iter().position(|call| call.contains(part));
        let (tried, applied) = (place("--selector app.kubernetes.io/component=preflight"), place("apply --kustomize"));
        assert!(tried.is_some() && tried < place("get job") && place("get job") < applied, "{calls:?}");
        // Workers with the new settings would not go with a coordinator that has the old ones.
        for workload in ["statefulset/divvy-coordinator", "deployment/divvy-worker"] {
            assert_eq!(place(&format!("rollout undo {workload}")).is_some(), is_undone, "{workload}: {calls:?}");
        }
    }
}

#[test]
fn an_upgrade_that_is_undone_says_whether_the_earlier_coordinator_is_ready() {
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    for (rollout, said) in [(1, "of the earlier revision is ready"), (3, "does not get ready either")] {
        let (output, calls) = upgrade(&repository("k8s"), "divvy", jobs, rollout);
        let last: Vec<_> = calls.iter().filter(|call| call.contains("statefulset/divvy-coordinator")).rev().collect();
        let statuses = ["rollout undo", "rollout status"].map(|call| last.iter().position(|it| it.contains(call)));
        assert_eq!(statuses, [Some(1), Some(0)], "{calls:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{stderr}");
    }
}

#[test]
fn manifests_that_the_cluster_refuses_take_nothing_away() {
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let (output, calls) = upgrade(&repository("k8s"), "divvy", jobs, 4);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nothing was changed"), "{said}");
    let asked = calls.iter().filter(|call| call.starts_with("apply "));
    assert!(asked.eq(calls.iter().filter(|call| call.starts_with("apply --dry-run=server "))), "{calls:?}");
    assert!(calls.last().is_some_and(|call| call.contains("delete job")), "{calls:?}");
}

#[test]
fn workers_that_take_longer_are_told_from_a_coordinator_that_does_not_get_ready() {
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let (output, calls) = upgrade(&repository("k8s"), "divvy", jobs, 2);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("the coordinator is ready; deployment/divvy-worker is not"),
        "{said}"
    );
    assert!(!calls.iter().any(|call| call.contains("rollout undo")), "{calls:?}");
}

/// Their pods say why they wait, and the deadline of a Job takes them away.
#[test]
fn jobs_outlast_the_time_that_they_are_waited_for() {
    let script = read("scripts/upgrade.sh");
    let waited =
        script.lines().find_map(|line| line.strip_prefix("preflight_seconds=${PREFLIGHT_SECONDS:-")?.strip_suffix('}'));
    let waited: i64 = waited.expect("a default").parse().expect("seconds");
    let objects = render_overlay(
        &["k8s"],
        &["k8s/components/front", "k8s/components/preflight", "k8s/components/preflight-front"],
    );
    let jobs: Vec<_> = objects.iter().filter(|object| object["kind"] == "Job").collect();
    assert_eq!(jobs.len(), 3);
    for job in jobs {
        assert!(job["spec"]["activeDeadlineSeconds"].as_i64() > Some(waited + 60), "{job:#}");
    }
}

#[test]
fn a_front_is_tried_and_waited_for_too() {
    let overlay = overlay(&["k8s"], &["k8s/components/front"], "divvy");
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let (output, calls) = upgrade(overlay.path(), "divvy", jobs, 0);
    assert!(!output.status.success() && !calls.iter().any(|call| call.contains("apply --kustomize")), "{calls:?}");
    let (output, calls) = upgrade(overlay.path(), "divvy", &format!("{jobs}divvy-front-preflight=1/\\n"), 0);
    assert!(output.status.success(), "{output:?}");
    assert!(calls.iter().any(|call| call.contains("rollout status deployment/divvy-front")), "{calls:?}");
}

#[test]
fn python_workers_are_waited_for_too() {
    let overlay = overlay(&["k8s"], &["k8s/components/python-workers"], "divvy");
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let (output, calls) = upgrade(overlay.path(), "divvy", jobs, 0);
    assert!(output.status.success(), "{output:?}");
    assert!(calls.iter().any(|call| call.contains("rollout status deployment/divvy-python-worker")), "{calls:?}");
}

#[test]
fn jobs_go_where_the_grid_is() {
    let overlay = overlay(&["k8s"], &[], "other");
    let jobs = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let (output, calls) = upgrade(overlay.path(), "other", jobs, 0);
    assert!(output.status.success(), "{output:?}");
    assert!(calls.iter().any(|call| call.starts_with("--namespace other apply --filename")), "{calls:?}");
}

/// The cluster has no Secret of that name before the apply: the name changes with the content.
#[test]
fn generated_secrets_are_there_for_the_jobs_and_go_where_one_fails() {
    let overlay = overlay(&["k8s"], &[], "divvy");
    let file = overlay.path().join("kustomization.yaml");
    let written = fs::read_to_string(&file).expect("an overlay");
    let mut kustomization: Value = serde_json::from_str(&written).expect("JSON");
    kustomization["secretGenerator"] = json!([
        {"name": "divvy-worker-token", "literals": ["token=generated"]},
        {"name": "divvy-of-nothing-here", "literals": ["token=generated"]},
    ]);
    fs::write(&file, kustomization.to_string()).expect("write an overlay");
    let passed = "divvy-coordinator-preflight=1/\\ndivvy-worker-preflight=1/\\n";
    let failed = "divvy-coordinator-preflight=/1\\ndivvy-worker-preflight=1/\\n";
    for (jobs, is_refused) in [(passed, false), (failed, true)] {
        let (output, calls) = upgrade(overlay.path(), "divvy", jobs, 0);
        assert_eq!(output.status.success(), !is_refused, "{output:?}");
        let places_of = |verb: &str| -> Vec<usize> {
            let of_secrets = |call: &&String| call.contains(verb) && call.contains("/settings/");
            let found = calls.iter().enumerate().filter(|(_, call)| of_secrets(call));
            found.map(|(place, _)| place).collect()
        };
        let created = places_of(" create ");
        assert!(
            created.len() == 1 && calls[created[0]].contains("/settings/Secret-divvy-worker-token-"),
            "the Jobs read one Secret: {calls:?}"
        );
        let tried = calls.iter().position(|call| call.contains(" apply --filename "));
        assert!(created.first() < tried.as_ref(), "{calls:?}");
        assert_eq!(places_of(" delete ").len(), usize::from(is_refused), "{calls:?}");
    }
}

/// The output of the script and its calls of kubectl, for Jobs with this end.
fn upgrade(overlay: &Path, namespace: &str, jobs: &str, rollout: u8) -> (Output, Vec<String>) {
    upgrade_between(["one", "two"], overlay, namespace, jobs, rollout)
}

/// [`upgrade`] for a coordinator whose pods have these revisions before and after the apply.
fn upgrade_between(
    revisions: [&str; 2],
    overlay: &Path,
    namespace: &str,
    jobs: &str,
    rollout: u8,
) -> (Output, Vec<String>) {
    let directory = TempDir::new().expect("a directory");
    let [kubectl, calls, applied] = ["kubectl", "calls", "applied.yaml"].map(|name| directory.path().join(name));
    fs::write(&kubectl, KUBECTL).expect("write a script");
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let path = std::env::var("PATH").expect("a path");
    let real = path.split(':').map(|part| format!("{part}/kubectl")).find(|path| fs::exists(path).unwrap_or_default());
    let output = Command::new(repository("scripts/upgrade.sh"))
        .args([overlay, Path::new(namespace)])
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .env("REAL_KUBECTL", real.unwrap_or_default())
        .env("KUSTOMIZE", repository("target/tools/bin/kustomize"))
        .env("CALLS", &calls)
        .env("APPLIED", &applied)
        .env("JOBS", jobs)
        .env("BEFORE", revisions[0])
        .env("AFTER", revisions[1])
        .env("ROLLOUT", rollout.to_string())
        .env("PREFLIGHT_SECONDS", "1")
        .output()
        .expect("run the script");
    let applied = fs::read_to_string(applied).expect("the Jobs are applied");
    let objects = serde_saphyr::from_multiple::<Value>(&applied).expect("valid YAML");
    for job in objects.iter().filter(|object| object["kind"] == "Job") {
        let (named, name) = (&job["metadata"]["namespace"], job["metadata"]["name"].as_str().expect("a name"));
        assert!(named.is_null() || named == namespace, "kubectl refuses {job:#}");
        let workload = pod(&objects, name.strip_suffix("-preflight").expect("the workload of a Job"));
        let of_job = &job["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(*of_job, workload["containers"][0]["env"], "the Job reads other Secrets than the pods");
    }
    let calls = fs::read_to_string(calls).unwrap_or_default();
    (output, calls.lines().map(str::to_owned).collect())
}

fn pod(objects: &[Value], workload: &str) -> Value {
    let mut found = objects
        .iter()
        .filter(|object| object["metadata"]["name"] == workload && object["spec"]["template"].is_object());
    found.next().expect("a workload")["spec"]["template"]["spec"].clone()
}
