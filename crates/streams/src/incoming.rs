//! Reads records of the topics of jobs from the consumer.

use std::time::Duration;

use model::TraceContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};

use crate::client::{Context, is_of_one_broker};
use crate::partitions::Partition;
use crate::quietly::quietly;
use crate::topics::Topics;

/// Most records of a batch.
const MAX_BATCH: usize = 4_000;
/// Most bytes of a batch, about.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// The header with the client's own name for a request.
const KEY_HEADER: &str = "idempotency-key";
/// The headers of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Records that are read together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<OwnedMessage>,
    /// Whether the brokers refuse to let some topic be read, which librdkafka reports once for a partition.
    pub(crate) is_refused: bool,
}

/// The available records, or the first that comes within `patience`.
pub(crate) fn poll(consumer: &BaseConsumer<Context>, mut patience: Duration) -> Result<Batch, KafkaError> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    while batch.records.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        match next(consumer, patience) {
            Some(Ok(record)) => {
                bytes += record.payload().map_or(0, <[u8]>::len);
                batch.records.push(record);
            }
            // The other topics are read all the same.
            Some(Err(error)) if is_refusal(&error) => batch.is_refused = true,
            Some(Err(error)) => return Err(error),
            None => break,
        }
        patience = Duration::ZERO;
    }
    Ok(batch)
}

fn is_refusal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}

/// The next record that comes within `patience`. librdkafka itself asks for the group's coordinator: a broker's refusal does not
/// matter if the group stores no offsets. Nor does a broker that is away while there are others: without all of them there is
/// another error.
pub(crate) fn next(consumer: &BaseConsumer<Context>, patience: Duration) -> Option<Result<OwnedMessage, KafkaError>> {
    loop {
        match consumer.poll(patience)? {
            Ok(record) => return Some(Ok(with_readable_headers(record.detach()))),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => (),
            Err(error) if is_of_one_broker(&error) => (),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The record without the headers whose names are not UTF-8.
fn with_readable_headers(record: OwnedMessage) -> OwnedMessage {
    let Some(headers) = record.headers() else { return record };
    let all: Vec<_> = (0..headers.count()).map(|place| header_at(headers, place)).collect();
    let is_whole = all.iter().all(Option::is_some);
    let kept = (!is_whole).then(|| {
        let readable = all.into_iter().flatten();
        readable.fold(OwnedHeaders::new(), |kept, header| kept.insert(header))
    });
    if kept.is_some() { record.replace_headers(kept) } else { record }
}

/// A header; `None` if its name is not UTF-8, at which the library panics. Brokers take any bytes for a name.
fn header_at(headers: &OwnedHeaders, place: usize) -> Option<Header<'_, &[u8]>> {
    quietly(|| headers.try_get(place)).flatten()
}

/// The partition of a record, if its topic is one of jobs.
pub(crate) fn partition_of(record: &OwnedMessage, topics: &Topics) -> Option<Partition> {
    Some((topics.priority_of(record.topic())?, record.partition()))
}

/// The values of all headers of a name.
fn header_values<'a>(record: &'a OwnedMessage, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    headers.filter(move |header| header.key.eq_ignore_ascii_case(name)).map(|header| header.value.unwrap_or_default())
}

/// The span that the record's headers name; `None` if they are absent or invalid, as in a request.
pub(crate) fn trace(record: &OwnedMessage) -> Option<TraceContext> {
    let mut parents = header_values(record, TRACEPARENT);
    let (parent, None) = (parents.next()?, parents.next()) else { return None };
    let states: Vec<_> =
        header_values(record, TRACESTATE).filter_map(|state| std::str::from_utf8(state).ok()).collect();
    TraceContext::parse(std::str::from_utf8(parent).ok()?, &states.join(","))
}

/// The client's own key of the job, for idempotency.
pub(crate) fn idempotency_key(record: &OwnedMessage) -> Result<Option<&str>, String> {
    let mut values = header_values(record, KEY_HEADER);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("the header {KEY_HEADER} is given more than once: give it once"));
    }
    std::str::from_utf8(value).map(Some).map_err(|_| format!("the header {KEY_HEADER} must be readable text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn record(headers: &[(&str, &str)]) -> OwnedMessage {
        let add = |all: OwnedHeaders, &(key, value): &(&str, &str)| all.insert(Header { key, value: Some(value) });
        let headers = headers.iter().fold(OwnedHeaders::new(), add);
        let time = rdkafka::Timestamp::CreateTime(0);
        OwnedMessage::new(None, None, "divvy.submit.5".to_owned(), time, 0, 0, Some(headers))
    }

    #[test]
    fn a_record_names_its_span_by_one_traceparent_and_any_number_of_tracestates() {
        let found = trace(&record(&[("traceparent", PARENT), ("tracestate", "a=1"), ("TraceState", "b=2")]));
        let found = found.expect("a span");
        assert_eq!((found.traceparent().as_str(), found.state.as_str()), (PARENT, "a=1,b=2"));
        for headers in [&[][..], &[("traceparent", "00-")], &[("traceparent", PARENT), ("traceparent", PARENT)]] {
            assert_eq!(trace(&record(headers)), None, "{headers:?}");
        }
    }

    #[test]
    fn a_key_is_the_value_of_its_header_whatever_its_case() {
        assert_eq!(idempotency_key(&record(&[("Idempotency-Key", "mine")])), Ok(Some("mine")));
        assert_eq!(idempotency_key(&record(&[])), Ok(None));
        let two = record(&[("idempotency-key", "mine"), ("Idempotency-Key", "mine")]);
        assert_eq!(
            idempotency_key(&two),
            Err("the header idempotency-key is given more than once: give it once".to_owned())
        );
    }
}
