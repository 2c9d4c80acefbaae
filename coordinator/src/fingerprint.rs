//! Fingerprints recognize a request that submits the same job again, even where its bytes differ.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use api::ParsedJob;
use model::JobOptions;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use workloads::Parsed;

/// Hashes that are compared with the one of the job that was accepted under the same id or key.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprints {
    /// Hash of the job.
    pub(crate) job: [u8; 32],
    /// Hashes that earlier releases have stored for the same request.
    pub(crate) earlier: Vec<[u8; 32]>,
}

impl Fingerprints {
    /// The hashes of a job.
    pub(crate) fn of(job: &ParsedJob) -> Self {
        let Parsed { stored, identity, .. } = &job.work;
        let (hash, is_respelled) = hash_of(job, identity, Plain::Canonical);
        let has_earlier = is_respelled || stored.get() != identity.get();
        let earlier = has_earlier.then(|| hash_of(job, stored, Plain::AsWritten).0);
        Self { job: hash, earlier: earlier.into_iter().collect() }
    }

    /// The same with the hash of the request's body, which the first release stored.
    pub(crate) fn and_body(mut self, body: [u8; 32]) -> Self {
        self.earlier.push(body);
        self
    }

    /// A hash that no earlier release has stored in another form.
    pub(crate) fn only(job: [u8; 32]) -> Self {
        Self { job, earlier: Vec::new() }
    }
}

/// The text that stands for plain JSON: see [`is_plain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Canonical,
    /// The JSON as it is. Earlier releases did this: to them `1e5` and `100000.0` differed, and so did `[1e5]` and `[ 1e5 ]`.
    AsWritten,
}

/// A hash of a job with these parameters that does not depend on the order of fields, on white space or on defaults that are
/// spelled out; and whether a payload that is plain JSON differs from its canonical text.
fn hash_of(job: &ParsedJob, params: &RawValue, plain: Plain) -> ([u8; 32], bool) {
    let mut hash = Sha256::new();
    let mut is_respelled = false;
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
    texts(params.get(), plain).iter().for_each(|text| add(text));
    // Only for a job that is verified: any other job keeps the fingerprint of the first release.
    if let Some(share) = verify {
        add(&format!("verify {share}"));
    }
    for payload in job.work.payloads.iter() {
        let texts = texts(payload, plain);
        is_respelled |= is_plain(payload) && texts.first().is_some_and(|text| **text != *payload);
        texts.iter().for_each(|text| add(text));
    }
    (hash.finalize().into(), is_respelled)
}

/// The texts that stand for a JSON value: its canonical one and, where that rounds integers, the one with all their digits.
fn texts(json: &str, plain: Plain) -> Vec<Cow<'_, str>> {
    let text = match plain {
        Plain::AsWritten if is_plain(json) => Cow::Borrowed(json),
        Plain::AsWritten | Plain::Canonical => canonical(json),
    };
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
    if is_plain(json) && has_short_integers_alone(json) {
        return Cow::Borrowed(json);
    }
    serde_json::from_str::<Canonical>(json).map_or(Cow::Borrowed(json), |canonical| Cow::Owned(canonical.0))
}

/// Whether JSON is plain: without objects, escapes and white space.
fn is_plain(json: &str) -> bool {
    !json.bytes().any(|byte| byte == b'{' || byte == b'\\' || byte.is_ascii_whitespace())
}

