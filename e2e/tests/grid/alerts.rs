//! The alerts and the dashboard of `k8s/monitoring`, on real processes' answers to `GET /metrics`.
//!
//! Each alert fires for a grid that is in the state it is for, and none fires for a grid that is well. `promtool` (Debian:
//! prometheus) evaluates the rules: one scrape a minute, and the last one repeated for as long as an alert waits.

mod promtool;
mod scrapes;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::disks::{fill, small_disk};
use crate::helpers::{
    Coordinator, FakeWorker, Fault, Group, LONG_TASKS, Order, Puller, Worker, eventually, get, heavy, request,
};
use promtool::Promtool;
use scrapes::{Grid, Scrape, expressions, metric_names};

const MONITORING: &str = "k8s/monitoring";

/// Failures that are looked at, a scrape each.
const FAILURES: usize = 12;

#[test]
fn no_alert_fires_for_a_grid_that_is_well() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    let mut scrapes = Vec::new();
    for _ in 0..5 {
        assert_eq!(coordinator.sum(1, 1_000_000).status, 200);
        scrapes.push(grid.scrape_well());
    }
    assert_eq!(Promtool::new(&rules()).alerts(&scrapes), [""; 0]);
}

#[test]
fn alert_tells_that_no_coordinator_answers_and_that_a_worker_is_alone() {
    let mut coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    let well = grid.scrape_well();
    coordinator.kill();
    eventually("it is alone", || (worker.metric("divvy_worker_coordinators") == 0.0).then_some(()));
    let alerts = Promtool::new(&rules()).alerts(&[well, grid.scrape()]);
    assert_eq!(alerts, ["DivvyCoordinatorAway", "DivvyCoordinatorsFewer", "DivvyWorkerAlone"]);
}

