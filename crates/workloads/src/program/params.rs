//! The parameters of a `program` job, as a client gives them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use model::{Payloads, ProgramRef, read_pairs, read_whole};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{MAX_ENV, MAX_MEMORY_BYTES, MAX_OUTPUT_BYTES};

const DEFAULT_OUTPUT_BYTES: u64 = 1 << 20;
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

/// Parameters of `program`: one of `args`, `range` and `payloads` says how many tasks there are.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramParams {
    /// The SHA-256 of an uploaded program, or the name of one that workers bring.
    #[schema(value_type = String)]
    pub program: ProgramRef,
    /// A list of arguments for each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!([["frame-1", "--fast"], ["frame-2", "--fast"]]))]
    pub args: Option<Vec<Vec<String>>>,
    /// A task for each part of a range: its two arguments are the first number of the part and the first one after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub range: Option<ProgramRange>,
    /// The stdin of each task: the text of a string, the bytes of `{"base64": …}`, else the JSON itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>, example = json!(["a text", {"base64": "AAH/"}]))]
    pub payloads: Option<Payloads>,
    /// Variables of the program's environment.
    #[serde(default, deserialize_with = "read_pairs::<MAX_ENV, _>", skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"OMP_NUM_THREADS": "1"}))]
    pub env: BTreeMap<String, String>,
    /// The combination of the tasks' results into the job's.
    #[serde(default)]
    #[schema(schema_with = Combine::schema)]
    pub combine: Combine,
    /// Limits of a task; its time limit is `timeout.task_seconds`, 3600 unless the job says otherwise.
    #[serde(default)]
    #[schema(inline)]
    pub limits: ProgramLimits,
    /// Clocks that go on by a microsecond a reading and random numbers that repeat, for WASI programs.
    #[serde(default)]
    pub reproducible: bool,
    /// The most tasks in one lease, 1 to 1000. More than one pays where tasks take less than some milliseconds; a task
    /// that fails then takes the others of its lease with it.
    #[serde(default = "one_task", deserialize_with = "read_whole::<1, 1000, _, _>", skip_serializing_if = "is_one")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    pub tasks_per_lease: u64,
}

pub(super) fn one_task() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_one(tasks: &u64) -> bool {
    *tasks == 1
}

/// The numbers from `from` up to, but not including, `to`, in parts of `step`; the last part may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": 0, "to": 500_000_000, "step": 100_000_000}))]
pub struct ProgramRange {
    /// The first number.
    pub from: u64,
    /// The first number beyond the last part.
    pub to: u64,
    /// The numbers of a part.
    #[schema(value_type = u64, minimum = 1)]
    pub step: NonZeroU64,
}

/// The combination of the results of a `program` job's tasks into the job's result.
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
        let example = serde_json::Value::from("sum");
        OneOfBuilder::new().item(words).item(program).description(Some(description)).examples([example]).into()
    }
}

impl ToSchema for Combine {}

/// Limits of each task of a `program` job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"memory_bytes": 1_073_741_824, "output_bytes": 16_777_216}))]
pub struct ProgramLimits {
    /// Memory of all its processes. Default 268435456, 256 MiB.
    #[serde(deserialize_with = "read_whole::<65_536, MAX_MEMORY_BYTES, _, _>")]
    #[schema(minimum = 65536)]
    pub memory_bytes: u64,
    /// Length of stdout, at most `DIVVY_MAX_OUTPUT_BYTES` of the coordinator. Default 1048576, 1 MiB.
    #[serde(deserialize_with = "read_whole::<0, MAX_OUTPUT_BYTES, _, _>")]
    pub output_bytes: u64,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self { memory_bytes: DEFAULT_MEMORY_BYTES, output_bytes: DEFAULT_OUTPUT_BYTES }
    }
}

impl ProgramRange {
    /// The number of parts.
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
    pub(super) fn is_fold(&self) -> bool {
        self.program().is_some()
    }

    /// The program that folds.
    pub(super) fn program(&self) -> Option<&ProgramRef> {
        match self {
            Self::Program(program) => Some(program),
            Self::None | Self::Sum | Self::Concat => None,
        }
    }
}
