//! `program`: the user's own program, once for each list of arguments. The worker that runs it brings the executor: only
//! workers need what contains programs.

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
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::execute::Execute;
use crate::workload::{
    Accepted, Combined, InvalidReport, Kind, Parsed, Profile, Report, Workload, accept_results, parse_params, raw,
    restore_params,
};

/// Tasks of a list, which is stored.
const MAX_LISTED_TASKS: usize = 10_000_000;
/// Tasks of a range, of which nothing is stored.
const MAX_RANGE_TASKS: u64 = 1_000_000_000;
const MAX_TASKS_PER_LEASE: u64 = 1_000;
/// An object store takes at most 10,000 parts of 8 MiB.
pub const MAX_OUTPUT_BYTES: u64 = 64 << 30;
const MAX_MEMORY_BYTES: u64 = 1 << 40;
const DEFAULT_OUTPUT_BYTES: u64 = 1 << 20;
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// The time limit of a task where the job names none: every program has one.
const DEFAULT_TASK_SECONDS: u32 = 3_600;
/// Fetching and compiling a program is no time of its task, but of its lease.
const LEASE_SLACK: Duration = Duration::from_secs(180);
/// So is handing in what it has printed, at this rate at least.
const HANDED_IN_PER_SECOND: u64 = 8 << 20;
const MAX_ENV: usize = 256;

/// Parameters of `program`: one of `args`, `range` and `payloads` says how many tasks there are.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramParams {
    /// The SHA-256 of an uploaded program, or the name of one that workers bring.
    #[schema(value_type = String)]
    pub program: ProgramRef,
    /// A list of arguments for each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Vec<String>>>,
    /// A task for each part of a range: its two arguments are the first number of the part and the first one after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub range: Option<ProgramRange>,
    /// What each task reads from stdin: the text of a string, the bytes of `{"base64": …}`, else the JSON itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub payloads: Option<Payloads>,
    /// Variables of the program's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How the tasks' results become the job's.
    #[serde(default)]
    #[schema(inline)]
    pub combine: Combine,
    /// What a task may take; its time is `timeout.task_seconds`, 3600 unless the job says otherwise.
    #[serde(default)]
    #[schema(inline)]
    pub limits: ProgramLimits,
    /// Clocks that stand still and random numbers that repeat, for WASI programs.
    #[serde(default)]
    pub reproducible: bool,
    /// The most tasks in one lease, 1 to 1000. More than one pays where tasks take less than some milliseconds; a task
    /// that fails then takes the others of its lease with it.
    #[serde(default = "one_task", skip_serializing_if = "is_one")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    pub tasks_per_lease: u64,
}

fn one_task() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(tasks: &u64) -> bool {
    *tasks == 1
}

/// The numbers from `from` up to, but not including, `to`, in parts of `step`; the last part may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramRange {
    /// The first number.
    pub from: u64,
    /// The first number beyond the last part.
    pub to: u64,
    /// The numbers of a part.
    #[schema(value_type = u64, minimum = 1)]
    pub step: NonZeroU64,
}

/// How the results of a `program` job's tasks become the job's result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// `{"tasks": […]}`, a result for each task.
    #[default]
    None,
    /// `{"sum": "…"}`: the exact sum of decimal integers, up to 128 bits.
    Sum,
    /// `{"output": …}`: the outputs in the order of the tasks.
    Concat,
    /// `{"output": …}`: the output of one last task, which reads the results as lines from stdin.
    Program(ProgramRef),
}

impl PartialSchema for Combine {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let words = text().enum_values(Some(["none", "sum", "concat"]));
        let program = ObjectBuilder::new().property("program", text()).required("program");
        let description = "How the results of the tasks become the job's: `none` lists them, `sum` adds decimal integers, \
            `concat` joins the outputs, and a program reads them as lines in one last task.";
        OneOfBuilder::new().item(words).item(program).description(Some(description)).into()
    }
}

impl ToSchema for Combine {}

/// What one task of a `program` job may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramLimits {
    /// Memory of all its processes. Default 268435456, 256 MiB.
    #[schema(minimum = 65536)]
    pub memory_bytes: u64,
    /// Length of stdout, at most `DIVVY_MAX_OUTPUT_BYTES` of the coordinator. Default 1048576, 1 MiB.
    pub output_bytes: u64,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self { memory_bytes: DEFAULT_MEMORY_BYTES, output_bytes: DEFAULT_OUTPUT_BYTES }
    }
}

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

/// What a lease carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramWork {
    /// What to run.
    pub program: ProgramRef,
    /// What a task may take.
    pub limits: ProgramLimits,
    /// The time limit of a task.
    pub seconds: u32,
    /// Variables of the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether clocks stand still and random numbers repeat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reproducible: bool,
    /// The arguments, where they come of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ProgramRange>,
    /// Whether each task has a [`ProgramInput`] at the coordinator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_inputs: bool,
    /// Whether stdout must be a decimal integer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_integer: bool,
    /// Whether it is the last task, which reads the results of all others from stdin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fold: bool,
    /// The longest stdout that is reported in the outcome; a longer one is handed in as an object. Without it all is
    /// reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_in_above: Option<u64>,
}

