//! Requests of workers that pull, and the answers.

use std::fmt;

use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, Labels, Resources, WorkerId, decimal, read_whole, read_words};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{LeaseName, schema};

/// The most tasks of one claim.
pub const MAX_CLAIM_TASKS: u32 = 10_000;

/// Body of `POST /v1/worker/claim`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The worker's name.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// The kinds of job that it runs.
    #[schema(value_type = Vec<schema::JobKind>)]
    pub kinds: Vec<JobKind>,
    /// Its labels.
    #[serde(default, deserialize_with = "read_words")]
    #[schema(value_type = schema::Labels)]
    pub labels: Labels,
    /// Its cores and memory.
    #[serde(default)]
    #[schema(value_type = schema::Resources)]
    pub resources: Resources,
    /// The most tasks that it takes at once, 1 to 10000.
    #[serde(default = "one_claimed", deserialize_with = "read_whole::<1, 10_000, _, _>")]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_tasks: u32,
    /// The longest wait for a task in seconds, 0 to 60.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 60)]
    pub wait_seconds: f64,
}

fn one_claimed() -> u32 {
    1
}

/// Answer to `POST /v1/worker/claim` when there is a task: consecutive tasks of one job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Claimed {
    /// The attempt, which the report names.
    #[schema(value_type = schema::AttemptId)]
    pub attempt: AttemptId,
    /// The job of the tasks.
    #[schema(value_type = schema::JobId)]
    pub job: JobId,
    /// The kind of the job.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// Whether code in the payloads may run: the job was submitted with the right `programs`, or without a token to a
    /// coordinator that only its own machine reaches.
    #[serde(default)]
    pub is_admitted: bool,
    /// The tasks.
    pub tasks: Vec<ClaimedTask>,
    /// The lease's name, for the report to carry.
    pub lease: LeaseName,
    /// End of the lease unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The lease's span as W3C Trace Context writes it, for spans of the worker's own; only where the job is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The data that tracing systems add to `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// One task of a claim.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimedTask {
    /// Its number in the job, from 0.
    pub index: u64,
    /// The work: as submitted for `tasks`; `{"a", "b"}` for ranges; `{"seconds"}` for `sleep`.
    #[schema(value_type = serde_json::Value)]
    pub payload: Box<RawValue>,
}

/// Body of `POST /v1/worker/tasks/{attempt}/complete`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// A result for each task, in the order of the claim: any JSON for `tasks`, a decimal string for ranges. May be
    /// left out where there is nothing to say.
    #[serde(default, deserialize_with = "read_results")]
    #[schema(value_type = Vec<serde_json::Value>, max_items = 10_000)]
    pub results: Vec<Box<RawValue>>,
    /// Fetch the next tasks in the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimRequest>,
    /// The contribution of all tasks together to the job's total, instead of a result for each: a sum, a count.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "decimal::optional")]
    #[schema(value_type = Option<String>, pattern = "^[0-9]+$")]
    pub value: Option<u128>,
    /// Time the computation took, waiting not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_us: Option<u64>,
    /// The lease's name from the claim. With it the outcome counts even after a restart of the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseName>,
}

/// Reads results, at most as many as a claim has tasks: a value of its own for each takes thirty times as much memory as
/// its JSON may.
fn read_results<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    struct Results;

    impl<'de> Visitor<'de> for Results {
        type Value = Vec<Box<RawValue>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut results = Vec::new();
            while let Some(result) = list.next_element()? {
                if results.len() >= MAX_CLAIM_TASKS as usize {
                    return Err(A::Error::custom(format!(
                        "there are more than {MAX_CLAIM_TASKS}, the most that a claim has"
                    )));
                }
                results.push(result);
            }
            Ok(results)
        }
    }

    deserializer.deserialize_seq(Results)
}

/// Body of `POST /v1/worker/tasks/{attempt}/fail`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFailure {
    /// The error.
    pub error: String,
    /// The lease's name from the claim. With it the report counts even after a restart of the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseName>,
}

/// Body of `POST /v1/worker/tasks/{attempt}/renew`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RenewRequest {
    /// The lease's name from the claim. With it the lease goes on even after a restart of the coordinator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseName>,
}

/// Body of `POST /v1/worker/tasks/{attempt}/release`: the worker hands tasks back without an attempt being counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The lease's name from the claim; with `beyond`, the name of the lease that is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseName>,
    /// The first task that goes back, by its index: the lease goes on with the tasks before it. All go back where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond: Option<u64>,
}

/// Answer to `POST /v1/worker/tasks/{attempt}/renew`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Renewed {
    /// End of the lease unless it is renewed again.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_report_needs_neither_a_value_nor_the_name_of_its_lease() {
        let completion: Completion = serde_json::from_value(json!({})).expect("valid");
        assert_eq!((completion.value, completion.compute_us, completion.lease), (None, None, None));
        let failure: TaskFailure = serde_json::from_value(json!({"error": "why"})).expect("valid");
        assert_eq!(serde_json::to_value(failure).expect("JSON"), json!({"error": "why"}));
        assert_eq!(serde_json::from_value::<RenewRequest>(json!({})).expect("valid").lease, None);
        let release: ReleaseRequest = serde_json::from_value(json!({})).expect("valid");
        assert_eq!((release.lease, release.beyond), (None, None));
    }

    #[test]
    fn a_report_gives_its_value_as_a_decimal_string_and_its_lease_by_the_tasks() {
        let lease = json!({"worker_id": "w", "job": "0198f0a2-7d3c-7c1e-8a55-0123456789ab", "first": 0, "beyond": 7});
        let body = json!({"results": [], "value": "18446744073709551616", "compute_us": 5, "lease": lease});
        let completion: Completion = serde_json::from_value(body.clone()).expect("valid");
        assert_eq!(completion.value, Some(1 << 64));
        assert_eq!(completion.lease.as_ref().map(|lease| (lease.first, lease.beyond)), Some((0, 7)));
        assert_eq!(serde_json::to_value(&completion).expect("JSON"), body);
        let as_number = json!({"value": 5});
        assert!(serde_json::from_value::<Completion>(as_number).is_err());
        let mut misspelt: Value = body;
        misspelt["lease"]["last"] = json!(6);
        assert!(serde_json::from_value::<Completion>(misspelt).is_err());
    }
}
