//! Request bodies with a bound on size, time and memory: actix-web waits for a slow body without a limit.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use model::{NamedFields, json_error_at, json_place};
use serde::de::DeserializeOwned;

use crate::ApiError;
use crate::budget::{BodyBudget, Reservation};
use crate::encoding::is_utf8;

/// Default bound on a body: a heartbeat with all the labels it may have.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest body that is parsed on the serving thread: parsing it takes about a millisecond.
const WORKED_ON_AT_ONCE_BYTES: usize = 256 * 1024;

/// Bound on the time until a body has arrived.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Mark that some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A body, with its part of the budget for as long as it is held.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    reservation: Reservation,
}

impl Body {
    /// The bytes, which share the memory that the budget counts.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a JSON body of at most [`MAX_BODY_BYTES`] within 5 s.
///
/// # Errors
/// The body is too long, too slow, cut off or not the JSON of a `T`.
pub async fn read_json<T: DeserializeOwned>(payload: Payload) -> Result<T, ApiError> {
    parse_json(&read_small(payload).await?)
}

/// As [`read_json`], for a body that may be left out.
///
/// # Errors
/// The body is too long, too slow, cut off or not the JSON of a `T`.
pub async fn read_json_or_default<T: DeserializeOwned + Default>(payload: Payload) -> Result<T, ApiError> {
    let body = read_small(payload).await?;
    if body.is_empty() { Ok(T::default()) } else { Ok(parse_json::<Option<T>>(&body)?.unwrap_or_default()) }
}

/// Like [`read_json`], with lone surrogates (`"\ud800"`) in its strings replaced by U+FFFD: for workers' reports, whose text may
/// be any program's.
///
/// # Errors
/// The body is too long, too slow, cut off or not the JSON of a `T`.
pub async fn read_json_leniently<T: DeserializeOwned>(payload: Payload) -> Result<T, ApiError> {
    parse_json_leniently(&read_small(payload).await?)
}

async fn read_small(payload: Payload) -> Result<Bytes, ApiError> {
    let reading = payload.to_bytes_limited(MAX_BODY_BYTES);
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| ApiError::BodyTimeout(BODY_TIMEOUT))?
        .map_err(|_| ApiError::BodyTooLarge(MAX_BODY_BYTES))?
        .map_err(|error| unread(error.as_error()))
}

/// Reads a body of at most `max_bytes` within `timeout`. Its memory is reserved from `budget`: all of it before the first byte
/// is read if the request has a length, otherwise as the bytes arrive.
///
/// # Errors
/// The body is too long, too slow or cut off, or the budget is exhausted.
pub async fn read_body(
    request: &HttpRequest,
    payload: Payload,
    max_bytes: usize,
    timeout: Duration,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    if length > max_bytes {
        return Err(ApiError::BodyTooLarge(max_bytes));
    }
    tokio::time::timeout(timeout, collect(payload, length, max_bytes, budget))
        .await
        .map_err(|_| ApiError::BodyTimeout(timeout))?
}

async fn collect(mut payload: Payload, length: usize, max_bytes: usize, budget: &BodyBudget) -> Result<Body, ApiError> {
    let mut reservation = budget.reserve_nothing();
    reservation.extend(length)?;
    let mut bytes = BytesMut::with_capacity(length);
    while let Some(part) = payload.next().await {
        let part = part.map_err(body_error)?;
        let needed = bytes.len() + part.len();
        if needed > max_bytes {
            return Err(ApiError::BodyTooLarge(max_bytes));
        }
        if needed > bytes.capacity() {
            // The buffer grows by doubling, so that each byte is moved only a few times; the reservation equals the allocation.
            let capacity = needed.max(bytes.capacity().saturating_mul(2).min(max_bytes));
            reservation.extend(capacity)?;
            bytes.reserve(capacity - bytes.len());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Body { bytes: bytes.freeze(), reservation })
}

/// The answer to a body that could not be read to its end.
#[must_use]
pub fn body_error(error: PayloadError) -> ApiError {
    unread(Some(&error))
}

fn unread(error: Option<&PayloadError>) -> ApiError {
    let message = if matches!(error, Some(PayloadError::Incomplete(_) | PayloadError::Io(_))) {
        "it is cut off: the connection ended before all of it came, or a chunk of it is malformed"
    } else if matches!(error, Some(PayloadError::EncodingCorrupted)) {
        "its chunks are not as HTTP/1.1 has them"
    } else {
        "it cannot be read to its end"
    };
    ApiError::InvalidBody { field: None, message: message.to_owned() }
}

/// Processes a body: a short body on this thread, a long body on another thread, so that no other request waits.
///
/// # Errors
/// The errors of `work`.
pub async fn with_body<T: Send + 'static>(
    body: Body,
    work: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    with_body_counted(body, move |body| Ok((work(body)?, 0))).await.map(|(result, _)| result)
}

