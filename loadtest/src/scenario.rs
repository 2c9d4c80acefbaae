//! Scenario files: the requests, their rate, the duration, and the limits of the answers.
//!
//! Strict: an unknown key or a value out of range is refused with the name of the field. The ranges bound the time, the
//! number of requests and the cost of checking the answers.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use model::{Algorithm, toml_error};
use serde::{Deserialize, Serialize};

/// Largest number of requests in one steady run or one step of a ramp; each costs about 200 bytes until the report.
const REQUESTS_MAX: f64 = 1e6;
/// Largest `b`: checking sieves up to it, which takes some 20 s on one core.
const B_MAX: u64 = 10_000_000_000;
const RATE_QPS: RangeInclusive<f64> = 0.01..=50_000.0;
const DURATION_S: RangeInclusive<f64> = 0.1..=3600.0;

/// A checked scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scenario {
    /// Name of the run's report directory: `a-z`, `0-9` and `-`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) load: Load,
    pub(crate) request: RequestSpec,
    pub(crate) limits: Limits,
}

/// The course of the rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    Steady(Steady),
    Ramp(Ramp),
}

/// A constant rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Steady {
    pub(crate) rate_qps: f64,
    pub(crate) duration_s: f64,
}

/// Rates multiplied by `rate_factor` up to the first that misses a limit, then `halvings` rates between it and the last
/// that kept them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    pub(crate) first_rate_qps: f64,
    pub(crate) rate_factor: f64,
    pub(crate) last_rate_qps: f64,
    pub(crate) halvings: u32,
    pub(crate) step_duration_s: f64,
    /// The run fails when the highest rate that keeps the limits is lower than this.
    pub(crate) rate_floor_qps: f64,
}

/// The request: `r` uniform in `0..=r_max`, `a = a_step r`, `b = b_offset + b_step r`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestSpec {
    pub(crate) r_max: u64,
    pub(crate) a_step: u64,
    pub(crate) b_offset: u64,
    pub(crate) b_step: u64,
    /// The algorithm in the request; `auto` sums most long ranges without a sieve.
    #[serde(default)]
    pub(crate) algorithm: Algorithm,
    pub(crate) timeout_ms: u64,
    /// A send that would leave more requests than this without an answer is missed.
    pub(crate) outstanding_max: usize,
}

impl RequestSpec {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// The limits of a steady run, or of a step of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) p99_limit_ms: f64,
    /// Failed and missed requests as a share of the planned ones, 0 to 1.
    pub(crate) failed_share_limit: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    name: String,
    title: String,
    steady: Option<Steady>,
    ramp: Option<Ramp>,
    request: RequestSpec,
    limits: Limits,
}

impl Scenario {
    /// Reads and checks the scenario file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read scenario {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("parse scenario {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: ScenarioFile =
            toml::from_str(text).map_err(|error| anyhow!(toml_error(text, error.message(), error.span())))?;
        let load = match (file.steady, file.ramp) {
            (Some(steady), None) => Load::Steady(steady),
            (None, Some(ramp)) => Load::Ramp(ramp),
            (None, None) | (Some(_), Some(_)) => {
                anyhow::bail!("exactly one of [steady] and [ramp] must be there")
            }
        };
        let ScenarioFile { name, title, request, limits, .. } = file;
        let scenario = Self { name, title, load, request, limits };
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(!self.name.is_empty() && self.name.chars().all(plain), "name: only a-z, 0-9 and - are allowed");
        match &self.load {
            Load::Steady(steady) => steady.check()?,
            Load::Ramp(ramp) => ramp.check()?,
        }
        self.request.check()?;
        within("limits.p99_limit_ms", self.limits.p99_limit_ms, 0.001..=3_600_000.0)?;
        within("limits.failed_share_limit", self.limits.failed_share_limit, 0.0..=1.0)
    }
}

impl Steady {
    fn check(&self) -> Result<()> {
        within("steady.rate_qps", self.rate_qps, RATE_QPS)?;
        within("steady.duration_s", self.duration_s, DURATION_S)?;
        within("steady.rate_qps * duration_s", self.rate_qps * self.duration_s, 1.0..=REQUESTS_MAX)
    }
}

