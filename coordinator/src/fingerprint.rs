//! Fingerprints recognize a request that submits the same job again, even where its bytes differ.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use api::ParsedJob;
use model::JobOptions;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Hashes that are compared with those of the job that was accepted under the same id or key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprints {
    /// Hash of the job.
    pub(crate) job: [u8; 32],
    /// Hash of the request's body, which the first release stored.
    pub(crate) body: [u8; 32],
}

/// A hash of a job that does not depend on the order of its fields, on white space or on defaults that are spelled out.
pub(crate) fn fingerprint(job: &ParsedJob) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    let JobOptions {
        priority,
        tags,
        affinity,
        requires,
        max_attempts,
        timeout,
        output,
        verify,
        chunk_size: _,
        submitted_by: _,
        is_admitted: _,
        trace: _,
    } = &job.options;
    let options = json!([priority, tags, affinity, requires, max_attempts, timeout, output]);
    add(job.kind.as_str());
    add(&options.to_string());
    texts(job.work.identity.get()).iter().for_each(|text| add(text));
    // Only for a job that is verified: any other job keeps the fingerprint of the first release.
    if let Some(share) = verify {
        add(&format!("verify {share}"));
    }
    for payload in job.work.payloads.iter() {
        texts(payload).iter().for_each(|text| add(text));
    }
    hash.finalize().into()
}

/// The texts that stand for a JSON value: its canonical one and, where that rounds integers, the one with all their digits.
fn texts(json: &str) -> Vec<Cow<'_, str>> {
    let text = canonical(json);
    let exact = if matches!(text, Cow::Owned(_)) { with_quoted_integers(json) } else { None };
    // No JSON begins so: the text is told from that of the next payload.
    let exact = exact.map(|exact| Cow::<str>::Owned(format!("exact {}", canonical(&exact))));
    std::iter::once(text).chain(exact).collect()
}

/// The JSON with strings in the place of integers that 64 bits do not hold; `None` if there are none. Such integers are read as
/// floating-point numbers, and different ones become the same.
fn with_quoted_integers(json: &str) -> Option<String> {
    let is_of_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let (bytes, mut quoted, mut copied) = (json.as_bytes(), String::new(), 0);
    let (mut at, mut is_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let length = if is_string { 0 } else { bytes[at..].iter().take_while(|byte| is_of_number(**byte)).count() };
        match byte {
            b'"' => is_string = !is_string,
            // The escaped character may be a quote.
            b'\\' => at += 1,
            _ => {
                if let Some(number) = json.get(at..at + length).filter(|number| is_rounded(number)) {
                    quoted.push_str(&json[copied..at]);
                    quoted.push_str(&format!("\"{number}\""));
                    copied = at + length;
                }
            }
        }
        at += length.max(1);
    }
    (copied > 0).then(|| quoted + &json[copied..])
}

fn is_rounded(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_integer = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err()
}

/// JSON with sorted keys and without white space.
fn canonical(json: &str) -> Cow<'_, str> {
    let is_plain = !json.bytes().any(|byte| byte == b'{' || byte == b'\\' || byte.is_ascii_whitespace());
    if is_plain {
        return Cow::Borrowed(json);
    }
    serde_json::from_str::<Canonical>(json).map_or(Cow::Borrowed(json), |canonical| Cow::Owned(canonical.0))
}

/// The canonical text of a value, made while the value is read: the tree of a list takes many times the memory of its text.
struct Canonical(String);

impl<'de> Deserialize<'de> for Canonical {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::new();
        Append(&mut text).deserialize(deserializer)?;
        Ok(Self(text))
    }
}

/// Adds the canonical text of a value to a text.
struct Append<'a>(&'a mut String);

