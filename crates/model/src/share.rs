//! Shares of a whole.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Parts of a whole.
const PARTS: u32 = 1_000_000;

/// A share above 0 and up to 1, in millionths; a number in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// A number that is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 0.000001 to 1")]
pub struct InvalidShare;

impl Share {
    /// The whole.
    pub const ALL: Self = Self(PARTS);

    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(PARTS)
    }

    /// Whether this share of all numbers includes `number`; the frequency is exact for evenly spread numbers.
    #[must_use]
    pub fn includes(self, number: u64) -> bool {
        // The product's upper half: `number` as a part of a million.
        (u128::from(number) * u128::from(PARTS)) >> 64 < u128::from(self.0)
    }
}

impl TryFrom<f64> for Share {
    type Error = InvalidShare;

    fn try_from(share: f64) -> Result<Self, InvalidShare> {
        let parts = (share * f64::from(PARTS)).round();
        if !(1.0..).contains(&parts) || share > 1.0 {
            return Err(InvalidShare);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to a million")]
        Ok(Self(parts as u32))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_f64().fmt(f)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_numbers_above_0_and_up_to_1() {
        for wrong in [0.0, -0.5, 1.01, 1.000_000_1, f64::NAN, f64::INFINITY, 1e-9] {
            assert!(Share::try_from(wrong).is_err(), "{wrong}");
        }
        let share: Share = serde_json::from_str("0.05").expect("a share");
        assert_eq!(serde_json::to_string(&share).expect("JSON"), "0.05");
        assert_eq!(serde_json::from_str::<Share>("1").expect("the whole"), Share::ALL);
    }

    #[test]
    fn a_share_includes_as_many_of_evenly_spread_numbers() {
        let included = |share: f64| {
            let share = Share::try_from(share).expect("a share");
            // The middles of a thousand parts.
            (0..1000_u64).filter(|index| share.includes((2 * index + 1) * (u64::MAX / 2000))).count()
        };
        assert_eq!([included(1.0), included(0.5), included(0.05)], [1000, 500, 50]);
        assert!(Share::ALL.includes(u64::MAX) && Share::ALL.includes(0));
    }
}
