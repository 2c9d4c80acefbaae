//! Events as records: CloudEvents in binary mode (CloudEvents 1.0, Kafka protocol binding).

use model::JobEvent;
use rdkafka::message::{Header, OwnedHeaders};

/// Source of the events, as a URI reference.
const SOURCE: &str = "/v1/jobs";

/// The headers of an event.
pub(crate) fn headers(event: &JobEvent, job: &str) -> OwnedHeaders {
    let (id, kind, time) = (event.seq.to_string(), format!("divvy.job.{}", event.kind.as_str()), event.at.to_string());
    // All numbers have the same length, so that they sort as text.
    let sequence = format!("{:020}", event.seq);
    [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", SOURCE),
        ("ce_type", &kind),
        ("ce_time", &time),
        ("ce_subject", job),
        ("ce_sequence", &sequence),
        ("content-type", "application/json"),
    ]
    .into_iter()
    .fold(OwnedHeaders::new_with_capacity(8), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}
