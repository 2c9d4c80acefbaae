//! Parameters of a query string, read one by one: those that are not known are named, and some may come more than once.

use std::str::FromStr;
use std::time::Duration;

use service::ApiError;

/// Entries of a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;

/// The most entries of a page.
const MAX_LIMIT: usize = 1_000;

/// The fields of a query string.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a query string that may have the fields of `known`.
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        let wrong = |message: String| ApiError::InvalidField { field: "query", message };
        let fields: Vec<(String, String)> =
            serde_urlencoded::from_str(query).map_err(|error| wrong(format!("is not readable: {error}")))?;
        if let Some((name, _)) = fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(wrong(format!("has no parameter {name:?}: it takes {}", known.join(", "))));
        }
        Ok(Self(fields))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A field that may be there once.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(ApiError::InvalidField { field: name, message: "is given more than once".to_owned() });
        }
        Ok(value)
    }

    /// A field that may be there once, as a value of its own.
    pub(super) fn parsed<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let invalid = |error: T::Err| ApiError::InvalidField { field: name, message: format!("is wrong: {error}") };
        self.one(name)?.map(|value| value.parse().map_err(invalid)).transpose()
    }
}

/// How many entries a page should have.
pub(super) fn page_limit(fields: &Fields) -> Result<usize, ApiError> {
    match fields.parsed("limit")? {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::InvalidField { field: "limit", message: format!("must be from 1 to {MAX_LIMIT}") }),
    }
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
