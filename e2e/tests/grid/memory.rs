//! The coordinator stays within the memory that the manifests give it, under any requests and any takeover.

use std::fs;
use std::path::PathBuf;
use std::thread;

use serde_json::Value;

use crate::helpers::{Coordinator, Group, eventually, get, heavy, request, try_request};

/// Three times as many as have room at once.
const CLIENTS: usize = 12;

const BODY_BYTES: usize = 31 << 20;

/// Tasks of one byte that make a body of 2 MiB, which takes up to five times as much where it is parsed.
const TINY_TASKS: usize = 1 << 20;

const TINY_CLIENTS: usize = 60;

#[test]
fn clients_that_send_the_largest_jobs_at_once_fit_into_the_memory_of_the_manifest() {
    let _turn = heavy();
    let container = container();
    let settings = variables(&container);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let coordinator = Coordinator::start(&settings);
    let task = format!("\"{}\",", "x".repeat(97));
    let tasks = task.repeat(BODY_BYTES / task.len());
    let body = format!(r#"{{"kind":"tasks","params":{{"list":[{}]}}}}"#, tasks.trim_end_matches(','));
    let statuses: Vec<_> = thread::scope(|scope| {
        let send = || try_request(coordinator.public, "POST", "/v1/jobs", &[], &body).map(|answer| answer.status);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(send)).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    assert!(statuses.contains(&Some(201)), "{statuses:?}");
    // A body may be refused before all of it is sent, and its connection end without an answer that can be read; and it may
    // take longer than its time on a busy machine.
    assert!(statuses.iter().all(|status| matches!(status, Some(201 | 408 | 503) | None)), "{statuses:?}");
    assert_eq!(get(coordinator.public, "/readyz").status, 200);
    let (peak, limit) = (coordinator.peak_bytes(), gibibytes(&container));
    assert!(peak < limit * 3 / 4, "{} MiB of {}", peak >> 20, limit >> 20);
}

#[test]
fn jobs_of_very_many_tiny_tasks_take_no_more_memory_than_is_set_aside_for_bodies() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[("DIVVY_MAX_BODY_MEMORY", "134217728")]);
    let before = coordinator.peak_bytes();
    let body = format!(r#"{{"kind":"tasks","params":{{"list":[{}1]}}}}"#, "1,".repeat(TINY_TASKS - 1));
    let statuses: Vec<_> = thread::scope(|scope| {
        let send = || try_request(coordinator.public, "POST", "/v1/jobs", &[], &body).map(|answer| answer.status);
        let clients: Vec<_> = (0..TINY_CLIENTS).map(|_| scope.spawn(send)).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    assert!(statuses.contains(&Some(201)), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, Some(201 | 408 | 503) | None)), "{statuses:?}");
    let grown = coordinator.peak_bytes() - before;
    eprintln!("{} MiB more at the peak: {statuses:?}", grown >> 20);
    // The database's caches and log come on top.
    assert!(grown < 2 * (128 << 20), "{} MiB", grown >> 20);
}

/// Open jobs, and the length of the largest part of each one's row.
const OPEN_JOBS: u64 = 20_000;
const ROW_BYTES: u64 = 8_000;

#[test]
fn a_takeover_holds_a_few_of_the_rows_at_a_time() {
    let _turn = heavy();
    let mut group = Group::start(2, &[]);
    let tags: String = (0..15).map(|tag| format!(r#""{}{tag:02}": "{}","#, "k".repeat(250), "v".repeat(250))).collect();
    let body =
        format!(r#"{{"kind": "sleep", "params": {{"tasks": 1, "seconds": 1}}, "tags": {{{tags} "last": "1"}}}}"#);
    let submitted = request(group.coordinators[0].public, "POST", "/v1/jobs", &[], &body);
    assert_eq!(submitted.status, 201, "{submitted:?}");
    let copies = format!(
        "SET search_path = divvy; INSERT INTO jobs SELECT (jsonb_populate_record(job, jsonb_build_object('id', \
         gen_random_uuid(), 'key', -number))).* FROM jobs AS job, generate_series(1, {OPEN_JOBS}) AS number"
    );
    group.psql(&copies);
    let bytes: u64 = group.psql("SELECT sum(octet_length(options)) FROM divvy.jobs").parse().expect("a number");
    assert!(bytes > OPEN_JOBS * ROW_BYTES * 9 / 10, "{bytes}");
    let leader = group.leader();
    let next = 1 - leader;
    let before = group.coordinators[next].peak_bytes();
    group.coordinators[leader].kill();
    assert_eq!(group.leader_after(leader), next);
    let client = group.client(next);
    eventually("it has them", || (client.stats()["jobs"]["queued"] == OPEN_JOBS + 1).then_some(()));
    let grown = group.coordinators[next].peak_bytes() - before;
    eprintln!("{} MiB more at the peak, rows of {} MiB", grown >> 20, bytes >> 20);
    // All rows at once take nearly twice their bytes.
    assert!(grown < bytes * 3 / 4, "{} MiB for rows of {} MiB", grown >> 20, bytes >> 20);
}

/// The coordinator's container in the manifests.
fn container() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../k8s/base/coordinator.yaml");
    let text = fs::read_to_string(path).expect("the manifest");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

/// The bounds on memory that the manifest sets.
fn variables(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().expect("variables");
    let bounds = variables.iter().filter_map(|variable| {
        let name = variable["name"].as_str().filter(|name| name.starts_with("DIVVY_MAX_"))?;
        Some((name.to_owned(), variable["value"].as_str().expect("a value").to_owned()))
    });
    let bounds: Vec<_> = bounds.collect();
    assert!(bounds.len() >= 3, "{bounds:?}");
    bounds
}

fn gibibytes(container: &Value) -> u64 {
    let limit = container["resources"]["limits"]["memory"].as_str().and_then(|limit| limit.strip_suffix("Gi"));
    limit.and_then(|limit| limit.parse::<u64>().ok()).expect("a limit in GiB") << 30
}
