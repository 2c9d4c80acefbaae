//! Parameters of a query string, each named in its error.

use std::num::IntErrorKind;

use model::NumberRange;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The range that `a` and `b` of a query string name.
///
/// # Errors
/// One of them is missing, doubled, no integer from 0 to 2^64−1, or `a` is above `b`.
pub fn range_from_query(query: &str) -> Result<NumberRange, ApiError> {
    let parameters: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| ApiError::InvalidField { field: "query", message: format!("is not readable: {error}") })?;
    let (a, b) = (integer(&parameters, "a")?, integer(&parameters, "b")?);
    let message = || format!("must not be above b, but {a} is above {b}");
    NumberRange::new(a, b).map_err(|_| ApiError::InvalidField { field: "a", message: message() })
}

/// A struct from a query string.
///
/// # Errors
/// A field is missing, doubled or has no valid value.
pub fn query_from<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query)
        .map_err(|error| ApiError::InvalidField { field: "query", message: format!("is not valid: {error}") })
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
    // `u64::from_str` also takes a leading plus, which a query string means as a space.
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
    use super::*;

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
