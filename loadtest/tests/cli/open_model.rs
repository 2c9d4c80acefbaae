//! Requests leave on schedule, and latency tells what a stall costs.

use std::time::Duration;

use crate::helpers::{Behavior, Bench, Server};

#[test]
fn a_healthy_service_keeps_the_limits_and_gets_every_request() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(50, 1.0, &[]).run(&[&server.url()]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(server.requests().len(), 50);
    for name in ["planned", "sent", "correct"] {
        assert_eq!(ended.measured(name), 50, "{name}");
    }
    // The last request leaves 0.98 s after the first, or later where the machine is busy.
    let [throughput_qps, elapsed_s] =
        ["throughput_qps", "elapsed_s"].map(|name| ended.measured(name).as_f64().expect("a number"));
    assert!(elapsed_s >= 0.98 && (throughput_qps * elapsed_s - 50.0).abs() < 0.1, "{throughput_qps} for {elapsed_s} s");
}

#[test]
fn the_algorithm_of_the_scenario_is_asked_for_and_none_where_it_names_none() {
    let cases: [(&[&str], Option<&str>); 2] = [(&["b_step = 10\nalgorithm = \"sieve\""], Some("sieve")), (&[], None)];
    for (edits, asked) in cases {
        let server = Server::start(Behavior::Correct);
        let ended = Bench::steady(50, 0.1, edits).run(&[&server.url()]);
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        assert_eq!(server.algorithms(), vec![asked.map(str::to_owned); 5]);
        assert!(ended.html().contains(&format!("algorithm {}", asked.unwrap_or("auto"))));
    }
}

#[test]
fn a_stalled_service_does_not_slow_the_sends_and_cannot_hide_the_wait() {
    // From the tenth request on none is answered before the fiftieth has come: sends that waited for answers would never
    // bring it.
    let server = Server::start(Behavior::Hold(50));
    let ended = Bench::steady(50, 2.0, &[]).run(&[&server.url()]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let latency = ended.measured("latency_ms");
    let ms = |name: &str| latency[name].as_f64().expect("a number");
    // The fiftieth request leaves 800 ms after the tenth, and 620 ms after the nineteenth.
    assert!(ms("max") >= 790.0, "{latency}");
    assert!(ms("p90") >= 500.0, "a closed loop would see one slow request: {latency}");
    assert_eq!((ended.measured("correct"), ended.measured("missed")), (100.into(), 0.into()));
}

#[test]
fn sends_past_the_bound_are_missed_not_delayed() {
    let server = Server::start(Behavior::Never);
    let edits = ["outstanding_max = 5", "timeout_ms = 10000", "failed_share_limit = 1"];
    let ended = Bench::steady(50, 0.6, &edits).run(&[&server.url()]);
    // The first five keep all places until the last send was due.
    assert_eq!((ended.measured("sent"), ended.measured("missed")), (5.into(), 25.into()));
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn missed_sends_count_against_the_failed_share() {
    let server = Server::start(Behavior::Slow(Duration::from_millis(300)));
    let ended = Bench::steady(50, 0.5, &["outstanding_max = 1"]).run(&[&server.url()]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.missed_limits(), ["failed_share_limit"]);
}

#[test]
fn several_targets_are_asked_in_turn() {
    let (one, other) = (Server::start(Behavior::Correct), Server::start(Behavior::Correct));
    let ended = Bench::steady(50, 0.4, &[]).run(&[&one.url(), &other.url()]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!((one.requests().len(), other.requests().len()), (10, 10));
}

#[test]
fn a_seed_repeats_the_requests() {
    let server = Server::start(Behavior::Correct);
    let ranges = |arguments: &[&str]| {
        let before = server.requests().len();
        let ended = Bench::steady(100, 0.2, &[]).with(arguments).run(&[&server.url()]);
        let mut ranges = server.requests().split_off(before);
        ranges.sort_unstable();
        (ended.json()["seed"].clone(), ranges)
    };
    let (seed, first) = ranges(&[]);
    assert_eq!(ranges(&["--seed", &seed.to_string()]), (seed, first.clone()));
    assert_ne!(ranges(&["--seed", "1"]).1, first);
    assert!(first.iter().all(|&(a, b)| b == 1000 + 2 * a));
}
