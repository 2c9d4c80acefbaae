//! From the command line to the report: set up, run every rate, write, print.

use std::io::{self, Write};
use std::path::PathBuf;
use std::{env, fs, thread};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{Timestamp, Unit};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Url;
use tokio::runtime::Runtime;

use crate::check::{Check, checks};
use crate::cli::{Args, Output};
use crate::files::make_room;
use crate::measured::Measured;
use crate::pace::Run;
use crate::plan::Planner;
use crate::ramp::Search;
use crate::report::{RampResult, Report, Step, text};
use crate::scenario::{Load, Ramp, Scenario};
use crate::stop::Stop;
use crate::target::{Targets, token_from_environment};

/// The reason why there is no result.
pub(crate) enum RunError {
    Usage(anyhow::Error),
    Unreachable(anyhow::Error),
    Io(anyhow::Error),
}

impl RunError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Io(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl From<anyhow::Error> for RunError {
    fn from(error: anyhow::Error) -> Self {
        Self::Io(error)
    }
}

/// The verdict of a report on its run.
pub(crate) enum Verdict {
    Kept,
    Missed,
    /// The run was interrupted: the report has no verdict on the limits.
    Partial,
}

/// Prints a line to stderr; where that is closed the run goes on.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs the scenario, writes and prints the report.
pub(crate) fn run(args: &Args) -> Result<Verdict, RunError> {
    let scenario = Scenario::read(&args.scenario).map_err(RunError::Usage)?;
    let baseline = args.baseline.as_deref().map(Report::read).transpose().map_err(RunError::Usage)?;
    make_room(scenario.request.outstanding_max).map_err(RunError::Usage)?;
    let token = token_from_environment().map_err(RunError::Usage)?;
    let targets = Targets::new(args.urls.clone(), &scenario.request, token.as_ref()).map_err(RunError::Usage)?;
    let runtime = Runtime::new().context("start the runtime")?;
    runtime.block_on(targets.reach()).map_err(RunError::Unreachable)?;
    let directory = args.report.clone().unwrap_or_else(|| PathBuf::from("target/loadtest").join(&scenario.name));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;

    let seed = args.seed.unwrap_or_else(|| rand::make_rng::<ChaCha8Rng>().random::<u32>().into());
    tell(&format!("{} ({}), seed {seed}", scenario.title, scenario.name));
    let stop = runtime.block_on(async { Stop::on_signals() }).context("catch signals")?;
    let started_at = Timestamp::now().round(Unit::Second).context("round the time")?.to_string();
    let bench = Bench { planner: Planner::new(scenario.request, seed), scenario: &scenario, targets, stop };
    let results = runtime.block_on(bench.measure())?;
    let report = results.into_report(args, scenario, seed, started_at);

    let written = report.write(&directory, baseline.as_ref());
    let printed = match args.output {
        Output::Json => report.to_json()? + "\n",
        Output::Text => text::summary(&report, baseline.as_ref(), &directory),
    };
    match io::stdout().write_all(printed.as_bytes()) {
        // A reader that has seen enough of the summary is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(RunError::Io(error.into())),
        _ => (),
    }
    // The figures are printed even if the disk is full.
    written?;
    Ok(match (report.partial, report.passed) {
        (true, _) => Verdict::Partial,
        (false, true) => Verdict::Kept,
        (false, false) => Verdict::Missed,
    })
}

/// Everything a scenario's rates share.
struct Bench<'a> {
    planner: Planner,
    scenario: &'a Scenario,
    targets: Targets,
    stop: Stop,
}

/// The measurements of a scenario's rates.
struct Results {
    partial: bool,
    measured: Measured,
    ramp: Option<RampResult>,
    checks: Vec<Check>,
}

impl Bench<'_> {
    async fn measure(mut self) -> Result<Results> {
        match self.scenario.load {
            Load::Steady(steady) => {
                let measured = self.at_rate(steady.rate_qps, steady.duration_s).await?;
                let checks = checks(&self.scenario.limits, &measured);
                Ok(Results { partial: self.stop.is_asked(), measured, ramp: None, checks })
            }
            Load::Ramp(ramp) => self.climb(ramp).await,
        }
    }

    /// Searches the highest rate; the figures of that rate, or of the first where none kept the limits, are the result.
    async fn climb(&mut self, ramp: Ramp) -> Result<Results> {
        let mut search = Search::new(ramp);
        let mut steps: Vec<Step> = Vec::new();
        while let Some(rate_qps) = search.next_rate_qps() {
            let measured = self.at_rate(rate_qps, ramp.step_duration_s).await?;
            // A step that was cut short says nothing of its rate, unless there is nothing else to show.
            if self.stop.is_asked() {
                if steps.is_empty() {
                    steps.push(Step { kept: false, measured });
                }
                break;
            }
            let kept = checks(&self.scenario.limits, &measured).iter().all(|check| check.kept);
            search.record(rate_qps, kept);
            steps.push(Step { kept, measured });
        }
        let wrong = steps.iter().map(|step| step.measured.wrong_answers()).sum();
        let highest_rate_qps = search.highest_kept_qps();
        let best = steps.iter().rfind(|step| Some(step.measured.rate_qps) == highest_rate_qps).or(steps.first());
        let measured = best.context("a ramp has a first step")?.measured.clone();
        let checks = vec![Check::rate_floor(&ramp, highest_rate_qps), Check::wrong_answers(wrong)];
        let partial = self.stop.is_asked();
        Ok(Results { partial, measured, ramp: Some(RampResult { highest_rate_qps, steps }), checks })
    }

    async fn at_rate(&mut self, rate_qps: f64, duration_s: f64) -> Result<Measured> {
        let requests = self.planner.draw((rate_qps * duration_s).round() as usize, || self.stop.is_asked());
        let progress = progress(requests.len() as u64, rate_qps);
        let run = Run {
            requests,
            rate_qps,
            outstanding_max: self.scenario.request.outstanding_max,
            targets: self.targets.clone(),
            progress: progress.clone(),
            stop: self.stop.clone(),
        };
        let samples = run.drive().await?;
        progress.finish_and_clear();
        Ok(Measured::new(rate_qps, &samples))
    }
}

impl Results {
    fn into_report(self, args: &Args, scenario: Scenario, seed: u64, started_at: String) -> Report {
        let urls: Vec<String> = args.urls.iter().map(ToString::to_string).collect();
        Report {
            format: Report::FORMAT,
            label: args.label.clone().unwrap_or_else(|| hosts(&args.urls)),
            urls,
            scenario,
            seed,
            started_at,
            command: command(),
            machine: machine(),
            partial: self.partial,
            passed: !self.partial && self.checks.iter().all(|check| check.kept),
            // The limits are those of a whole run.
            checks: if self.partial { Vec::new() } else { self.checks },
            ramp: self.ramp,
            measured: self.measured,
        }
    }
}

fn hosts(urls: &[Url]) -> String {
    urls.iter().map(Url::authority).collect::<Vec<_>>().join(", ")
}

/// The command line of this run; the names of files in it need not be UTF-8.
fn command() -> String {
    env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn progress(requests: u64, rate_qps: f64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} answers")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(requests).with_style(style).with_message(format!("{rate_qps:.1} QPS"))
}

/// The processor where Linux names it, and how many cores this process may use.
fn machine() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let (_, model) = model.unwrap_or(("", env::consts::ARCH));
    format!("{cores} × {model}, {}", env::consts::OS)
}
