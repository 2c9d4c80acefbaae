//! Stated limits against figures.

use serde::{Deserialize, Serialize};

use crate::measured::Measured;
use crate::scenario::{Limits, Ramp};

/// A limit and the run's figure for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    /// The scenario's name of the limit.
    pub(crate) limit: String,
    pub(crate) allowed: f64,
    /// Absent when there was nothing to measure, which keeps no limit.
    pub(crate) measured: Option<f64>,
    pub(crate) kept: bool,
}

impl Check {
    fn at_most(limit: &str, allowed: f64, measured: Option<f64>) -> Self {
        let kept = measured.is_some_and(|measured| measured <= allowed);
        Self { limit: limit.to_owned(), allowed, measured, kept }
    }

    /// The ramp's own limit: the rate it must reach.
    pub(crate) fn rate_floor(ramp: &Ramp, highest_rate_qps: Option<f64>) -> Self {
        let kept = highest_rate_qps.is_some_and(|rate| rate >= ramp.rate_floor_qps);
        Self { limit: "rate_floor_qps".to_owned(), allowed: ramp.rate_floor_qps, measured: highest_rate_qps, kept }
    }

    /// No limit forgives a wrong answer.
    pub(crate) fn wrong_answers(count: u64) -> Self {
        Self::at_most("wrong_answers", 0.0, Some(count as f64))
    }
}

/// The checks of one run at one rate.
pub(crate) fn checks(limits: &Limits, measured: &Measured) -> Vec<Check> {
    vec![
        Check::at_most("p99_limit_ms", limits.p99_limit_ms, measured.latency_ms.map(|latency| latency.p99)),
        Check::at_most("failed_share_limit", limits.failed_share_limit, Some(measured.failed_share)),
        Check::wrong_answers(measured.wrong_answers()),
    ]
}
