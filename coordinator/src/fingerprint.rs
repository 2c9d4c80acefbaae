//! Fingerprints recognize a request that submits the same job again, even where its bytes differ.

use api::ParsedJob;
use model::JobOptions;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Hashes that are compared with those of the job that was accepted under the same id or key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprints {
    /// Of the job.
    pub(crate) job: [u8; 32],
    /// Of the request's body, which the first release stored.
    pub(crate) body: [u8; 32],
}

/// A hash of a job that does not depend on the order of its fields, on white space or on defaults that are spelled out.
pub(crate) fn fingerprint(job: &ParsedJob) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    let JobOptions {
        priority,
        tags,
        affinity,
        requires,
        max_attempts,
        timeout,
        output,
        verify,
        chunk_size: _,
        submitted_by: _,
    } = &job.options;
    let options = json!([priority, tags, affinity, requires, max_attempts, timeout, output]);
    add(job.kind.as_str());
    add(&options.to_string());
    add(&canonical(&job.work.identity));
    // Only where it is there: a job of the first release has the fingerprint that it had.
    if let Some(share) = verify {
        add(&format!("verify {share}"));
    }
    for payload in &job.work.payloads {
        add(&canonical(payload));
    }
    hash.finalize().into()
}

/// JSON with sorted keys and without white space. Objects of `serde_json` are sorted.
fn canonical(json: &RawValue) -> String {
    let text = json.get();
    let is_plain = !text.bytes().any(|byte| byte == b'{' || byte == b'\\' || byte.is_ascii_whitespace());
    if is_plain {
        return text.to_owned();
    }
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use api::JobRequest;
    use model::DEFAULT_CHUNK_SIZE;

    use super::*;

    fn of(body: &str) -> [u8; 32] {
        let request: JobRequest = serde_json::from_str(body).expect("a job");
        fingerprint(&request.parse(DEFAULT_CHUNK_SIZE).expect("valid"))
    }

    #[test]
    fn the_same_job_in_other_words_has_the_same_fingerprint() {
        let job = of(r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},2]},"priority":7}"#);
        for same in [
            r#"{ "priority": 7, "params": {"list": [ {"b": "x", "a": 1}, 2 ]}, "kind": "tasks" }"#,
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"\u0078"},2]},"priority":7,"max_attempts":4}"#,
        ] {
            assert_eq!(of(same), job, "{same}");
        }
        for other in [
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},2]},"priority":8}"#,
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},3]},"priority":7}"#,
            r#"{"kind":"tasks","params":{"list":[2,{"a":1,"b":"x"}]},"priority":7}"#,
        ] {
            assert_ne!(of(other), job, "{other}");
        }
    }
}