/// Whether plain JSON consists of lists, strings and short integers: these have one spelling each. `false` also for `true`,
/// `null` and negative integers, which are rare.
fn has_short_integers_alone(json: &str) -> bool {
    /// Any integer of so many digits fits 64 bits.
    const DIGITS: usize = 19;
    let mut digits = 0;
    // Every second part is a string.
    json.split('"').step_by(2).flat_map(str::bytes).all(|byte| {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        digits <= DIGITS && matches!(byte, b'0'..=b'9' | b'[' | b']' | b',')
    })
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

    fn all(body: &str) -> Fingerprints {
        let request: JobRequest = serde_json::from_str(body).expect("a job");
        Fingerprints::of(&request.parse(DEFAULT_CHUNK_SIZE).expect("valid"))
    }

    fn of(body: &str) -> [u8; 32] {
        all(body).job
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
    fn parameters_with_their_defaults_or_the_same_numbers_in_other_digits_are_the_same_in_every_kind() {
        let jobs: [(&str, &[&str], &str); 3] = [
            (
                "sleep",
                &[
                    r#"{"seconds":1}"#,
                    r#"{"tasks":1,"seconds":1.0,"fail_rate":0}"#,
                    r#"{"seconds":1e0,"fail_rate":-0.0,"tasks_per_lease":1000}"#,
                ],
                r#"{"seconds":1,"tasks":2}"#,
            ),
            (
                "sum-of-primes",
                &[r#"{"a":1,"b":9}"#, r#"{"b":9,"a":1,"algorithm":"auto","verify":false}"#],
                r#"{"a":1,"b":9,"algorithm":"sieve"}"#,
            ),
            (
                "program",
                &[
                    r#"{"program":"blur","args":[["x"]]}"#,
                    r#"{"args":[["x"]],"program":"blur","combine":"none","env":{},"limits":{"output_bytes":1048576}}"#,
                    r#"{"program":"blur","args":[["x"]],"reproducible":false,"tasks_per_lease":1}"#,
                ],
                r#"{"program":"blur","args":[["x"]],"tasks_per_lease":2}"#,
            ),
        ];
        for (kind, same, other) in jobs {
            let job = |params: &str| of(&format!(r#"{{"kind":"{kind}","params":{params}}}"#));
            for params in same {
                assert_eq!(job(params), job(same[0]), "{params}");
            }
            assert_ne!(job(other), job(same[0]), "{other}");
        }
    }

    #[test]
    fn a_request_that_an_earlier_release_took_is_recognised_after_an_upgrade() {
        let read = |params: &str| all(&format!(r#"{{"kind":"sleep","params":{params}}}"#));
        let (plain, spelled) = (read(r#"{"tasks":3,"seconds":1}"#), read(r#"{"seconds":1.0,"tasks":3}"#));
        assert_eq!(plain.job, spelled.job);
        assert_ne!(spelled.earlier, [spelled.job], "the earlier release told them apart");
        let tasks = |list: &str| all(&format!(r#"{{"kind":"tasks","params":{{"list":{list}}}}}"#));
        assert_eq!(tasks(r#"[[1,"a b"],"x",2]"#).earlier, [[0; 32]; 0], "it has one form only");
        assert_eq!(tasks("[[1e5]]").job, tasks("[[ 100000.0 ]]").job);
        let rounded = (tasks("[[18446744073709551617]]"), tasks("[[ 18446744073709551617 ]]"));
        assert_eq!((rounded.0.job, rounded.1.earlier.len()), (rounded.1.job, 0));
        assert_ne!(rounded.0.earlier, [rounded.0.job], "the earlier release did not read it");
        assert_ne!(rounded.0.job, tasks("[[18446744073709551616]]").job);
    }

    #[test]
    fn the_canonical_text_of_a_value_is_that_of_its_tree() {
        for json in [
            r#" {"b": [1, -2, 3.50, 1e5, 1e300, 18446744073709551616], "a": {"\u0078": null, "\u00e9\n": true}} "#,
            r#"[ [], {}, [[ ]], "a\"b\\", {"k": 1, "k": 2}, false ]"#,
            r#"{"list": [{"z": 1, "y": [{}]}, 0.1, -0.0, 123456789012345678901234567890]}"#,
            r#"[1e5,1.50,-0,18446744073709551616,9223372036854775807,"1e5",true,[],""]"#,
            r#"[12,[3,"4.0"],[]]"#,
        ] {
            let tree: Value = serde_json::from_str(json).expect(json);
            assert_eq!(canonical(json), tree.to_string());
        }
    }
}
