//! The ramp against a service of known capacity.

use std::time::Duration;

use crate::helpers::{Behavior, Bench, Server};

fn ramp(first_rate_qps: u32, rate_floor_qps: u32) -> String {
    format!(
        "[ramp]\nfirst_rate_qps = {first_rate_qps}\nrate_factor = 2\nlast_rate_qps = 1000\nhalvings = 2\n\
         step_duration_s = 0.4\nrate_floor_qps = {rate_floor_qps}"
    )
}

#[test]
fn a_ramp_finds_the_highest_rate_that_keeps_the_limits() {
    // 20, 40, 80 and 60 requests at 50, 100, 200 and 150 a second. At first only the 80 fail, and then the 60 after them too.
    for (failing_end, highest_qps) in [(140, 175.0), (200, 125.0)] {
        let server = Server::start(Behavior::Fail(60, failing_end));
        let ended = Bench::scenario(&ramp(50, 75), &[]).run(&[&server.url()]);
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.json()["ramp"]["highest_rate_qps"], highest_qps);
        assert!(ended.html().contains("Highest rate that keeps the limits"));
    }
}

#[test]
fn a_ramp_under_its_floor_fails() {
    let server = Server::start(Behavior::Slow(Duration::from_millis(400)));
    let ended = Bench::scenario(&ramp(10, 10), &["p99_limit_ms = 250"]).run(&[&server.url()]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.missed_limits(), ["rate_floor_qps"]);
    assert!(ended.stdout.contains("no rate kept the limits"), "{}", ended.stdout);
}