/// As [`with_body`], for a result that takes memory too: `work` says how many bytes. They take the place of the body's own
/// in the budget until the reservation is dropped.
///
/// # Errors
/// The errors of `work`, or the budget is exhausted.
pub async fn with_body_counted<T: Send + 'static>(
    body: Body,
    work: impl FnOnce(&[u8]) -> Result<(T, usize), ApiError> + Send + 'static,
) -> Result<(T, Reservation), ApiError> {
    let (length, budget) = (body.len(), body.reservation.budget().clone());
    let work = move || {
        let (result, result_bytes) = work(&body)?;
        let Body { bytes, mut reservation } = body;
        drop(bytes);
        reservation.resize(result_bytes)?;
        Ok((result, reservation))
    };
    if length <= WORKED_ON_AT_ONCE_BYTES { work() } else { budget.work(work).await }
}

/// Parses a body. It and every struct in it must be JSON objects. A byte order mark before it is skipped.
///
/// # Errors
/// The body is not the JSON of a `T`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut parser = serde_json::Deserializer::from_slice(body);
    let parsed = T::deserialize(NamedFields(&mut parser)).and_then(|parsed| parser.end().map(|()| parsed));
    // Tracking the path costs time: only an invalid body is parsed with its path.
    parsed.map_err(|error| {
        let mut again = serde_json::Deserializer::from_slice(body);
        let path = serde_path_to_error::deserialize::<_, T>(NamedFields(&mut again))
            .err()
            .map(|error| error.path().to_string());
        // A path without a field is ".", or ends in "?".
        let is_name =
            |path: &str| path.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-[]".contains(&c)) && path != ".";
        let place = json_place(&path.filter(|path| is_name(path)).unwrap_or_default(), &error);
        let message = json_error_at(if place.is_empty() { "it" } else { &place }, &error);
        let field = Some(place).filter(|place| !place.is_empty() && is_name(place));
        ApiError::InvalidBody { field, message }
    })
}

/// Parses the body of a form that is no file (`application/x-www-form-urlencoded`).
///
/// # Errors
/// The body is not UTF-8, or not the form of a `T`.
pub fn parse_form<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::InvalidBody { field: None, message };
    let text = std::str::from_utf8(body).ok().filter(|text| is_utf8(text));
    let text = text.ok_or_else(|| invalid("it must be UTF-8 when it is decoded, but is not".to_owned()))?;
    serde_urlencoded::from_str(text).map_err(|error| {
        let error = error.to_string();
        match error.strip_prefix("missing field ") {
            Some(field) => invalid(format!("it has no field {}", field.trim_matches('`'))),
            None => invalid(format!("it is no form: {error}")),
        }
    })
}

/// Parses a body like [`parse_json`], with lone surrogates and invalid UTF-8 replaced by U+FFFD.
///
/// # Errors
/// The body is not the JSON of a `T`.
pub fn parse_json_leniently<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let text = String::from_utf8_lossy(body);
    parse_json(replace_lone_surrogates(&text).as_bytes())
}

/// The JSON with all unpaired escapes `\uD800` to `\uDFFF` replaced.
fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let (mut replaced, mut kept, mut rest) = (String::new(), 0, 0);
    while let Some(found) = json[rest..].find('\\') {
        let at = rest + found;
        let is_low = |unit: u16| (0xDC00..=0xDFFF).contains(&unit);
        rest = match escaped_unit(&json[at..]) {
            Some(0xD800..=0xDBFF) if escaped_unit(&json[at + 6..]).is_some_and(is_low) => at + 12,
            Some(0xD800..=0xDFFF) => {
                replaced.push_str(&json[kept..at]);
                replaced.push('\u{FFFD}');
                kept = at + 6;
                kept
            }
            Some(_) => at + 6,
            // The escaped character may itself be a backslash. A text that ends here is refused by the parser.
            None => at + 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[kept..]);
    Cow::Owned(replaced)
}

