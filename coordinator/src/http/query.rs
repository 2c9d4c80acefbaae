//! Query parameters that several lists share.

use std::str::FromStr;
use std::time::Duration;

use service::{ApiError, Query};

/// Entries of a page without a limit in the query.
const DEFAULT_LIMIT: usize = 100;

/// The most characters of a wrong limit that its error repeats.
const MAX_SHOWN_CHARS: usize = 32;

/// The most entries of a page.
pub(super) const MAX_LIMIT: usize = 1_000;

/// The number of entries of a page.
pub(super) fn page_limit(query: &Query) -> Result<usize, ApiError> {
    limit_or(query, DEFAULT_LIMIT)
}

/// The number of entries of a page, `default` without a limit in the query.
pub(super) fn limit_or(query: &Query, default: usize) -> Result<usize, ApiError> {
    let Some(text) = query.one("limit")? else { return Ok(default) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
        let message = format!("must be a whole number from 1 to {MAX_LIMIT}, but is {shown:?}");
        ApiError::InvalidField { field: "limit", message }
    })
}

/// The token of the page before, at which a page begins.
pub(super) fn page_token<T: FromStr>(query: &Query) -> Result<Option<T>, ApiError> {
    query.one("page_token")?.map(|token| token.parse().map_err(|_| invalid_page_token())).transpose()
}

pub(super) fn invalid_page_token() -> ApiError {
    let message = "is none that this list has given: leave it out for the first page".to_owned();
    ApiError::InvalidField { field: "page_token", message }
}

/// A time as `30s`, `500ms` or a number of seconds, up to `most`.
pub(super) fn seconds(field: &'static str, text: &str, most: Duration) -> Result<Duration, ApiError> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1e-3),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let time = number.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
    time.filter(|time| *time <= most).ok_or_else(|| ApiError::InvalidField {
        field,
        message: format!("must be a time from 0s to {}s, such as 30s", most.as_secs()),
    })
}
