//! Labels, tags and the limits on their words.

use std::collections::BTreeMap;

use crate::InvalidJob;

/// Words about things that a client chose: tags of a job, labels of a worker.
pub type Labels = BTreeMap<String, String>;

const MAX_TAGS: usize = 32;

/// The longest key or value.
pub const MAX_WORD_BYTES: usize = 256;

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
