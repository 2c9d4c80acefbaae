//! `u128` as a decimal string: sums of primes pass 2^53 near 5.96e8, where a JSON number loses digits in half of all
//! clients. For `#[serde(with = "model::decimal")]`.

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes the value as a string of decimal digits.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads a string of decimal digits.
///
/// # Errors
/// Anything but a string of digits below 2^128.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(de::Error::custom("expected a string of decimal digits"));
    }
    digits.parse().map_err(de::Error::custom)
}

/// Decimal strings for a value that may be absent. For `#[serde(with = "model::decimal::optional")]` with `default`.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Value(#[serde(with = "super")] u128);

    /// Writes the value, if there is one, as a string of decimal digits.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a string of decimal digits or null.
    ///
    /// # Errors
    /// Anything but null or a string of digits below 2^128.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u128>, D::Error> {
        Ok(Option::<Value>::deserialize(deserializer)?.map(|Value(value)| value))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Maybe(#[serde(with = "super::optional")] Option<u128>);

    #[test]
    fn optional_values_are_strings_of_digits_or_null() {
        for (value, json) in [(None, "null".to_owned()), (Some(u128::MAX), format!("\"{}\"", u128::MAX))] {
            assert_eq!(serde_json::to_string(&Maybe(value)).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<Maybe>(&json).expect("valid"), Maybe(value));
        }
        for wrong in ["7", r#""""#, r#""-1""#, r#""+1""#, r#""340282366920938463463374607431768211456""#] {
            assert!(serde_json::from_str::<Maybe>(wrong).is_err(), "{wrong}");
        }
    }
}
