//! The result of a run, as JSON to keep and compare, and as one HTML page to look at.

mod chart;
mod figures;
mod html;
mod plots;
pub(crate) mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::measured::Measured;
use crate::scenario::Scenario;

/// Everything known about one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) label: String,
    pub(crate) urls: Vec<String>,
    pub(crate) seed: u64,
    /// RFC 3339, UTC.
    pub(crate) started_at: String,
    pub(crate) command: String,
    pub(crate) machine: String,
    /// Whether the run was interrupted, so that the figures are of its beginning only.
    #[serde(default)]
    pub(crate) partial: bool,
    pub(crate) passed: bool,
    /// Empty for an interrupted run.
    pub(crate) checks: Vec<Check>,
    /// The run; of a ramp, its highest step that kept the limits, or the first.
    pub(crate) measured: Measured,
    pub(crate) ramp: Option<RampResult>,
    pub(crate) scenario: Scenario,
}

/// The steps of a ramp in the order they were tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RampResult {
    pub(crate) highest_rate_qps: Option<f64>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) kept: bool,
    pub(crate) measured: Measured,
}

impl Report {
    /// Raised with every change that an older reader would misunderstand.
    pub(crate) const FORMAT: u32 = 1;

    /// Reads the report.json of an earlier run.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read baseline {}", path.display()))?;
        let report: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no report of loadtest", path.display()))?;
        ensure!(report.format == Self::FORMAT, "{}: format must be {}", path.display(), Self::FORMAT);
        Ok(report)
    }

    /// Writes report.json and report.html into `directory`.
    pub(crate) fn write(&self, directory: &Path, baseline: Option<&Self>) -> Result<()> {
        let write = |name: &str, content: String| {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))
        };
        write("report.json", self.to_json()?)?;
        write("report.html", html::page(self, baseline))
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("encode the report")
    }

    /// Whether a step has a verdict: the first step of an interrupted ramp is shown although it was cut short.
    fn is_step_whole(&self, step: &Step) -> bool {
        step.kept || !self.partial || self.ramp.as_ref().is_some_and(|ramp| ramp.highest_rate_qps.is_some())
    }

    /// Whether both runs asked the same requests at the same rate, so that only the service differs.
    fn same_requests(&self, other: &Self) -> bool {
        self.seed == other.seed
            && self.scenario.load == other.scenario.load
            && self.scenario.request == other.scenario.request
    }
}
