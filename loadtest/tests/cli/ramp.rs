//! The ramp against a service of known capacity.

use std::time::Duration;

use crate::helpers::{Behavior, Bench, Server, at_best};

fn ramp(first_rate_qps: u32, rate_floor_qps: u32) -> String {
    format!(
        "[ramp]\nfirst_rate_qps = {first_rate_qps}\nrate_factor = 2\nlast_rate_qps = 1000\nhalvings = 2\n\
         step_duration_s = 1.5\nrate_floor_qps = {rate_floor_qps}"
    )
}

#[test]
fn a_ramp_finds_the_capacity_of_the_service() {
    let edits = ["p99_limit_ms = 250", "timeout_ms = 5000", "outstanding_max = 1000"];
    at_best(|| {
        let server = Server::start(Behavior::OneEvery(Duration::from_millis(10)));
        let ended = Bench::scenario(&ramp(50, 75), &edits).run(&[&server.url()]);
        let highest = &ended.json()["ramp"]["highest_rate_qps"];
        if ended.code != 0 || !highest.as_f64().is_some_and(|rate| (75.0..=125.0).contains(&rate)) {
            return Err(format!("{highest} QPS of 100\n{}{}", ended.stdout, ended.stderr));
        }
        assert!(ended.html().contains("Highest rate that keeps the limits"));
        Ok(())
    });
}

#[test]
fn a_ramp_under_its_floor_fails() {
    let server = Server::start(Behavior::Slow(Duration::from_millis(400)));
    let ended = Bench::scenario(&ramp(10, 10), &["p99_limit_ms = 250"]).run(&[&server.url()]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.missed_limits(), ["rate_floor_qps"]);
    assert!(ended.stdout.contains("no rate kept the limits"), "{}", ended.stdout);
}
