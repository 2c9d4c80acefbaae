//! Requests that are sent again because an answer was lost: their sender says how long ago the first one was sent.

use std::time::Duration;

use actix_web::HttpRequest;
use api::ASKED_MS_AGO;
use jiff::Timestamp;

use crate::clock::now;

/// The time since the request was sent first; zero for one that is sent for the first time.
pub(crate) fn asked_ago(request: &HttpRequest) -> Duration {
    let ms = request.headers().get(ASKED_MS_AGO).and_then(|ms| ms.to_str().ok()?.parse().ok());
    Duration::from_millis(ms.unwrap_or(0))
}

/// When a request that is sent again was sent first.
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
        assert_eq!(first_asked_at(&TestRequest::default().to_http_request()), None);
    }
}
