//! Jobs of the kind `tasks` whose payloads carry code: the pickled calls that Python workers run. Whether the code may run is
//! decided where a job comes in, stored with the job, and told to the worker in the answer to its claim.

use std::fmt;

use api::ParsedJob;
use model::JobKind;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The label by which jobs require workers that run carried code.
const CALLS_LABEL: &str = "python-calls";

/// The member of a payload that gives the format of a call.
const FORMAT: &[u8] = b"divvy";

/// The member that names a function of the worker's own: such a call carries no code.
const NAMED_TASK: &[u8] = b"task";

/// Whether a job requires workers that run carried code, or has a payload that carries code.
pub(crate) fn carries_code(job: &ParsedJob) -> bool {
    job.kind == JobKind::TASKS
        && (job.options.requires.labels.contains_key(CALLS_LABEL) || job.work.payloads.iter().any(is_call))
}

fn is_call(payload: &str) -> bool {
    payload.starts_with('{')
        && serde_json::Deserializer::from_str(payload)
            .deserialize_map(Members)
            .is_ok_and(|members| members.has_format && !members.is_named)
}

/// The members by which a payload is recognised as a call, however their names are escaped.
struct Members;

#[derive(Default)]
struct Found {
    has_format: bool,
    is_named: bool,
}

impl<'de> Visitor<'de> for Members {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some((Name(name), IgnoredAny)) = members.next_entry::<Name, IgnoredAny>()? {
            found.has_format |= name == FORMAT;
            found.is_named |= name == NAMED_TASK;
        }
        Ok(found)
    }
}

/// The name of a member, as bytes: a lone surrogate (`"\ud800"`) is no text here, but Python reads the other members all the same.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(ReadName)
    }
}

struct ReadName;

impl Visitor<'_> for ReadName {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name, E> {
        Ok(Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use api::JobRequest;
    use model::DEFAULT_CHUNK_SIZE;

    use super::*;

    fn carries(body: &str) -> bool {
        let request: JobRequest = serde_json::from_str(body).expect("a job");
        carries_code(&request.parse(DEFAULT_CHUNK_SIZE).expect("valid"))
    }

    fn carries_payload(payload: &str) -> bool {
        carries(&format!(r#"{{"kind":"tasks","params":{{"list":[1,{payload}]}}}}"#))
    }

    #[test]
    fn a_call_is_told_by_its_members_however_they_are_written() {
        for call in [
            r#"{"divvy":1,"call":"gASV"}"#,
            r#"{ "function" : "gASV", "chunk": "gASV", "d\u0069vvy": 1 }"#,
            r#"{"divvy":2,"session":"a","initializer":"gASV"}"#,
            r#"{"divvy":null}"#,
            r#"{"divvy":1,"call":{"task":"a member of a member"}}"#,
            r#"{"\ud800":0,"divvy":1,"call":"gASV"}"#,
            r#"{"divvy":1,"call":"gASV","\udc00\ud800":"\ud800"}"#,
        ] {
            assert!(carries_payload(call), "{call}");
        }
        for other in [
            r#"{"divvy":1,"task":"price","args":[1]}"#,
            r#"{"t\u0061sk":"price","divvy":1}"#,
            r#"{"call":"gASV"}"#,
            r#"[{"divvy":1,"call":"gASV"}]"#,
            r#""{\"divvy\":1}""#,
            "null",
        ] {
            assert!(!carries_payload(other), "{other}");
        }
    }

    #[test]
    fn a_job_that_requires_workers_for_calls_carries_code_whatever_its_payloads_are() {
        assert!(carries(r#"{"kind":"tasks","params":{"list":[1]},"requires":{"labels":{"python-calls":"single-1"}}}"#));
        assert!(!carries(r#"{"kind":"tasks","params":{"list":[1]},"requires":{"labels":{"python":"3.13"}}}"#));
    }
}
