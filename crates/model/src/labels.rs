//! Labels, tags and the limits on their words.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};

use crate::InvalidJob;

/// Words about things that a client chose: tags of a job, labels of a worker.
pub type Labels = BTreeMap<String, String>;

const MAX_TAGS: usize = 32;

/// The longest key or value.
pub const MAX_WORD_BYTES: usize = 256;

/// Words that are read before they are checked. Some of the grid's own may come on top of a client's.
const MAX_READ_WORDS: usize = 1_024;

/// Reads words, of which a text of any length gives no more than is kept in memory without a thought.
///
/// # Errors
/// There are more than 1,024.
pub fn read_words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    struct Words;

    impl<'de> Visitor<'de> for Words {
        type Value = Labels;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut words: A) -> Result<Labels, A::Error> {
            let mut read = Labels::new();
            while let Some((key, value)) = words.next_entry()? {
                if read.len() >= MAX_READ_WORDS {
                    return Err(A::Error::custom(format!("there are more than {MAX_TAGS} keys")));
                }
                read.insert(key, value);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_map(Words)
}

/// Checks words that a client or a worker chose.
///
/// # Errors
/// There are more than 32, or one is longer than 256 bytes or holds a control character.
pub fn check_words(field: &'static str, words: &Labels) -> Result<(), InvalidJob> {
    let is_word = |word: &String| word.len() <= MAX_WORD_BYTES && !word.contains(char::is_control);
    let is_fine = |(key, value): (&String, &String)| !key.is_empty() && is_word(key) && is_word(value);
    if words.len() <= MAX_TAGS && words.iter().all(is_fine) {
        return Ok(());
    }
    let allowed = format!(
        "holds at most {MAX_TAGS} keys and values of at most {MAX_WORD_BYTES} bytes each, without control characters"
    );
    Err(InvalidJob::new(field, allowed))
}
