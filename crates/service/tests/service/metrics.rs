//! Tests of the metrics of every service.

use crate::helpers::{Options, start};

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{metrics}"))
}

#[test]
fn the_process_and_its_build_are_among_the_metrics() {
    let service = start(Options::default());
    let metrics = service.get("/metrics", &[]).body;
    assert!(value(&metrics, "process_cpu_seconds_total") > 0.0);
    assert!(value(&metrics, "process_resident_memory_bytes") > 1e6);
    let open = value(&metrics, "process_open_fds");
    assert!(open > 3.0 && open <= value(&metrics, "process_max_fds"), "{open}");
    let started_at = value(&metrics, "process_start_time_seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    // The kernel counts from the boot, whose time it tells in whole seconds.
    assert!((now - 3600.0..now + 2.0).contains(&started_at), "{started_at} at {now}");
    let version = env!("CARGO_PKG_VERSION");
    assert!((value(&metrics, &format!("divvy_build_info{{version=\"{version}\"}}")) - 1.0).abs() < f64::EPSILON);
    for name in ["process_cpu_seconds", "process_open_fds", "divvy_build"] {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn the_routes_of_a_listener_start_at_zero() {
    let service = start(Options::default());
    let metrics = service.get("/metrics", &[]).body;
    let count = value(&metrics, "divvy_http_request_duration_seconds_count{route=\"/things\"}");
    assert!(count.abs() < f64::EPSILON, "{count}");
}

#[test]
fn a_request_that_is_refused_before_its_handler_is_counted_by_its_status() {
    let service = start(Options::default());
    assert_eq!(service.get("/things?color=red", &[]).status, 400);
    assert_eq!(service.post("/things", &["content-type: text/plain"], "x").status, 415);
    let metrics = service.get("/metrics", &[]).body;
    for code in [400, 415] {
        let count = value(&metrics, &format!("divvy_http_requests_total{{route=\"/things\",code=\"{code}\"}}"));
        assert!((count - 1.0).abs() < f64::EPSILON, "{code}: {count}");
    }
    assert!(!metrics.contains("client-gone"), "{metrics}");
}
