//! `tasks`: individual tasks with a payload each, for pulling workers.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use model::{InvalidJob, JobKind, OnExhausted, Payloads};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::execute::Execute;
use crate::workload::{
    Accepted, Combined, InvalidReport, Kind, Parsed, Profile, Report, Workload, accept_results, parse_params, raw,
    restore_params,
};

/// Parameters of `tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksParams {
    /// A payload for each task: any JSON, which a worker gets as it is.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1, example = json!([{"file": "a.csv"}, {"file": "b.csv"}]))]
    pub list: Payloads,
}

/// The parameters as they are shown and stored: the payloads have their own place in the store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct TaskCount {
    count: u64,
}

#[derive(Debug)]
pub(crate) struct Tasks;

impl Kind for Tasks {
    fn name(&self) -> JobKind {
        JobKind::TASKS
    }

    fn summary(&self) -> &'static str {
        "Individual tasks with a payload each, for workers that pull"
    }

    fn params_schema(&self) -> (&'static str, RefOr<Schema>) {
        ("Tasks", TasksParams::schema())
    }

    fn parse(&self, params: &RawValue, _: NonZeroU64) -> Result<Parsed, InvalidJob> {
        let TasksParams { list } = parse_params(params)?;
        if list.is_empty() {
            return Err(InvalidJob::new("params", "list must hold at least one payload"));
        }
        let work = TaskCount { count: list.len() as u64 };
        let shown = raw(format!(r#"{{"count":{}}}"#, work.count));
        Ok(Parsed::new(Arc::new(work), shown, list))
    }

    fn restore(&self, shown: &RawValue, _: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
        Ok(Arc::new(restore_params::<TaskCount>(shown)?))
    }

    fn executor(&self) -> Option<Box<dyn Execute>> {
        None
    }

    fn is_pushed(&self) -> bool {
        false
    }
}

impl Workload for TaskCount {
    fn tasks(&self) -> u64 {
        self.count
    }

    fn profile(&self) -> Profile {
        Profile { is_individual: true, on_exhausted: OnExhausted::SkipTask, ..Profile::default() }
    }

    fn lease(&self, _: &Range<u64>, _: u64) -> Box<RawValue> {
        raw("{}".to_owned())
    }

    fn payload(&self, _: u64) -> Option<Box<RawValue>> {
        None
    }

    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        accept_results(tasks, report)
    }

    fn combine(&self, _: u128) -> Combined {
        Combined::TaskResults
    }
}