impl Append<'_> {
    fn scalar<E>(self, value: impl Into<Value>) -> Result<(), E> {
        self.0.push_str(&value.into().to_string());
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut opening = '[';
        loop {
            let length = self.0.len();
            self.0.push(opening);
            if list.next_element_seed(Append(self.0))?.is_none() {
                self.0.truncate(length);
                break;
            }
            opening = ',';
        }
        self.0.push_str(if opening == '[' { "[]" } else { "]" });
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        // The last of several members of one name counts.
        let mut sorted = BTreeMap::<String, String>::new();
        while let Some((name, Canonical(value))) = members.next_entry()? {
            sorted.insert(name, value);
        }
        self.0.push('{');
        for (place, (name, value)) in sorted.iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            self.0.push_str(&Value::from(name.as_str()).to_string());
            self.0.push(':');
            self.0.push_str(value);
        }
        self.0.push('}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::JobRequest;
    use model::DEFAULT_CHUNK_SIZE;

    use super::*;

    fn of(body: &str) -> [u8; 32] {
        let request: JobRequest = serde_json::from_str(body).expect("a job");
        fingerprint(&request.parse(DEFAULT_CHUNK_SIZE).expect("valid"))
    }

    #[test]
    fn the_same_job_in_other_words_has_the_same_fingerprint() {
        let job = of(r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},2]},"priority":7}"#);
        for same in [
            r#"{ "priority": 7, "params": {"list": [ {"b": "x", "a": 1}, 2 ]}, "kind": "tasks" }"#,
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"\u0078"},2]},"priority":7,"max_attempts":4}"#,
        ] {
            assert_eq!(of(same), job, "{same}");
        }
        for other in [
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},2]},"priority":8}"#,
            r#"{"kind":"tasks","params":{"list":[{"a":1,"b":"x"},3]},"priority":7}"#,
            r#"{"kind":"tasks","params":{"list":[2,{"a":1,"b":"x"}]},"priority":7}"#,
        ] {
            assert_ne!(of(other), job, "{other}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_are_compared_by_all_their_digits() {
        let job = |payload: &str| of(&format!(r#"{{"kind":"tasks","params":{{"list":[{payload}]}}}}"#));
        let one = job(r#"{"n": 340282366920938463463374607431768211457, "of": "x"}"#);
        assert_eq!(job(r#"{"of":"x","n":340282366920938463463374607431768211457}"#), one);
        assert_ne!(job(r#"{"n": 340282366920938463463374607431768211459, "of": "x"}"#), one);
        let (ordered, swapped) = (
            r#"{"n": [18446744073709551617, 18446744073709551618]}"#,
            r#"{"n": [18446744073709551618, 18446744073709551617]}"#,
        );
        assert_ne!(job(swapped), job(ordered));
        let digits = r#"{"n": 1.8446744073709552e19}, {"n": "18446744073709551616"}"#;
        assert_ne!(job(digits), job(r#"{"n": 18446744073709551616}"#), "two payloads are not one");
        let json = r#"{"a": "18446744073709551616 \" 18446744073709551616", "é": [18446744073709551616, 18446744073709551615,
            -9223372036854775809, -9223372036854775808, 1e30, 0.1234567890123456789012, true]}"#;
        let quoted = json.replace("[18446744073709551616", "[\"18446744073709551616\"");
        let quoted = quoted.replace("-9223372036854775809", "\"-9223372036854775809\"");
        assert_eq!(with_quoted_integers(json), Some(quoted));
        assert_eq!(with_quoted_integers(r#"{"n": [1, -2.5e3, "123456789012345678901"]}"#), None);
    }

    #[test]
    fn the_canonical_text_of_a_value_is_that_of_its_tree() {
        for json in [
            r#" {"b": [1, -2, 3.50, 1e5, 1e300, 18446744073709551616], "a": {"\u0078": null, "\u00e9\n": true}} "#,
            r#"[ [], {}, [[ ]], "a\"b\\", {"k": 1, "k": 2}, false ]"#,
            r#"{"list": [{"z": 1, "y": [{}]}, 0.1, -0.0, 123456789012345678901234567890]}"#,
        ] {
            let tree: Value = serde_json::from_str(json).expect(json);
            assert_eq!(canonical(json), tree.to_string());
        }
    }
}
