//! `program`: the user's own program, once for each list of arguments. The worker that runs it brings the executor: only
//! workers need what contains programs.

mod params;
mod variables;
mod work;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{
    ABLE, Composition, INLINE_OUTPUT_BYTES, InvalidJob, JobKind, JobOptions, OnExhausted, OutputObject, Payloads,
    ProgramRef,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

pub use params::{Combine, ProgramLimits, ProgramParams, ProgramRange};
pub use work::{InvalidBase64, ProgramInput, ProgramWork, stdin_of};

use crate::execute::Execute;
use crate::workload::{
    Accepted, Combined, InvalidReport, Kind, Parsed, Profile, Report, Workload, accept_results, parse_params, raw,
    restore_params,
};
use params::{is_one, one_task};
use variables::steers_interpreters;

/// Tasks of a list, which is stored.
const MAX_LISTED_TASKS: usize = 10_000_000;
/// Tasks of a range, of which nothing is stored.
const MAX_RANGE_TASKS: u64 = 1_000_000_000;
/// An object store takes at most 10,000 parts of 8 MiB.
pub const MAX_OUTPUT_BYTES: u64 = 64 << 30;
const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// The time limit of a task where the job names none: every program has one.
const DEFAULT_TASK_SECONDS: u32 = 3_600;
/// Fetching and compiling a program is no time of its task, but of its lease.
const LEASE_SLACK: Duration = Duration::from_secs(180);
/// The least rate in bytes a second at which outputs are handed in, which is time of the lease, too.
const HANDED_IN_PER_SECOND: u64 = 8 << 20;
const MAX_ENV: usize = 256;
/// Bytes of all variables: each lease carries them, and each list of jobs shows them.
const MAX_ENV_BYTES: usize = 64 * 1024;

/// The parameters as they are stored and shown: arguments and payloads have their own place in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredParams {
    program: ProgramRef,
    /// Lists of arguments or payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<ProgramRange>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_payloads: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    combine: Combine,
    limits: ProgramLimits,
    /// The time limit of a task.
    seconds: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reproducible: bool,
    #[serde(default = "one_task", skip_serializing_if = "is_one")]
    tasks_per_lease: u64,
}

fn programs_of(params: &StoredParams) -> impl Iterator<Item = ProgramRef> + use<> {
    [params.program.clone()].into_iter().chain(params.combine.program().cloned())
}

fn is_named(program: &ProgramRef) -> bool {
    matches!(program, ProgramRef::Named(_))
}

#[derive(Debug)]
pub(crate) struct Program;

impl Kind for Program {
    fn name(&self) -> JobKind {
        JobKind::PROGRAM
    }

    fn summary(&self) -> &'static str {
        "A program of your own, once for each list of arguments"
    }

    fn params_schema(&self) -> (&'static str, RefOr<Schema>) {
        ("Program", ProgramParams::schema())
    }

    fn parse(&self, params: &RawValue, _: NonZeroU64) -> Result<Parsed, InvalidJob> {
        let params: ProgramParams = parse_params(params)?;
        check(&params)?;
        let has_payloads = params.payloads.is_some();
        let mut inputs = inputs(&params)?;
        if params.combine.is_fold() && !inputs.is_empty() {
            // A place for the last task, whose input are the results of the others.
            inputs.push(&raw("{}".to_owned()));
        }
        let stored = StoredParams {
            count: params.range.is_none().then(|| inputs.len() as u64 - u64::from(params.combine.is_fold())),
            program: params.program,
            range: params.range,
            has_payloads,
            env: params.env,
            combine: params.combine,
            limits: params.limits,
            seconds: DEFAULT_TASK_SECONDS,
            reproducible: params.reproducible,
            tasks_per_lease: params.tasks_per_lease,
        };
        let written = written(&stored);
        Ok(Parsed::new(Arc::new(stored), written, inputs))
    }

    fn complete(&self, parsed: Parsed, options: &mut JobOptions) -> Result<Parsed, InvalidJob> {
        let mut stored: StoredParams = restore_params(&parsed.stored)?;
        let default = || std::num::NonZeroU32::new(DEFAULT_TASK_SECONDS).expect("it is not 0");
        stored.seconds = options.timeout.task_seconds.get_or_insert_with(default).get();
        for program in programs_of(&stored) {
            if let ProgramRef::Named(name) = program {
                options.requires.labels.insert(name.label(), ABLE.to_owned());
            }
        }
        let written = written(&stored);
        Ok(Parsed::new(Arc::new(stored), written, parsed.payloads))
    }

    fn restore(&self, stored: &RawValue, _: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
        Ok(Arc::new(restore_params::<StoredParams>(stored)?))
    }

    fn executor(&self) -> Option<Box<dyn Execute>> {
        None
    }
}