/// What is stored for one task, and what a worker that pulls gets as its payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProgramInput {
    /// The arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// What it reads from stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
}

impl ProgramRange {
    /// How many parts there are.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.to.saturating_sub(self.from).div_ceil(self.step.get())
    }

    /// The arguments of a part, which must be one of [`Self::parts`].
    #[must_use]
    pub fn args(&self, part: u64) -> [String; 2] {
        let first = self.from.saturating_add(part.saturating_mul(self.step.get()));
        [first.to_string(), first.saturating_add(self.step.get()).min(self.to).to_string()]
    }
}

impl Combine {
    fn is_fold(&self) -> bool {
        self.program().is_some()
    }

    /// The program that folds.
    fn program(&self) -> Option<&ProgramRef> {
        match self {
            Self::Program(program) => Some(program),
            Self::None | Self::Sum | Self::Concat => None,
        }
    }
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

    fn is_pushed(&self) -> bool {
        true
    }
}

/// The most that a task of a `program` job may print, by its parameters as they are stored.
///
/// # Errors
/// They are not those of a `program` job.
pub fn program_output_bytes(stored: &RawValue) -> Result<u64, InvalidJob> {
    restore_params::<StoredParams>(stored).map(|params| params.limits.output_bytes)
}

/// Whether the clocks and random numbers of a `program` job are to repeat, by its parameters as they are stored.
///
/// # Errors
/// They are not those of a `program` job.
pub fn program_is_reproducible(stored: &RawValue) -> Result<bool, InvalidJob> {
    restore_params::<StoredParams>(stored).map(|params| params.reproducible)
}

fn written(stored: &StoredParams) -> Box<RawValue> {
    serde_json::value::to_raw_value(stored).expect("text and numbers are JSON")
}

