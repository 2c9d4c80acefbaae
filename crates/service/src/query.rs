//! Parameters of a query string, each named in its error. The table of routes refuses unknown parameters before the handler.

use std::fmt::Display;
use std::num::IntErrorKind;
use std::str::FromStr;

use actix_web::http::Uri;
use model::NumberRange;

use crate::ApiError;
use crate::encoding::{is_utf8, shown};

/// The parameters of a query string, some of which may come more than once.
#[derive(Clone, Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string. The guard of a listener has checked that it is UTF-8.
    ///
    /// # Errors
    /// The query string is not valid.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let unreadable = |error| invalid("query", format!("is not readable: {error}"));
        serde_urlencoded::from_str(query).map(Self).map_err(unreadable)
    }

    /// Whether there is no parameter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that may occur once.
    ///
    /// # Errors
    /// The parameter occurs more than once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(invalid(name, "is given more than once: give it once"));
        }
        Ok(value)
    }

    /// A parameter that may occur once, as a `T`.
    ///
    /// # Errors
    /// The parameter occurs more than once, or is no `T`.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: Display,
    {
        let read = |value: &str| value.parse().map_err(|error| invalid(name, parse_message(name, value, &error)));
        self.one(name)?.map(read).transpose()
    }

    /// A parameter that must occur once, as a `T`.
    ///
    /// # Errors
    /// The parameter is missing, occurs more than once, or is no `T`.
    pub fn demanded<T: FromStr>(&self, name: &str) -> Result<T, ApiError>
    where
        T::Err: Display,
    {
        self.parsed(name)?.ok_or_else(|| invalid(name, "is missing"))
    }

    /// Refuses parameters that are not in `known`.
    pub(crate) fn demand_known(&self, known: &[&str]) -> Result<(), ApiError> {
        let Some((name, _)) = self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) else { return Ok(()) };
        let name = if name.is_empty() { "a parameter without a name" } else { name };
        let takes = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
        Err(invalid(name, format!("is no parameter here: this path takes {takes}")))
    }
}

/// Refuses a target whose path or parameters are not UTF-8 after decoding: decoders would replace invalid bytes, and the handler
/// would get another name than the client's.
pub(crate) fn demand_utf8(target: &Uri) -> Result<(), ApiError> {
    let refused = |name: &str, text: &str| {
        Err(invalid(name, format!("must be UTF-8 when it is decoded, but is not: {}", shown(text))))
    };
    if !is_utf8(target.path()) {
        return refused("path", target.path());
    }
    match target.query().unwrap_or_default().split('&').find(|parameter| !is_utf8(parameter)) {
        None => Ok(()),
        Some(parameter) => {
            let name = parameter.split('=').next().filter(|name| is_utf8(name));
            refused(name.unwrap_or("query"), parameter)
        }
    }
}

fn invalid(name: &str, message: impl Into<String>) -> ApiError {
    ApiError::InvalidParameter { name: shown(name), message: message.into() }
}

/// The message about a wrong value. The messages of the standard library are meant for programmers.
fn parse_message(name: &str, value: &str, error: &impl Display) -> String {
    let error = error.to_string();
    if let Some(predicate) = error.strip_prefix(name).and_then(|error| error.strip_prefix(' ')) {
        return predicate.to_owned();
    }
    model::parse_error(&shown(value), &error).unwrap_or_else(|| format!("is wrong: {error}"))
}

/// The range that `a` and `b` of a query string name.
///
/// # Errors
/// `a` or `b` is missing, doubled or no integer from 0 to 2^64−1, or `a` is above `b`.
pub fn range_from_query(query: &str) -> Result<NumberRange, ApiError> {
    let Query(parameters) = Query::parse(query)?;
    let (a, b) = (integer(&parameters, "a")?, integer(&parameters, "b")?);
    let message = || format!("must not be above b, but {a} is above {b}");
    NumberRange::new(a, b).map_err(|_| ApiError::InvalidField { field: "a", message: message() })
}

