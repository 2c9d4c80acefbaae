//! The heads of requests and answers that are passed on.

/// Headers of one connection (RFC 9110, 7.6.1), and those that the client of the passed-on request writes. This coordinator has
/// already compared `Origin` with the host of the request.
const NOT_PASSED_ON: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "content-length",
    "origin",
    api::ASKED_MS_AGO,
];

/// Whether a header is passed on as it is. The name is in lower case.
pub(super) fn is_passed_on(name: &str) -> bool {
    !NOT_PASSED_ON.contains(&name)
}
