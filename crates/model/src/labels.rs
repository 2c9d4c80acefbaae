//! Labels, tags and the limits on their words.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};

use crate::InvalidJob;
use crate::plain_words::shown;

/// Words that a client or a worker chose, by key: tags of a job, labels of a worker.
pub type Labels = BTreeMap<String, String>;

const MAX_TAGS: usize = 32;

/// The longest key or value.
pub const MAX_WORD_BYTES: usize = 256;

/// Most words that are read before they are checked. The grid adds some words to those of a client.
const MAX_READ_WORDS: usize = 1_024;

/// Reads words; the bound on their number bounds the memory of a long text.
///
/// # Errors
/// There are more than 1,024 words, or a key occurs twice.
pub fn read_words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    read_pairs::<MAX_READ_WORDS, D>(deserializer)
}

/// Reads keys with their values.
///
/// # Errors
/// There are more than `MOST` keys, or a key occurs twice.
pub fn read_pairs<'de, const MOST: usize, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    struct Words<const MOST: usize>;

    impl<'de, const MOST: usize> Visitor<'de> for Words<MOST> {
        type Value = Labels;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut words: A) -> Result<Labels, A::Error> {
            let mut read = Labels::new();
            while let Some((key, value)) = words.next_entry::<String, _>()? {
                if read.len() >= MOST {
                    return Err(A::Error::custom(format!("must have at most {MOST} keys")));
                }
                if read.contains_key(&key) {
                    return Err(A::Error::custom(format!("must have each key once, but has {} twice", shown(&key))));
                }
                read.insert(key, value);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_map(Words::<MOST>)
}

/// Words of a list, such as of a repeatable option.
///
/// # Errors
/// A key that occurs twice.
pub fn distinct(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Labels, String> {
    let mut words = Labels::new();
    for (key, value) in pairs {
        if words.contains_key(&key) {
            return Err(key);
        }
        words.insert(key, value);
    }
    Ok(words)
}

/// Checks words that a client or a worker chose.
///
/// # Errors
/// There are more than 32 words, or a word is longer than 256 bytes or holds a control character.
pub fn check_words(field: &'static str, words: &Labels) -> Result<(), InvalidJob> {
    let is_word = |word: &String| word.len() <= MAX_WORD_BYTES && !word.contains(char::is_control);
    let is_fine = |(key, value): (&String, &String)| !key.is_empty() && is_word(key) && is_word(value);
    if words.len() <= MAX_TAGS && words.iter().all(is_fine) {
        return Ok(());
    }
    let allowed = format!(
        "holds at most {MAX_TAGS} keys of 1 to {MAX_WORD_BYTES} bytes and values of at most {MAX_WORD_BYTES}, without \
         control characters"
    );
    Err(InvalidJob::new(field, allowed))
}

/// Ends of the key where a key and its value are written in one word: the first of these characters.
const KEY_ENDS: [char; 2] = [':', '='];

/// Checks tags, like [`check_words`]. Queries name tags as `key:value` or `key=value`, so neither character is in a key.
///
/// # Errors
/// The errors of [`check_words`], or a key holds `:` or `=`.
pub fn check_tags(tags: &Labels) -> Result<(), InvalidJob> {
    check_words("tags", tags)?;
    match tags.keys().find(|key| key.contains(KEY_ENDS)) {
        Some(key) => Err(InvalidJob::new("tags", format!("must have no ':' or '=' in a key, as {key:?} has"))),
        None => Ok(()),
    }
}

/// Splits `key:value` or `key=value` into the key and, if there is one, the value.
#[must_use]
pub fn split_word(text: &str) -> (&str, Option<&str>) {
    text.split_once(KEY_ENDS).map_or((text, None), |(key, value)| (key, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused_and_named() {
        let read = |json: &str| {
            let words = read_words(&mut serde_json::Deserializer::from_str(json));
            words.map_err(|error| crate::json_error("tags", &error))
        };
        assert_eq!(read(r#"{"a": "1", "b": "1"}"#).expect("words").len(), 2);
        assert_eq!(
            read(r#"{"a": "1", "a": "1"}"#).expect_err("twice"),
            "tags must have each key once, but has a twice"
        );
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(distinct([pair("a", "1"), pair("b", "1")]).expect("words").len(), 2);
        assert_eq!(distinct([pair("a", "1"), pair("b", "1"), pair("a", "2")]), Err("a".to_owned()));
    }

    #[test]
    fn a_tag_is_split_where_its_key_ends_and_no_key_holds_what_ends_it() {
        for (text, split) in [
            ("team", ("team", None)),
            ("team:", ("team", Some(""))),
            ("a:b=c", ("a", Some("b=c"))),
            ("a=b:c", ("a", Some("b:c"))),
        ] {
            assert_eq!(split_word(text), split);
        }
        let check = |key: &str| check_tags(&Labels::from([(key.to_owned(), "a:b=c".to_owned())]));
        assert_eq!(check("app.name"), Ok(()));
        for key in ["app:name", "app=name", ":", ""] {
            assert_eq!(check(key).expect_err(key).field, "tags");
        }
        let long = check(&"=".repeat(MAX_WORD_BYTES)).expect_err("a key of '=' alone").message;
        assert!(long.starts_with("must have no ':' or '=' in a key"), "{long}");
    }
}