fn integer(parameters: &[(String, String)], field: &'static str) -> Result<u64, ApiError> {
    const ALLOWED: &str = "an integer from 0 to 18446744073709551615 (2^64-1)";
    let invalid = |message: String| ApiError::InvalidField { field, message };
    let mut values = parameters.iter().filter(|(name, _)| name == field).map(|(_, value)| value);
    let Some(value) = values.next() else {
        return Err(invalid(format!("is missing: give {field}={ALLOWED}")));
    };
    if values.next().is_some() {
        return Err(invalid(format!("is given more than once: give it once, {ALLOWED}")));
    }
    let shown: String = value.chars().take(32).collect();
    let malformed = || invalid(format!("must be {ALLOWED}, but is {shown:?}"));
    // `u64::from_str` also takes a leading plus, which is a space in a query string.
    if !value.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(malformed());
    }
    value.parse().map_err(|error: std::num::ParseIntError| {
        if *error.kind() == IntErrorKind::PosOverflow {
            invalid(format!("must be {ALLOWED}, but is larger: {shown}"))
        } else {
            malformed()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_parameter_is_named_as_it_was_written_and_numbers_in_plain_words() {
        let query = Query::parse("limit=0&n=-1&n=2&m=99999999999&w=x&lim%20it=1").expect("readable");
        let wrong = |name| query.parsed::<NonZeroU32>(name).expect_err(name).to_string();
        assert_eq!(wrong("limit"), "limit must be at least 1, but is 0");
        assert_eq!(wrong("n"), "n is given more than once: give it once");
        assert_eq!(wrong("m"), "m is too large: 99999999999");
        assert_eq!(wrong("w"), "w must be a whole number, but is \"x\"");
        assert_eq!(query.demanded::<u32>("absent").expect_err("absent").to_string(), "absent is missing");
        let truth = query.parsed::<bool>("w").expect_err("no truth").to_string();
        assert_eq!(truth, "w must be true or false, but is \"x\"");
        let unknown = query.demand_known(&["limit", "n", "m", "w"]).expect_err("unknown").to_string();
        assert_eq!(unknown, "lim it is no parameter here: this path takes limit, n, m, w");
        assert_eq!(query.parsed::<u32>("absent").expect("absent"), None);
        let nameless = Query::parse("=1").expect("readable").demand_known(&[]).expect_err("unknown").to_string();
        assert_eq!(nameless, "a parameter without a name is no parameter here: this path takes no parameters");
    }

    #[test]
    fn what_is_not_utf8_is_refused_and_not_replaced() {
        for (target, name, shown) in [
            ("/jobs?limit=1&tag=%ff", "tag", "tag=%ff"),
            ("/jobs?%C3=1", "query", "%C3=1"),
            ("/results/%80?tag=%ff", "path", "/results/%80"),
        ] {
            let error = demand_utf8(&Uri::from_static(target)).expect_err(target).to_string();
            assert_eq!(error, format!("{name} must be UTF-8 when it is decoded, but is not: {shown}"));
        }
        assert!(demand_utf8(&Uri::from_static("/results/%C3%A9?tag=%F0%9F%98%80&tag=%")).is_ok());
    }

    fn message(query: &str) -> String {
        range_from_query(query).expect_err(query).to_string()
    }

    #[test]
    fn a_and_b_come_in_any_order_among_other_parameters() {
        let range = NumberRange::new(0, u64::MAX).expect("0 <= max");
        assert_eq!(range_from_query("x=1&b=18446744073709551615&a=0").expect("valid"), range);
        assert_eq!(range_from_query("a=7&b=%37").expect("valid"), NumberRange::new(7, 7).expect("7 <= 7"));
    }

    #[test]
    fn every_mistake_names_the_parameter_and_what_is_allowed() {
        let allowed = "an integer from 0 to 18446744073709551615 (2^64-1)";
        assert_eq!(message("b=2"), format!("a is missing: give a={allowed}"));
        assert_eq!(message(""), format!("a is missing: give a={allowed}"));
        assert_eq!(message("a=1&b=2&b=3"), format!("b is given more than once: give it once, {allowed}"));
        for value in ["", "x", "-1", "1.0", "1e3", "0x10", " 1", "+1", "%2B1", "١"] {
            assert!(
                message(&format!("a={value}&b=2")).starts_with(&format!("a must be {allowed}, but is ")),
                "{value}"
            );
        }
        let over = message("a=0&b=18446744073709551616");
        assert_eq!(over, format!("b must be {allowed}, but is larger: 18446744073709551616"));
        assert_eq!(message("a=3&b=2"), "a must not be above b, but 3 is above 2");
    }
}