/// The most that a task of a `program` job may print, by its parameters as they are stored.
///
/// # Errors
/// The parameters are not those of a `program` job.
pub fn program_output_bytes(stored: &RawValue) -> Result<u64, InvalidJob> {
    restore_params::<StoredParams>(stored).map(|params| params.limits.output_bytes)
}

/// Whether the clocks and random numbers of a `program` job are to repeat, by its parameters as they are stored.
///
/// # Errors
/// The parameters are not those of a `program` job.
pub fn program_is_reproducible(stored: &RawValue) -> Result<bool, InvalidJob> {
    restore_params::<StoredParams>(stored).map(|params| params.reproducible)
}

fn written(stored: &StoredParams) -> Box<RawValue> {
    serde_json::value::to_raw_value(stored).expect("text and numbers are JSON")
}

fn check(params: &ProgramParams) -> Result<(), InvalidJob> {
    let wrong = |message: String| Err(InvalidJob::new("params", message));
    check_env(&params.env)?;
    let names_one = is_named(&params.program) || params.combine.program().is_some_and(is_named);
    if let Some(name) = params.env.keys().find(|name| names_one && steers_interpreters(name)) {
        let which = "env must not set what makes a program that workers bring run something else";
        return wrong(format!("{which}: {name}"));
    }
    if params.reproducible && names_one {
        let which = "reproducible is for uploaded WASI programs, whose clocks and random numbers the worker provides";
        return wrong(format!("{which}: a program that workers bring by name has its own"));
    }
    if params.args.is_some() && params.range.is_some() {
        return wrong("args and range exclude each other".to_owned());
    }
    if let Some(range) = &params.range
        && !(1..=MAX_RANGE_TASKS).contains(&range.parts())
    {
        return wrong(format!("range must have from 1 to {MAX_RANGE_TASKS} parts, but has {}", range.parts()));
    }
    let listed = params.args.as_ref().map(Vec::len).or(params.payloads.as_ref().map(Payloads::len));
    match (params.range, listed) {
        (None, None) => wrong("one of args, range and payloads is missing".to_owned()),
        (None, Some(tasks)) if !(1..=MAX_LISTED_TASKS).contains(&tasks) => {
            wrong(format!("must list from 1 to {MAX_LISTED_TASKS} tasks"))
        }
        (None | Some(_), _) => Ok(()),
    }
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), InvalidJob> {
    let wrong = |message: String| Err(InvalidJob::new("params", message));
    let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    if !env.iter().all(|(name, value)| is_name(name) && !value.contains('\0')) {
        return wrong("env must have variables whose names are not empty and have no '=', and no NUL".to_owned());
    }
    if env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_ENV_BYTES {
        return wrong(format!("env has at most {MAX_ENV_BYTES} bytes: give what is longer as payloads"));
    }
    Ok(())
}