fn check(params: &ProgramParams) -> Result<(), InvalidJob> {
    let wrong = |message: String| Err(InvalidJob::new("params", message));
    let ProgramLimits { memory_bytes, output_bytes } = params.limits;
    if !(1..=MAX_TASKS_PER_LEASE).contains(&params.tasks_per_lease) {
        return wrong(format!("tasks_per_lease must be from 1 to {MAX_TASKS_PER_LEASE}"));
    }
    if !(65_536..=MAX_MEMORY_BYTES).contains(&memory_bytes) {
        return wrong(format!("limits.memory_bytes must be from 65536 to {MAX_MEMORY_BYTES}"));
    }
    if output_bytes > MAX_OUTPUT_BYTES {
        return wrong(format!("limits.output_bytes must be at most {MAX_OUTPUT_BYTES}"));
    }
    let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    if params.env.len() > MAX_ENV || !params.env.iter().all(|(name, value)| is_name(name) && !value.contains('\0')) {
        return wrong(format!("env has at most {MAX_ENV} variables, whose names are not empty and have no '='"));
    }
    if params.reproducible && (is_named(&params.program) || params.combine.program().is_some_and(is_named)) {
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

/// What the store keeps for each task: nothing for a range without payloads.
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
        serde_json::value::to_raw_value(&ProgramInput { args, payload }).expect("text is JSON")
    };
    Ok((0..tasks).map(input).collect())
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
        let work = ProgramWork {
            program: fold.unwrap_or(&self.program).clone(),
            limits: self.limits,
            seconds: self.seconds,
            env: self.env.clone(),
            reproducible: self.reproducible,
            range: self.range.filter(|_| !has_list),
            has_inputs: has_list && fold.is_none(),
            is_integer: self.combine == Combine::Sum,
            is_fold: fold.is_some(),
            hand_in_above: (self.combine != Combine::Sum).then_some(INLINE_OUTPUT_BYTES),
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
mod tests {
    use serde_json::json;

    use super::*;

    const CHUNK: NonZeroU64 = NonZeroU64::MIN;

    fn parse(params: serde_json::Value) -> Result<Parsed, InvalidJob> {
        Program.parse(&raw(params.to_string()), CHUNK)
    }

    fn work(parsed: &Parsed, tasks: &Range<u64>) -> ProgramWork {
        serde_json::from_str(parsed.workload.lease(tasks, tasks.end).get()).expect("work")
    }

    #[test]
    fn the_documents_range_is_five_tasks_of_two_arguments_and_no_list() {
        let range = json!({"from": 0, "to": 500_000_000, "step": 100_000_000});
        let parsed = parse(json!({"program": "sums", "range": range, "combine": "sum"})).expect("valid");
        assert_eq!((parsed.workload.tasks(), parsed.payloads.len()), (5, 0));
        let work = work(&parsed, &(4..5));
        let range = work.range.expect("a range");
        assert_eq!(range.args(4), ["400000000", "500000000"].map(str::to_owned));
        assert!(work.is_integer && !work.has_inputs && !work.is_fold);
        let restored = Program.restore(&parsed.stored, CHUNK).expect("restored");
        assert_eq!(restored.tasks(), 5);
    }

    #[test]
    fn a_range_that_does_not_divide_has_a_shorter_last_part() {
        let range = ProgramRange { from: 10, to: 25, step: NonZeroU64::new(10).expect("not 0") };
        assert_eq!((range.parts(), range.args(1)), (2, ["20", "25"].map(str::to_owned)));
        let range = ProgramRange { from: 0, to: u64::MAX, step: NonZeroU64::new(u64::MAX - 1).expect("not 0") };
        assert_eq!(range.args(1), [(u64::MAX - 1).to_string(), u64::MAX.to_string()]);
    }

    #[test]
    fn a_fold_is_a_last_task_with_its_own_program() {
        let params = json!({"program": "map", "args": [["a"], ["b"]], "combine": {"program": "reduce"}});
        let parsed = parse(params).expect("valid");
        assert_eq!((parsed.workload.tasks(), parsed.payloads.len()), (3, 3));
        assert!(parsed.workload.profile().last_task_waits);
        let (first, last) = (work(&parsed, &(0..1)), work(&parsed, &(2..3)));
        assert_eq!((first.program.to_string(), first.has_inputs, first.is_fold), ("map".to_owned(), true, false));
        assert_eq!((last.program.to_string(), last.has_inputs, last.is_fold), ("reduce".to_owned(), false, true));
        assert_eq!(parsed.workload.composition(), Composition::LastTask);
    }

    #[test]
    fn a_job_requires_workers_that_bring_its_named_programs_and_has_a_time_limit() {
        let params = json!({"program": "map", "args": [[]], "combine": {"program": "reduce"}});
        let mut options = JobOptions::default();
        let parsed = Program.complete(parse(params).expect("valid"), &mut options).expect("complete");
        let labels: Vec<_> = options.requires.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["divvy.program.map", "divvy.program.reduce"]);
        assert_eq!(options.timeout.task_seconds.map(std::num::NonZeroU32::get), Some(DEFAULT_TASK_SECONDS));
        assert_eq!(work(&parsed, &(0..1)).seconds, DEFAULT_TASK_SECONDS);
    }

    #[test]
    fn uploaded_programs_may_be_reproducible() {
        let params = json!({"program": "ab".repeat(32), "args": [[]], "reproducible": true});
        assert!(work(&parse(params).expect("valid"), &(0..1)).reproducible);
    }

    #[test]
    fn the_uploaded_programs_of_stored_parameters_are_found() {
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        let params = json!({"program": one, "args": [[]], "combine": {"program": other}});
        let parsed = parse(params).expect("valid");
        let found: Vec<_> =
            model::uploaded_programs(JobKind::PROGRAM, parsed.stored.get()).iter().map(ToString::to_string).collect();
        assert_eq!(found, [one, other]);
        assert!(model::uploaded_programs(JobKind::TASKS, parsed.stored.get()).is_empty());
    }

    #[test]
    fn long_outputs_are_objects_unless_they_are_added() {
        let of = |combine: &str| parse(json!({"program": "p", "args": [[]], "combine": combine})).expect("valid");
        let (joined, added) = (of("concat"), of("sum"));
        let above = |parsed: &Parsed| work(parsed, &(0..1)).hand_in_above;
        assert_eq!((above(&joined), above(&added)), (Some(65_536), None));
        let attempt = "00000000-0000-0000-0000-000000000007";
        let object = json!({"object": {"attempt": attempt, "bytes": 70_000, "sha256": "ab".repeat(32), "text": true}});
        let report = || Report { results: vec![raw(object.to_string())], ..Report::default() };
        assert!(joined.workload.accept(&(0..1), report()).is_ok());
        assert!(added.workload.accept(&(0..1), report()).is_err());
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        for wrong in [
            json!({"program": "p"}),
            json!({"program": "P", "args": [[]]}),
            json!({"program": "p", "args": []}),
            json!({"program": "p", "args": [["\u{0}"]]}),
            json!({"program": "p", "args": [[]], "range": {"from": 0, "to": 1, "step": 1}}),
            json!({"program": "p", "range": {"from": 1, "to": 1, "step": 1}}),
            json!({"program": "p", "range": {"from": 0, "to": 1, "step": 0}}),
            json!({"program": "p", "range": {"from": 0, "to": u64::MAX, "step": 1}}),
            json!({"program": "p", "args": [[], []], "payloads": [1]}),
            json!({"program": "p", "args": [[]], "env": {"a=b": "c"}}),
            json!({"program": "p", "args": [[]], "tasks_per_lease": 1001}),
            json!({"program": "p", "args": [[]], "limits": {"output_bytes": (64_u64 << 30) + 1}}),
            json!({"program": "p", "args": [[]], "limits": {"memory_bytes": 1}}),
            json!({"program": "p", "args": [[]], "combine": "max"}),
            json!({"program": "p", "args": [[]], "reproducible": true}),
            json!({"program": "ab".repeat(32), "args": [[]], "combine": {"program": "p"}, "reproducible": true}),
            json!(["p", [[]]]),
            json!({"program": "p", "range": [0, 1, 1]}),
            json!({"program": "p", "args": [[]], "limits": [65_536, 1]}),
        ] {
            assert_eq!(parse(wrong.clone()).map(|_| ()).expect_err(&wrong.to_string()).field, "params");
        }
    }
}
