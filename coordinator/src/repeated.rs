//! Requests that are sent again because an answer was lost: their sender says how long ago the first one was sent.

use std::time::{Duration, Instant};

use actix_web::{HttpMessage, HttpRequest};
use api::ASKED_MS_AGO;
use jiff::Timestamp;

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
pub(crate) fn asked_ago(request: &HttpRequest) -> Duration {
    let ms = request.headers().get(ASKED_MS_AGO).and_then(|ms| ms.to_str().ok()?.parse().ok());
    let passing_for = request.extensions().get::<PassingSince>().map_or(Duration::ZERO, |since| since.0.elapsed());
    Duration::from_millis(ms.unwrap_or(0)) + passing_for
}

/// Instant of the first sending of a repeated request; `None` if the request is sent for the first time.
pub(crate) fn first_asked_at(request: &HttpRequest) -> Option<Timestamp> {
    let ago = asked_ago(request);
    if ago.is_zero() { None } else { now().at.checked_sub(ago).ok() }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_request_without_a_readable_time_is_sent_for_the_first_time() {
        let asked = |ms: &str| TestRequest::default().insert_header((ASKED_MS_AGO, ms)).to_http_request();
        assert_eq!(asked_ago(&asked("1500")), Duration::from_millis(1_500));
        assert!(first_asked_at(&asked("1500")).is_some_and(|at| at < now().at));
        for ms in ["", "0", "-1", "x", "18446744073709551615"] {
            assert_eq!(first_asked_at(&asked(ms)), None, "{ms}");
        }
        let passed_on = TestRequest::default().to_http_request();
        assert_eq!(first_asked_at(&passed_on), None);
    }

    #[test]
    fn the_time_for_which_this_process_passes_a_request_on_is_added() {
        let request = TestRequest::default().insert_header((ASKED_MS_AGO, "1500")).to_http_request();
        let since = Instant::now().checked_sub(Duration::from_secs(5)).expect("the machine runs for longer");
        request.extensions_mut().insert(PassingSince(since));
        assert!(asked_ago(&request) >= Duration::from_millis(6_500));
        note_passing(&request);
        assert!(request.extensions().get::<PassingSince>().is_some_and(|noted| noted.0 > since));
    }
}
