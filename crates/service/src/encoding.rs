//! Percent-encoding and the encodings of bodies, as far as they can be wrong.

/// The most of what a client wrote that an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// The start of what a client wrote.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Whether a text of UTF-8 is UTF-8 once its `%XX` are decoded. Decoders replace what is not, so that it becomes another
/// text.
pub(crate) fn is_utf8(encoded: &str) -> bool {
    let Some(start) = encoded.find('%') else { return true };
    let (mut decoded, mut rest) = (Vec::with_capacity(encoded.len()), &encoded.as_bytes()[start..]);
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(nibble(*high) << 4 | nibble(*low));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// The value of a hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
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