#[test]
fn alert_tells_that_fewer_coordinators_answer_than_before_in_one_namespace() {
    let (mut lost, staying) = (Coordinator::start(&[]), Coordinator::start(&[]));
    let grid = Grid { coordinators: vec![lost.internal, staying.internal], workers: Vec::new() };
    let both = grid.scrape();
    assert_eq!(Promtool::new(&rules()).alerts(std::slice::from_ref(&both)), [""; 0]);
    // The only coordinator of its namespace: those of another one answer on.
    let elsewhere = |scrape: &Scrape| -> Scrape {
        let moved = |series: &String| series.replace(r#"namespace="divvy""#, r#"namespace="other""#);
        scrape.iter().map(|(series, value)| (moved(series), value.clone())).collect()
    };
    let lone = Grid { coordinators: vec![lost.internal], workers: Vec::new() };
    let mut of_two_namespaces = Grid { coordinators: vec![staying.internal], workers: Vec::new() }.scrape();
    of_two_namespaces.extend(elsewhere(&lone.scrape()));
    lost.kill();
    let fewer = grid.scrape();
    assert_eq!(Promtool::new(&rules()).alerts(&[both, fewer.clone()]), ["DivvyCoordinatorsFewer"]);
    assert_eq!(Promtool::new(&rules()).alerts(&[of_two_namespaces, fewer]), ["DivvyCoordinatorsFewer"]);
}

#[test]
fn no_alert_tells_of_a_coordinator_whose_pod_was_replaced() {
    // The new pod has another address, and the last sample of the old one still counts at the first scrape of the new one.
    let scrape = |instances: &[&str]| -> Scrape {
        let of =
            |instance: &&str| (format!(r#"divvy_leader{{namespace="divvy",instance="{instance}"}}"#), "1".to_owned());
        instances.iter().map(of).collect()
    };
    let scrapes = [scrape(&["old"]), scrape(&["old", "new"]), scrape(&["new"])];
    let alerts = Promtool::new(&rules()).alerts(&scrapes);
    assert!(!alerts.contains(&"DivvyCoordinatorsFewer".to_owned()), "{alerts:?}");
}

#[test]
fn alert_tells_that_no_coordinator_leads() {
    let _turn = heavy();
    let group = Group::start(2, &[]);
    let coordinators: Vec<_> = group.coordinators.iter().map(|coordinator| coordinator.internal).collect();
    let grid = Grid { coordinators, workers: Vec::new() };
    let leads = |number: &usize| group.coordinators[*number].metric("divvy_leader") == 1.0;
    eventually("one of them leads", || (0..2).find(leads));
    let well = grid.scrape();
    group.to_database.iter().for_each(|proxy| proxy.cut(true));
    eventually("none of them leads", || (!(0..2).any(|number| leads(&number))).then_some(()));
    let alerts = Promtool::new(&rules()).alerts(&[well, grid.scrape()]);
    assert!(alerts.contains(&"DivvyNoLeader".to_owned()), "{alerts:?}");
}

#[test]
fn alert_tells_that_work_waits_for_a_first_worker() {
    let coordinator = Coordinator::start(&[("DIVVY_NO_WORKER_TIMEOUT_MS", "600000")]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: Vec::new() };
    let _waiting = coordinator.ask_sum(1, 1000);
    eventually("it waits", || (coordinator.metric("divvy_wanted_slots") == 1.0).then_some(()));
    let alerts = Promtool::new(&rules()).alerts(&[grid.scrape()]);
    assert_eq!(alerts, ["DivvyTasksNotServable", "DivvyWorkersMissing"]);
}

#[test]
fn alert_tells_that_workers_fall_silent() {
    let coordinator = Coordinator::start(&[("DIVVY_EVICT_AFTER_MS", "4000")]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    let silent: Vec<_> = (0..3).map(|_| FakeWorker::join(&coordinator, Fault::Silence)).collect();
    let before = grid.scrape_well();
    drop(silent);
    // On a machine that stands still the good worker may be evicted too.
    let evicted = || (coordinator.metric(r#"divvy_evictions_total{reason="silent"}"#) >= 3.0).then_some(());
    eventually("all of them are evicted", evicted);
    let alerts = Promtool::new(&rules()).alerts(&[before, grid.scrape_well()]);
    assert_eq!(alerts, ["DivvyWorkersEvicted"]);
}

#[test]
fn a_worker_that_falls_silent_counts_once_though_every_coordinator_evicts_it() {
    let scrape = |evicted: u64| -> Scrape {
        let of = |coordinator: &str| {
            let labels = format!(r#"namespace="divvy",instance="{coordinator}",reason="silent""#);
            (format!("divvy_evictions_total{{{labels}}}"), evicted.to_string())
        };
        ["one", "two", "three"].map(of).into()
    };
    for (evicted, is_told) in [(1, false), (3, true)] {
        let alerts = Promtool::new(&rules()).alerts(&[scrape(0), scrape(evicted)]);
        assert_eq!(alerts.contains(&"DivvyWorkersEvicted".to_owned()), is_told, "{evicted}: {alerts:?}");
    }
}

#[test]
fn alert_tells_that_attempts_fail_and_so_do_requests() {
    let coordinator = Coordinator::start(&[("DIVVY_MAX_ATTEMPTS", "1")]);
    let _bad = FakeWorker::join(&coordinator, Fault::Status500);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: Vec::new() };
    let mut scrapes = vec![grid.scrape()];
    for _ in 0..FAILURES {
        // A worker that fails gets no lease for a while: its waiting clients are told so, or wait for their next turn.
        assert!(coordinator.sum(1, 1000).status >= 500);
        scrapes.push(grid.scrape());
    }
    let alerts = Promtool::new(&rules()).alerts(&scrapes);
    assert!(alerts.contains(&"DivvyRequestsFail".to_owned()), "{alerts:?}");
    assert!(alerts.contains(&"DivvyAttemptsFail".to_owned()), "{alerts:?}");
}

#[test]
fn probes_of_a_worker_that_is_not_ready_are_no_requests_that_fail() {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let worker = Worker::start(nobody, &[]);
    let grid = Grid { coordinators: Vec::new(), workers: vec![worker.address] };
    let mut scrapes = vec![grid.scrape()];
    for _ in 0..FAILURES {
        assert_eq!(get(worker.address, "/readyz").status, 503);
        scrapes.push(grid.scrape());
    }
    assert_eq!(Promtool::new(&rules()).alerts(&scrapes), ["DivvyCoordinatorAway", "DivvyWorkerAlone"]);
}

#[test]
fn alert_tells_that_tasks_wait_for_a_worker_of_their_kind() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    coordinator.submit(&Order::squares(&[1, 2, 3]));
    let waiting = r#"divvy_waiting_tasks{kind="tasks",waits_for="worker"}"#;
    coordinator.wait_for_metric(waiting, 3.0);
    assert_eq!(Promtool::new(&rules()).alerts(&[grid.scrape_well()]), ["DivvyTasksNotServable"]);
}

#[test]
fn alert_tells_that_the_queue_does_not_get_shorter() {
    let coordinator = Coordinator::start(&[LONG_TASKS]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    let _running = coordinator.ask_endless();
    eventually("tasks wait", || (coordinator.metric("divvy_queue_depth_tasks") > 0.0).then_some(()));
    assert_eq!(Promtool::new(&rules()).alerts(&[grid.scrape_well()]), ["DivvyQueueWaits"]);
}

#[test]
fn no_alert_tells_of_a_queue_that_gets_shorter_whichever_coordinator_leads() {
    // A standby counts no tasks.
    let scrape = |leader: &str, waiting: u64| -> Scrape {
        let of = |coordinator: &str| {
            let tasks = if coordinator == leader { waiting } else { 0 };
            (format!(r#"divvy_queue_depth_tasks{{namespace="divvy",instance="{coordinator}"}}"#), tasks.to_string())
        };
        [of("one"), of("other")].into()
    };
    let minutes = (0..=90).rev().map(|left| scrape(if left > 45 { "one" } else { "other" }, 100 * left));
    let alerts = Promtool::new(&rules()).alerts(&minutes.collect::<Vec<_>>());
    assert!(!alerts.contains(&"DivvyQueueWaits".to_owned()), "{alerts:?}");
}

#[test]
fn no_alert_tells_of_a_queue_that_gets_shorter_after_the_grid_was_idle() {
    let scrape = |waiting: u64| -> Scrape {
        [(r#"divvy_queue_depth_tasks{namespace="divvy",instance="one"}"#.to_owned(), waiting.to_string())].into()
    };
    let idle = std::iter::repeat_n(0, 30);
    let minutes = idle.chain((0_u64..=40).rev().map(|left| 100 * left)).map(scrape);
    let alerts = Promtool::new(&rules()).alerts(&minutes.collect::<Vec<_>>());
    assert!(!alerts.contains(&"DivvyQueueWaits".to_owned()), "{alerts:?}");
}

#[test]
fn alert_tells_that_nothing_can_be_stored_how_much_waits_and_that_the_disk_is_full() {
    let _turn = heavy();
    let Some((data_dir, mount)) = small_disk(8) else { return };
    // Every task is a change: leases end when their one task does.
    let coordinator = Coordinator::start_with_mount(data_dir, &mount, &[("DIVVY_LEASE_TARGET_MS", "1")]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    coordinator.submit(&Order::sleep(100_000, 0.001));
    eventually("it runs", || (coordinator.completed_leases() > 0.0).then_some(()));
    coordinator.submit(&Order::squares(&[7, 8]));
    let puller = Puller { coordinator: coordinator.internal, name: "puller".to_owned() };
    let claim = eventually("it is fetched", || puller.claim(1));
    fill(&coordinator.root().join(coordinator.data_dir().strip_prefix("/").expect("absolute")).join("filler"));
    // An outcome that is larger than all room that is kept: the changes behind it wait.
    let large = json!({ "results": ["x".repeat(3 << 20)] }).to_string();
    let target = format!("/v1/worker/tasks/{}/complete", claim.attempt);
    assert_eq!(request(coordinator.internal, "POST", &target, &[], &large).status, 204);
    eventually("changes wait", || (coordinator.metric("divvy_store_backlog_changes") > 1000.0).then_some(()));
    let refused = request(coordinator.public, "POST", "/v1/jobs", &[], &Order::squares(&[7]).body);
    assert_eq!(refused.status, 507, "{refused:?}");
    let alerts = Promtool::new(&rules()).alerts(&[grid.scrape()]);
    for expected in ["DivvyStoreBehind", "DivvyStoreFailing"] {
        assert!(alerts.contains(&expected.to_owned()), "{alerts:?}");
    }
    let bytes = |sample: &str| coordinator.metric(sample);
    let is_full = || bytes("divvy_disk_free_bytes") < bytes("divvy_disk_size_bytes") / 8.0;
    eventually("the disk is read again", || is_full().then_some(()));
    let alerts = Promtool::new(&rules()).alerts(&[grid.scrape_with_disk()]);
    assert!(alerts.contains(&"DivvyDiskLow".to_owned()), "{alerts:?}");
}

#[test]
fn alert_tells_of_a_disk_below_an_eighth_of_its_size_and_5_gib() {
    const GIB: u64 = 1 << 30;
    let scrape = |free: u64, size: u64| -> Scrape {
        let of = |name: &str, bytes: u64| (format!(r#"{name}{{namespace="divvy",instance="one"}}"#), bytes.to_string());
        [of("divvy_disk_free_bytes", free), of("divvy_disk_size_bytes", size)].into()
    };
    for (free, size, is_told) in
        [(5 * GIB, 500 * GIB, false), (5 * GIB - 1, 500 * GIB, true), (GIB, 8 * GIB, false), (GIB - 1, 8 * GIB, true)]
    {
        let alerts = Promtool::new(&rules()).alerts(&[scrape(free, size)]);
        assert_eq!(alerts.contains(&"DivvyDiskLow".to_owned()), is_told, "{free} of {size}: {alerts:?}");
    }
}

#[test]
fn alert_tells_of_a_loss_that_a_new_pod_has_found_before_its_first_scrape() {
    for counter in ["divvy_kafka_lost_events_total", "divvy_kafka_missed_records_total"] {
        let scrape = |pod: &str, lost: &str| -> Scrape {
            [(format!(r#"{counter}{{namespace="divvy",instance="{pod}"}}"#), lost.to_owned())].into()
        };
        for (lost, is_told) in [("0", false), ("6", true)] {
            let alerts = Promtool::new(&rules()).alerts(&[scrape("old", "0"), scrape("new", lost)]);
            assert_eq!(alerts.contains(&"DivvyKafkaLost".to_owned()), is_told, "{counter} {lost}: {alerts:?}");
        }
    }
}

#[test]
fn every_alert_has_its_entry_in_the_run_book_and_is_fired_by_a_test() {
    let run_book = fs::read_to_string(repository("docs/runbook.md")).expect("a run book");
    // The alerts about Kafka are fired where there is a broker.
    let tests = [include_str!("alerts.rs"), include_str!("../../../coordinator/tests/kafka/alerts.rs")].concat();
    let rules = rules();
    for rule in rules["groups"][0]["rules"].as_array().expect("rules") {
        let alert = rule["alert"].as_str().expect("an alert");
        assert!(run_book.lines().any(|line| line == format!("## {alert}")), "{alert} has no entry");
        assert!(tests.contains(&format!("\"{alert}\"")), "no test fires {alert}");
        let link = format!("docs/runbook.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], link.as_str());
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().expect("a severity")));
    }
    let entries = run_book.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(entries, rules["groups"][0]["rules"].as_array().map_or(0, Vec::len), "an entry without an alert");
}

#[test]
fn every_query_of_the_dashboard_finds_what_a_grid_shows() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let grid = Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] };
    let mut scrapes: Vec<Scrape> = Vec::new();
    for _ in 0..5 {
        assert_eq!(coordinator.sum(1, 1_000_000).status, 200);
        scrapes.push(grid.scrape());
    }
    let dashboard = fs::read_to_string(repository(MONITORING).join("dashboard.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let queries = expressions(&dashboard);
    assert!(queries.len() > 20, "{queries:?}");
    let known = metric_names(&scrapes);
    for query in &queries {
        for name in
            query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("divvy_"))
        {
            assert!(known.contains(name), "{name} is no metric");
        }
    }
    assert_eq!(Promtool::without_rules().empty_queries(&queries, &scrapes), [""; 0]);
}

#[test]
fn every_metric_is_described_where_operators_read() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let scrapes = [Grid { coordinators: vec![coordinator.internal], workers: vec![worker.address] }.scrape()];
    let manual = fs::read_to_string(repository("docs/operation.md")).expect("a manual");
    let own = metric_names(&scrapes).into_iter().filter(|name| name.starts_with("divvy_"));
    // Of a histogram there are three.
    let parts = ["_bucket", "_sum", "_count"];
    let names: BTreeSet<_> =
        own.map(|name| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)).collect();
    let missing: Vec<_> = names.iter().filter(|name| !manual.contains(&format!("`{name}`"))).collect();
    assert!(names.len() > 30 && missing.is_empty(), "{missing:?} of {names:?}");
}

/// The `spec` of the PrometheusRule, which Prometheus reads.
fn rules() -> Value {
    let text = fs::read_to_string(repository(MONITORING).join("rules.yaml")).expect("rules");
    let object: Value = serde_saphyr::from_str(&text).expect("YAML");
    object["spec"].clone()
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
