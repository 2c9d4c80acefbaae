//! `u128` as a decimal string: sums of primes pass 2^53 near 5.96e8, where a JSON number loses digits in half of all
//! clients. For `#[serde(with = "model::decimal")]`.

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes the value as a string of decimal digits.
///
/// # Errors
/// Those of the serializer.
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
