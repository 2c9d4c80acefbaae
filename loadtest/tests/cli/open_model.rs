//! Requests leave on schedule, and latency tells what a stall costs.

use std::time::Duration;

use crate::helpers::{Behavior, Bench, Ended, Server, at_best};

const STALL: Duration = Duration::from_millis(800);

#[test]
fn a_healthy_service_keeps_the_limits_and_gets_every_request() {
    let server = Server::start(Behavior::Correct);
    let ended = Bench::steady(50, 1.0, &[]).run(&[&server.url()]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(server.requests().len(), 50);
    for name in ["planned", "sent", "correct"] {
        assert_eq!(ended.measured(name), 50, "{name}");
    }
    // Less where the machine is busy, and never more than was asked for.
    let throughput = ended.measured("throughput_qps").as_f64().expect("a number");
    assert!((20.0..=50.1).contains(&throughput), "{throughput}");
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
    let edits = ["timeout_ms = 5000", "p99_limit_ms = 5000"];
    at_best(|| {
        let server = Server::start(Behavior::Stall(STALL));
        let ended = Bench::steady(50, 2.0, &edits).run(&[&server.url()]);
        let arrivals: Vec<_> = server.requests().into_iter().map(|(at, ..)| at).collect();
        let during_stall = arrivals.iter().filter(|&&at| at > arrivals[9] && at < arrivals[9] + STALL).count();
        if during_stall < 30 {
            return Err(format!("only {during_stall} of 40 left during the stall"));
        }
        check_stalled(&ended);
        Ok(())
    });
}

fn check_stalled(ended: &Ended) {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let latency = ended.measured("latency_ms");
    let ms = |name: &str| latency[name].as_f64().expect("a number");
    assert!(ms("max") >= 790.0, "{latency}");
    assert!(ms("p90") >= 500.0, "a closed loop would see one slow request: {latency}");
    assert_eq!(ended.measured("missed"), 0);
}

#[test]
fn sends_past_the_bound_are_missed_not_delayed() {
    let edits = ["outstanding_max = 5", "timeout_ms = 5000", "failed_share_limit = 1"];
    at_best(|| {
        let server = Server::start(Behavior::Stall(STALL));
        let ended = Bench::steady(50, 1.6, &edits).run(&[&server.url()]);
        let count = |name: &str| ended.measured(name).as_u64().expect("a number");
        assert_eq!(count("sent") + count("missed"), 80);
        assert_eq!(count("sent"), server.requests().len() as u64);
        if (25..=36).contains(&count("missed")) { Ok(()) } else { Err(format!("{} were missed", count("missed"))) }
    });
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
        let mut ranges: Vec<_> = server.requests()[before..].iter().map(|&(_, a, b)| (a, b)).collect();
        ranges.sort_unstable();
        (ended.json()["seed"].clone(), ranges)
    };
    let (seed, first) = ranges(&[]);
    assert_eq!(ranges(&["--seed", &seed.to_string()]), (seed, first.clone()));
    assert_ne!(ranges(&["--seed", "1"]).1, first);
    assert!(first.iter().all(|&(a, b)| b == 1000 + 2 * a));
}
