//! Percent-encoding and its errors in paths, queries and bodies.

use std::borrow::Cow;

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

/// Whether a URL (WHATWG) leads from this path to another one: it takes the segments `.` and `..`, encoded or not, for steps
/// through the path, and `\` for `/`.
pub(crate) fn is_rewritten(path: &str) -> bool {
    let is_step = |segment: &str| matches!(&*Cow::<[u8]>::from(percent_decode_str(segment)), b"." | b"..");
    path.contains('\\') || path.split('/').any(is_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_steps_or_backslashes_is_another_one_as_a_url() {
        for (path, is_another) in [
            ("/jobs/..", true),
            ("/jobs/%2e%2E/submit", true),
            ("/jobs/.%2e", true),
            ("/jobs/%2e", true),
            ("/./jobs", true),
            ("/jobs/x\\y", true),
            ("/", false),
            ("/jobs", false),
            ("//jobs//", false),
            ("/jobs/...", false),
            ("/jobs/..x/.y", false),
            ("/jobs/..%2f..", false),
            ("/jobs/%252e%252e", false),
            ("/jobs;a=..", false),
        ] {
            assert_eq!(is_rewritten(path), is_another, "{path}");
            let url = reqwest::Url::parse(&format!("http://leader{path}")).expect("a URL");
            assert_eq!(url.path() != path, is_another, "{url}");
        }
    }

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
