//! The payloads of a job's tasks.

use std::fmt;
use std::ops::Range;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// JSON values in one text, as they were written. A list of many small values takes at most five times the memory of its JSON;
/// separate values would take thirty times as much.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payloads {
    /// The values, separated by commas.
    text: String,
    /// End of each value in the text.
    ends: Vec<usize>,
}

impl Payloads {
    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The JSON of the value at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&str> {
        (place < self.len()).then(|| self.span(place..place + 1))
    }

    /// The JSON of each value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|place| self.span(place..place + 1))
    }

    /// The JSON array of the values at these places.
    ///
    /// # Panics
    /// There are no such places.
    #[must_use]
    pub fn array(&self, places: Range<usize>) -> String {
        format!("[{}]", self.span(places))
    }

    /// Bytes of memory of the values.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// The values at these places with the commas between them.
    fn span(&self, places: Range<usize>) -> &str {
        if places.is_empty() {
            return "";
        }
        let start = places.start.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
        &self.text[start..self.ends[places.end - 1]]
    }

    /// Adds a value.
    pub fn push(&mut self, value: &RawValue) {
        if !self.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(value.get());
        self.ends.push(self.text.len());
    }

    fn shrink(mut self) -> Self {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self
    }
}

impl FromIterator<Box<RawValue>> for Payloads {
    fn from_iter<T: IntoIterator<Item = Box<RawValue>>>(values: T) -> Self {
        let mut payloads = Self::default();
        values.into_iter().for_each(|value| payloads.push(&value));
        payloads.shrink()
    }
}

impl From<Vec<Box<RawValue>>> for Payloads {
    fn from(values: Vec<Box<RawValue>>) -> Self {
        values.into_iter().collect()
    }
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Payloads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for value in self.iter() {
            // Each value was a raw value before it was added.
            list.serialize_element(serde_json::from_str::<&RawValue>(value).map_err(serde::ser::Error::custom)?)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Payloads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Payloads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Payloads, A::Error> {
                let mut payloads = Payloads::default();
                while let Some(value) = values.next_element::<Box<RawValue>>()? {
                    payloads.push(&value);
                }
                Ok(payloads.shrink())
            }
        }

        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Payloads {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn values_come_back_as_they_were_written_one_by_one_and_in_arrays() {
        let payloads = read(r#" [ 1 , "a,b" , {"x": [1, 2]}, [] ,null]"#);
        let values = ["1", r#""a,b""#, r#"{"x": [1, 2]}"#, "[]", "null"];
        assert_eq!(payloads.iter().collect::<Vec<_>>(), values);
        assert_eq!(payloads.array(0..5), format!("[{}]", values.join(",")));
        assert_eq!(payloads.array(1..3), r#"["a,b",{"x": [1, 2]}]"#);
        assert_eq!(payloads.array(2..2), "[]");
        assert_eq!(serde_json::to_string(&payloads).expect("JSON"), payloads.array(0..5));
        assert_eq!((payloads.len(), payloads.is_empty(), read("[]").is_empty()), (5, false, true));
        assert!(serde_json::from_str::<Payloads>("{}").is_err());
    }

    #[test]
    fn a_million_payloads_of_one_byte_take_ten_bytes_each() {
        let json = format!("[{}1]", "1,".repeat(999_999));
        assert_eq!(read(&json).memory_bytes(), 1_999_999 + 8_000_000);
    }
}