/// The unit of UTF-16 that a text begins with as an escape.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    // `from_str_radix` would take a sign.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use api::{Completion, JobRequest};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Report {
        error: String,
    }

    fn lenient(body: &str) -> String {
        parse_json_leniently::<Report>(body.as_bytes()).expect(body).error
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        assert_eq!(lenient(r#"{"error": "a\ud800b"}"#), "a\u{FFFD}b");
        assert_eq!(lenient(r#"{"error": "\udc00\uD83D\uDE00"}"#), "\u{FFFD}\u{1F600}");
        assert_eq!(lenient(r#"{"error": "\ud83d\ud83d\ude00é"}"#), "\u{FFFD}\u{1F600}é");
        assert_eq!(lenient(r#"{"error": "\\ud800 \\\ud800"}"#), "\\ud800 \\\u{FFFD}");
        assert!(parse_json::<Report>(br#"{"error": "\ud800"}"#).is_err());
        assert!(parse_json_leniently::<Report>(br#"{"error": "\"#).is_err());
        assert!(parse_json_leniently::<Report>(b"{\"error\": \"\\\xC3").is_err());
        let raw = parse_json_leniently::<Report>(b"{\"error\": \"\xED\xA0\x80\"}").expect("valid");
        assert!(raw.error.chars().all(|c| c == '\u{FFFD}'), "{raw:?}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_an_array_is_no_object() {
        let report = parse_json::<Report>(b"\xEF\xBB\xBF{\"error\": \"x\"}").expect("valid");
        assert_eq!(report.error, "x");
        let error = parse_json::<Report>(b" [\"x\"]").expect_err("an array").to_string();
        assert_eq!(error, "the body is not valid: it must be an object, but is an array (line 1, column 1)");
    }

    #[test]
    fn a_form_is_of_utf8_and_has_its_fields() {
        assert_eq!(parse_form::<Report>(b"error=%C3%A9").expect("valid").error, "\u{e9}");
        let wrong = |form: &[u8]| parse_form::<Report>(form).expect_err("no form").to_string();
        assert_eq!(wrong(b"other=1"), "the body is not valid: it has no field error");
        for form in [&b"error=%ff"[..], b"error=\xff"] {
            assert_eq!(wrong(form), "the body is not valid: it must be UTF-8 when it is decoded, but is not");
        }
    }

    #[test]
    fn structs_come_from_objects_at_every_depth() {
        let job = |fields: &str| {
            let body = format!(r#"{{"kind": "count-primes", "params": {{"a": 1, "b": "2"}}{fields}}}"#);
            parse_json::<JobRequest>(body.as_bytes())
        };
        let full = r#", "priority": 9, "tags": {"a": "b"}, "timeout": {"job_seconds": 5}, "max_attempts": 2"#;
        let parsed = job(full).expect("valid");
        assert_eq!((parsed.params.get(), parsed.max_attempts.get()), (r#"{"a": 1, "b": "2"}"#, 2));
        for (wrong, field) in [
            (r#", "timeout": [5]"#, "timeout"),
            (r#", "requires": []"#, "requires"),
            (r#", "affinity": [{}]"#, "affinity"),
        ] {
            let error = job(wrong).expect_err(wrong).to_string();
            assert!(error.contains(&format!(": {field} must be an object, but is an array")), "{error}");
        }
        let report = r#"{"results": [1, "x", {"y": [2]}], "value": "18446744073709551616"}"#;
        let report = parse_json::<Completion>(report.as_bytes()).expect("valid");
        assert_eq!((report.results.len(), report.value), (3, Some(1 << 64)));
    }

    #[test]
    fn the_wrong_field_is_named_and_nothing_may_follow() {
        let wrong = parse_json::<JobRequest>(br#"{"kind": "sleep", "params": {}, "timeout": {"job_seconds": "x"}}"#);
        let error = wrong.expect_err("no number").to_string();
        let expected = r#"timeout.job_seconds must be a whole number from 1 to 4294967295, but is "x""#;
        assert!(error.starts_with(&format!("the body is not valid: {expected} (line 1, ")), "{error}");
        let error = parse_json::<Report>(br#"{"error": "why"} {}"#).expect_err("two values").to_string();
        assert!(error.starts_with("the body is not valid: it is no JSON: something follows its end"), "{error}");
    }

    #[test]
    fn a_budget_counts_long_bodies_only_and_gets_back_what_a_permit_held() {
        let budget = BodyBudget::new(1 << 20);
        let mut reservation = budget.reserve_nothing();
        reservation.extend(64 * 1024).expect("uncounted");
        assert_eq!(budget.free_bytes(), 1 << 20);
        reservation.extend(1 << 20).expect("all of it");
        reservation.extend(1 << 19).expect("less than before");
        assert_eq!(budget.free_bytes(), 0);
        budget.reserve_nothing().extend(64 * 1024).expect("uncounted");
        let refused = budget.reserve_nothing().extend(64 * 1024 + 1);
        assert!(matches!(refused, Err(ApiError::Unavailable(_))), "{refused:?}");
        reservation.resize(1 << 19).expect("half of it");
        assert_eq!(budget.free_bytes(), 1 << 19);
        let refused = reservation.resize((1 << 20) + 1);
        assert!(matches!(refused, Err(ApiError::InvalidBody { .. })), "it never fits: {refused:?}");
        drop(reservation);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }

    #[tokio::test]
    async fn what_a_long_body_becomes_is_counted_until_it_is_dropped() {
        let budget = BodyBudget::new(1 << 20);
        let long = |budget: &BodyBudget| {
            let mut reservation = budget.reserve_nothing();
            reservation.extend(300 << 10).expect("room");
            Body { bytes: vec![b'1'; 300 << 10].into(), reservation }
        };
        let (length, held) = with_body_counted(long(&budget), |body| Ok((body.len(), 700 << 10))).await.expect("room");
        assert_eq!((length, budget.free_bytes()), (300 << 10, 324 << 10));
        let refused = with_body_counted(long(&budget), |_| Ok(((), 325 << 10))).await;
        assert!(matches!(refused, Err(ApiError::Unavailable(_))), "{refused:?}");
        drop(held);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }
}
