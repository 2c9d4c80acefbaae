//! Percent-encoding and its errors in paths, queries and bodies.

use percent_encoding::percent_decode_str;

/// Most characters of a client's text in an error.
const MAX_SHOWN_CHARS: usize = 64;

/// The start of a client's text.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Whether a text of UTF-8 is UTF-8 once its `%XX` are decoded. Decoders replace invalid bytes, which would change the text.
pub(crate) fn is_utf8(encoded: &str) -> bool {
    percent_decode_str(encoded).decode_utf8().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_looked_at_and_not_what_is_written() {
        for valid in ["", "plain", "%41", "%C3%a9", "é", "%", "%4", "%zz%", "a=%F0%9F%98%80&b=%00"] {
            assert!(is_utf8(valid), "{valid}");
        }
        for invalid in ["%ff", "a%C3", "%C3é", "x=%80", "%ED%A0%80", "%c0%af"] {
            assert!(!is_utf8(invalid), "{invalid}");
        }
    }
}
