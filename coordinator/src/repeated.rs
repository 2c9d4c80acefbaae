//! Requests that are sent again because an answer was lost: their sender says how long ago the first one was sent.

use std::time::{Duration, Instant};

use actix_web::{HttpMessage, HttpRequest};
use api::ASKED_MS_AGO;
use jiff::Timestamp;
use service::ApiError;

use crate::clock::now;

/// The instant at which this process began to pass a request on: it may send the request several times, and then answer it as the
/// leader.
#[derive(Debug)]
struct PassingSince(Instant);

/// Notes that the request is being passed on.
pub(crate) fn note_passing(request: &HttpRequest) {
    request.extensions_mut().insert(PassingSince(Instant::now()));
}

/// Time since the first sending of the request; zero if it is sent for the first time.
///
/// # Errors
/// The header is given more than once or is not a number.
pub(crate) fn asked_ago(request: &HttpRequest) -> Result<Duration, ApiError> {
    let mut headers = request.headers().get_all(ASKED_MS_AGO).filter(|ms| !ms.is_empty());
    let ms = headers.next().map(|ms| {
        ms.to_str().ok().and_then(|ms| ms.parse().ok()).ok_or_else(|| invalid("must be a number of milliseconds"))
    });
    let ms: u64 = ms.transpose()?.unwrap_or(0);
    if headers.next().is_some() {
        return Err(invalid("is given more than once: give it once"));
    }
    let passing_for = request.extensions().get::<PassingSince>().map_or(Duration::ZERO, |since| since.0.elapsed());
    Ok(Duration::from_millis(ms).saturating_add(passing_for))
}

/// Values of the header of a request that is passed on: the time since the first sending. A client's wrong values stay as they are,
/// since the leader refuses them where the header counts.
pub(crate) fn passed_on(request: &HttpRequest) -> Vec<Vec<u8>> {
    match asked_ago(request) {
        Ok(ago) => vec![ago.as_millis().to_string().into_bytes()],
        Err(_) => request.headers().get_all(ASKED_MS_AGO).map(|ms| ms.as_bytes().to_vec()).collect(),
    }
}

/// Instant of the first sending of a repeated request; `None` if the request is sent for the first time.
///
/// # Errors
/// As [`asked_ago`]; also if the instant is before all times.
pub(crate) fn first_asked_at(request: &HttpRequest) -> Result<Option<Timestamp>, ApiError> {
    let ago = asked_ago(request)?;
    if ago.is_zero() {
        return Ok(None);
    }
    now().at.checked_sub(ago).map(Some).map_err(|_| invalid("is too long ago"))
}

fn invalid(message: &str) -> ApiError {
    ApiError::InvalidField { field: "Divvy-Asked-Ms-Ago", message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_request_without_a_time_is_sent_for_the_first_time_and_a_wrong_time_is_refused() {
        let asked = |ms: &str| TestRequest::default().insert_header((ASKED_MS_AGO, ms)).to_http_request();
        assert_eq!(asked_ago(&asked("1500")).expect("a number"), Duration::from_millis(1_500));
        assert!(first_asked_at(&asked("1500")).expect("a number").is_some_and(|at| at < now().at));
        for request in [asked(""), asked("0"), TestRequest::default().to_http_request()] {
            assert_eq!(first_asked_at(&request).expect("valid"), None);
        }
        let twice = TestRequest::default().append_header((ASKED_MS_AGO, "1")).append_header((ASKED_MS_AGO, "2"));
        for (request, fault) in [
            (asked("-1"), "must be a number of milliseconds"),
            (asked("x"), "must be a number of milliseconds"),
            (asked("18446744073709551615"), "is too long ago"),
            (twice.to_http_request(), "is given more than once: give it once"),
        ] {
            let refused = first_asked_at(&request).expect_err(fault).to_string();
            assert_eq!(refused, format!("Divvy-Asked-Ms-Ago {fault}"));
        }
        assert_eq!(passed_on(&asked("1500")), [b"1500"]);
        assert_eq!(passed_on(&asked("x")), [b"x"], "the leader refuses it");
    }

    #[test]
    fn the_time_for_which_this_process_passes_a_request_on_is_added() {
        let request = TestRequest::default().insert_header((ASKED_MS_AGO, "1500")).to_http_request();
        let since = Instant::now().checked_sub(Duration::from_secs(5)).expect("the machine runs for longer");
        request.extensions_mut().insert(PassingSince(since));
        assert!(asked_ago(&request).expect("a number") >= Duration::from_millis(6_500));
        note_passing(&request);
        assert!(request.extensions().get::<PassingSince>().is_some_and(|noted| noted.0 > since));
    }
}