/// The stored input of each task; empty for a range without payloads.
fn inputs(params: &ProgramParams) -> Result<Payloads, InvalidJob> {
    let tasks = match (&params.args, &params.range, &params.payloads) {
        (Some(args), ..) => args.len() as u64,
        (None, Some(range), Some(_)) => range.parts(),
        (None, Some(_), None) => return Ok(Payloads::default()),
        (None, None, payloads) => payloads.as_ref().map_or(0, Payloads::len) as u64,
    };
    if let Some(payloads) = params.payloads.as_ref().filter(|payloads| payloads.len() as u64 != tasks) {
        let message = format!("payloads must be as many as the tasks: {} for {tasks}", payloads.len());
        return Err(InvalidJob::new("params", message));
    }
    if let Some(nul) = params.args.iter().flatten().position(|args| args.iter().any(|arg| arg.contains('\0'))) {
        return Err(InvalidJob::new("params", format!("args[{nul}] has an argument with a NUL")));
    }
    let input = |task: u64| {
        let place = usize::try_from(task).expect("a list has so many");
        let args = match (&params.args, &params.range) {
            (Some(args), _) => args[place].clone(),
            (None, Some(range)) => range.args(task).to_vec(),
            (None, None) => Vec::new(),
        };
        let payload = params.payloads.as_ref().and_then(|payloads| payloads.get(place)).map(ToOwned::to_owned);
        let payload = payload.map(|payload| RawValue::from_string(payload).expect("it was JSON before"));
        if let Some(Err(error)) = payload.as_deref().filter(|json| json.get().starts_with('{')).map(stdin_of) {
            return Err(InvalidJob::new("params", format!("payloads[{task}] {error}")));
        }
        Ok(serde_json::value::to_raw_value(&ProgramInput { args, payload }).expect("text is JSON"))
    };
    (0..tasks).map(input).collect()
}

impl StoredParams {
    /// The tasks but for the last one of a job that folds.
    fn parts(&self) -> u64 {
        self.range.as_ref().map(ProgramRange::parts).or(self.count).unwrap_or(0)
    }
}

impl Workload for StoredParams {
    fn tasks(&self) -> u64 {
        self.parts() + u64::from(self.combine.is_fold())
    }

    fn profile(&self) -> Profile {
        // Without the result of every task nothing can be combined.
        let on_exhausted = if self.combine == Combine::None { OnExhausted::SkipTask } else { OnExhausted::FailJob };
        let handing_in = self.limits.output_bytes.saturating_mul(self.tasks_per_lease) / HANDED_IN_PER_SECOND;
        Profile {
            is_individual: true,
            on_exhausted,
            max_lease_tasks: self.tasks_per_lease,
            lease_slack: LEASE_SLACK.saturating_add(Duration::from_secs(handing_in)),
            last_task_waits: self.combine.is_fold(),
            ..Profile::default()
        }
    }

    fn lease(&self, tasks: &Range<u64>, _: u64) -> Box<RawValue> {
        let fold = self.combine.program().filter(|_| tasks.start >= self.parts());
        let has_list = self.range.is_none() || self.has_payloads;
        let is_added = self.combine == Combine::Sum;
        // Outputs that are added stay in the worker's memory, and no integer is long.
        let most = if is_added { INLINE_OUTPUT_BYTES } else { u64::MAX };
        let output_bytes = self.limits.output_bytes.min(most);
        let work = ProgramWork {
            program: fold.unwrap_or(&self.program).clone(),
            limits: ProgramLimits { output_bytes, ..self.limits },
            seconds: self.seconds,
            env: self.env.clone(),
            reproducible: self.reproducible,
            range: self.range.filter(|_| !has_list && fold.is_none()),
            has_inputs: has_list && fold.is_none(),
            is_integer: is_added,
            is_fold: fold.is_some(),
            hand_in_above: (!is_added).then_some(INLINE_OUTPUT_BYTES),
        };
        serde_json::value::to_raw_value(&work).expect("text and numbers are JSON")
    }

    fn payload(&self, task: u64) -> Option<Box<RawValue>> {
        let range = self.range.filter(|_| !self.has_payloads)?;
        let input = ProgramInput { args: range.args(task).to_vec(), payload: None };
        serde_json::value::to_raw_value(&input).ok()
    }

    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        let accepted = accept_results(tasks, report)?;
        if accepted.results.is_empty() {
            return Err(InvalidReport("must hold a result for each task".to_owned()));
        }
        if self.combine == Combine::Sum
            && accepted.results.iter().any(|result| OutputObject::of(result.get()).is_some())
        {
            return Err(InvalidReport("must hold integers, not objects: they are added".to_owned()));
        }
        Ok(accepted)
    }

    fn combine(&self, _: u128) -> Combined {
        Combined::TaskResults
    }

    fn composition(&self) -> Composition {
        match self.combine {
            Combine::None => Composition::Outputs,
            Combine::Sum => Composition::Sum,
            Combine::Concat => Composition::Concat,
            Combine::Program(_) => Composition::LastTask,
        }
    }
}

#[cfg(test)]
mod tests;
