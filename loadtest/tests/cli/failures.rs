//! Every way to fail is found, named and decides the exit code.

use std::time::Duration;

use serde_json::json;

use crate::helpers::{Behavior, Bench, Ended, Server, raw_server};

const PATIENT: &[&str] = &["failed_share_limit = 1"];

fn ten_requests(url: &str, edits: &[&str]) -> Ended {
    Bench::steady(100, 0.1, edits).run(&[url])
}

fn failed(behavior: Behavior) -> serde_json::Value {
    let server = Server::start(behavior);
    let ended = ten_requests(&server.url(), &[]);
    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.missed_limits().contains(&"failed_share_limit".to_owned()));
    ended.measured("failed")
}

#[test]
fn wrong_answers_fail_the_run_whatever_the_limits_allow() {
    let server = Server::start(Behavior::Wrong);
    let ended = ten_requests(&server.url(), &["failed_share_limit = 1"]);
    assert_eq!(ended.code, 1);
    assert!(ended.missed_limits().contains(&"wrong_answers".to_owned()));
    assert_eq!(ended.measured("failed"), json!({ "wrong_answer": 10 }));
    assert!(ended.stdout.contains("the right sum is"), "{}", ended.stdout);
}

#[test]
fn an_answer_for_another_range_is_wrong() {
    assert_eq!(failed(Behavior::OtherRange), json!({ "wrong_answer": 10 }));
}

#[test]
fn statuses_are_counted_one_by_one_and_redirects_not_followed() {
    assert_eq!(failed(Behavior::Status(500)), json!({ "http_500": 10 }));
    assert_eq!(failed(Behavior::Status(302)), json!({ "http_302": 10 }));
}

#[test]
fn garbage_numbers_for_strings_and_endless_bodies_are_malformed() {
    for behavior in [Behavior::Body("<html>"), Behavior::Body(r#"{"sum":17}"#), Behavior::Endless] {
        assert_eq!(failed(behavior), json!({ "malformed": 10 }));
    }
}

#[test]
fn a_service_that_never_answers_times_out() {
    let server = Server::start(Behavior::Never);
    let ended = ten_requests(&server.url(), &["timeout_ms = 200", "failed_share_limit = 1", "p99_limit_ms = 150"]);
    assert_eq!(ended.measured("failed"), json!({ "timeout": 10 }));
    assert_eq!(ended.missed_limits(), ["p99_limit_ms"]);
}

#[test]
fn half_an_answer_is_a_broken_connection() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"sum\":";
    let ended = ten_requests(&raw_server(usize::MAX, half), PATIENT);
    assert_eq!(ended.measured("failed"), json!({ "broken": 10 }));
}

#[test]
fn a_service_that_goes_away_is_a_connect_failure() {
    let ended = Bench::steady(10, 4.0, PATIENT).run(&[&raw_server(1, b"")]);
    // Requests that are in the backlog when the listener closes, some time after the first connection, are cut instead.
    let failed = ended.measured("failed");
    let [connect, broken] = ["connect", "broken"].map(|kind| failed[kind].as_u64().unwrap_or(0));
    assert_eq!(connect + broken, 40, "{failed}");
    assert!(connect > broken, "{failed}");
    assert_eq!(ended.measured("latency_ms"), json!(null));
    assert_eq!(ended.missed_limits(), ["p99_limit_ms"]);
}

#[test]
fn a_slow_service_misses_the_p99_limit_only() {
    let server = Server::start(Behavior::Slow(Duration::from_millis(120)));
    let ended = ten_requests(&server.url(), &["p99_limit_ms = 100"]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.missed_limits(), ["p99_limit_ms"]);
    assert!(ended.stdout.contains("MISSED p99_limit_ms 100"), "{}", ended.stdout);
}
