//! Whole numbers within bounds.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Reads a whole number from `LEAST` to `MOST`, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The value is no such number: the error names the bounds, not those of the target type.
pub fn read_whole<'de, const LEAST: u64, const MOST: u64, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u64>,
    D: Deserializer<'de>,
{
    struct Within<const LEAST: u64, const MOST: u64>;

    impl<const LEAST: u64, const MOST: u64> Visitor<'_> for Within<LEAST, MOST> {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from {LEAST} to {MOST}")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            let is_within = (LEAST..=MOST).contains(&number);
            if is_within { Ok(number) } else { Err(E::invalid_value(Unexpected::Unsigned(number), &self)) }
        }
    }

    let number = deserializer.deserialize_u64(Within::<LEAST, MOST>)?;
    T::try_from(number).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(number), &Within::<LEAST, MOST>))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_error;

    #[test]
    fn whatever_else_is_there_the_bounds_are_told() {
        let read = |json: &str| {
            let read = read_whole::<1, 9, u8, _>(&mut serde_json::Deserializer::from_str(json));
            read.map_err(|error| json_error("it", &error))
        };
        assert_eq!((read("1"), read("9")), (Ok(1), Ok(9)));
        for (json, shown) in
            [("0", "0"), ("10", "10"), ("-1", "-1"), ("\"x\"", "\"x\""), ("1.5", "1.5"), ("null", "null")]
        {
            assert_eq!(read(json), Err(format!("it must be a whole number from 1 to 9, but is {shown}")));
        }
    }
}