impl Ramp {
    fn check(&self) -> Result<()> {
        within("ramp.first_rate_qps", self.first_rate_qps, RATE_QPS)?;
        within("ramp.rate_factor", self.rate_factor, 1.05..=10.0)?;
        within("ramp.last_rate_qps", self.last_rate_qps, self.first_rate_qps..=*RATE_QPS.end())?;
        within("ramp.halvings", self.halvings, 0..=10)?;
        within("ramp.step_duration_s", self.step_duration_s, DURATION_S)?;
        within("ramp.rate_floor_qps", self.rate_floor_qps, 0.0..=self.last_rate_qps)?;
        within(
            "ramp.first_rate_qps * step_duration_s",
            self.first_rate_qps * self.step_duration_s,
            1.0..=REQUESTS_MAX,
        )?;
        within("ramp.last_rate_qps * step_duration_s", self.last_rate_qps * self.step_duration_s, 1.0..=REQUESTS_MAX)
    }
}

impl RequestSpec {
    fn check(&self) -> Result<()> {
        within("request.r_max", self.r_max, 0..=B_MAX)?;
        within("request.b_offset", self.b_offset, 0..=B_MAX)?;
        let b_last = self.b_step.checked_mul(self.r_max).and_then(|b| b.checked_add(self.b_offset));
        within("request.b_offset + b_step * r_max", b_last.unwrap_or(u64::MAX), 0..=B_MAX)?;
        let a_last = self.a_step.checked_mul(self.r_max);
        within("request.a_step * r_max", a_last.unwrap_or(u64::MAX), 0..=b_last.unwrap_or(B_MAX))?;
        within("request.timeout_ms", self.timeout_ms, 1..=600_000)?;
        within("request.outstanding_max", self.outstanding_max, 1..=10_000)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, allowed: RangeInclusive<T>) -> Result<()> {
    ensure!(allowed.contains(&value), "{field} must be between {} and {}, not {value}", allowed.start(), allowed.end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = include_str!("../scenarios/small.toml");

    fn refusal(text: &str) -> String {
        format!("{:#}", Scenario::parse(text).expect_err("refused"))
    }

    #[test]
    fn shipped_scenarios_are_valid_and_named_after_their_file() {
        for name in ["small", "medium", "large", "ramp"] {
            let path = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            assert_eq!(Scenario::read(Path::new(&path)).expect("valid scenario").name, name);
        }
    }

    #[test]
    fn large_requests_ask_for_a_sieve_and_small_ones_leave_it_to_the_service() {
        let asked = |text| Scenario::parse(text).expect("valid scenario").request.algorithm;
        assert_eq!(asked(include_str!("../scenarios/large.toml")), Algorithm::Sieve);
        assert_eq!(asked(SMALL), Algorithm::Auto);
        assert!(refusal(&SMALL.replace("b_step = 100", "b_step = 100\nalgorithm = \"guess\"")).contains("guess"));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        assert!(refusal(&SMALL.replace("rate_qps", "rate_hz")).contains("rate_hz"));
        assert!(refusal(&format!("speed = 1\n{SMALL}")).contains("speed"));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let cases = [
            ("rate_qps = 15", "rate_qps = -1", "steady.rate_qps"),
            ("rate_qps = 15", "rate_qps = nan", "steady.rate_qps"),
            ("duration_s = 100", "duration_s = 1e9", "steady.duration_s"),
            ("b_step = 100", "b_step = 1_000_000_000_000_000", "b_offset + b_step * r_max"),
            ("a_step = 10", "a_step = 1000", "a_step * r_max"),
            ("outstanding_max = 256", "outstanding_max = 0", "request.outstanding_max"),
            ("failed_share_limit = 0", "failed_share_limit = 2", "limits.failed_share_limit"),
            ("name = \"small\"", "name = \"../x\"", "name"),
        ];
        for (from, to, field) in cases {
            let refusal = refusal(&SMALL.replace(from, to));
            assert!(refusal.contains(field), "{to}: {refusal}");
        }
    }

    #[test]
    fn a_scenario_has_one_kind_of_load() {
        let both = format!(
            "{SMALL}\n[ramp]\nfirst_rate_qps = 1\nrate_factor = 2\nlast_rate_qps = 2\nhalvings = 0\nstep_duration_s = 1\nrate_floor_qps = 0"
        );
        assert!(refusal(&both).contains("exactly one of [steady] and [ramp]"));
    }
}
