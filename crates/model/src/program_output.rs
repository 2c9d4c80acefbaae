//! Input and output of a program as JSON: text as a string, other bytes as `{"base64": "…"}`, and a long output as a reference
//! to the object that holds its bytes: `{"object": {…}}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, ProgramHash};

/// Longest output in its task's result. A longer output is an object.
pub const INLINE_OUTPUT_BYTES: u64 = 64 * 1024;

/// The output of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProgramOutput {
    /// Text in UTF-8.
    Text(String),
    /// Any bytes.
    Binary {
        /// The bytes in the standard alphabet, with padding.
        base64: String,
    },
    /// Bytes of an object.
    Object {
        /// The object.
        object: OutputObject,
    },
}

/// Reference to an output as an object. Together with the job and the task it names the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputObject {
    /// The attempt that wrote the output.
    pub attempt: AttemptId,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: ProgramHash,
    /// Whether the bytes are UTF-8.
    pub text: bool,
}

impl OutputObject {
    /// The object that the JSON of an output refers to; `None` if the JSON is the output itself.
    #[must_use]
    pub fn of(json: &str) -> Option<Self> {
        if !json.trim_start().starts_with('{') {
            return None;
        }
        match serde_json::from_str(json).ok()? {
            ProgramOutput::Object { object } => Some(object),
            ProgramOutput::Text(_) | ProgramOutput::Binary { .. } => None,
        }
    }
}

impl ProgramOutput {
    /// The bytes; `None` if they are not encoded correctly, or are an object.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.into_bytes()),
            Self::Binary { base64 } => STANDARD.decode(base64).ok(),
            Self::Object { .. } => None,
        }
    }

    /// The integer that the output consists of, with optional white space around it.
    ///
    /// # Errors
    /// The output is no decimal integer of 128 bits.
    pub fn integer(&self) -> Result<i128, String> {
        let text = match self {
            Self::Text(text) => text,
            Self::Binary { .. } => return Err("it is no text".to_owned()),
            Self::Object { object } => return Err(format!("it has {} bytes", object.bytes)),
        };
        let digits = text.trim();
        let shown: String = digits.chars().take(50).collect();
        digits.parse().map_err(|_| match digits {
            "" => "it is empty, and no decimal integer".to_owned(),
            _ => format!("{shown:?} is no decimal integer of 128 bits"),
        })
    }
}

impl From<Vec<u8>> for ProgramOutput {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Binary { base64: STANDARD.encode(error.as_bytes()) },
        }
    }
}

/// Checks whether pieces are UTF-8 together.
#[derive(Debug, Default)]
pub struct TextCheck {
    /// The beginning of a character that continues in the next piece.
    open: Vec<u8>,
    is_broken: bool,
}

impl TextCheck {
    /// Adds the next piece.
    pub fn push(&mut self, mut piece: &[u8]) {
        while let Some((&first, rest)) = piece.split_first().filter(|_| !self.open.is_empty() && !self.is_broken) {
            self.open.push(first);
            piece = rest;
            match std::str::from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) => self.is_broken = error.error_len().is_some(),
            }
        }
        if self.is_broken {
            return;
        }
        if let Err(error) = std::str::from_utf8(piece) {
            self.is_broken = error.error_len().is_some();
            self.open.extend_from_slice(&piece[error.valid_up_to()..]);
        }
    }

    /// Whether all pieces so far are complete text.
    #[must_use]
    pub fn is_text(&self) -> bool {
        !self.is_broken && self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_reference_comes_back_and_nothing_else_is_taken_for_one() {
        let (attempt, sha256) = (AttemptId(Uuid::from_u128(7)), ProgramHash([0xab; 32]));
        let object = OutputObject { attempt, bytes: 1 << 40, sha256, text: true };
        let json = serde_json::to_string(&ProgramOutput::Object { object }).expect("JSON");
        let digits = "ab".repeat(32);
        let form = format!(
            r#"{{"object":{{"attempt":"00000000-0000-0000-0000-000000000007","bytes":1099511627776,"sha256":"{digits}","text":true}}}}"#
        );
        assert_eq!(json, form, "it stands in rows");
        assert_eq!(OutputObject::of(&json), Some(object));
        assert_eq!(OutputObject::of(&json.replace(':', " : ")), Some(object));
        for other in [r#""text""#, r#"{"base64":"/w=="}"#, r#"{"object":{}}"#, &json.replace("ab", "xy"), "7", ""] {
            assert_eq!(OutputObject::of(other), None, "{other}");
        }
    }

    #[test]
    fn text_is_recognized_wherever_it_is_cut() {
        let is_text = |pieces: &[&[u8]]| {
            let mut check = TextCheck::default();
            pieces.iter().for_each(|piece| check.push(piece));
            check.is_text()
        };
        let text = "aü€\u{1F600}z".as_bytes();
        for cut in 0..text.len() {
            assert!(is_text(&[&text[..cut], &text[cut..]]), "{cut}");
        }
        assert!(is_text(&text.chunks(1).collect::<Vec<_>>()));
        for wrong in [&b"\xff"[..], b"\xe2\x82", b"\xe2\x82a", b"\x80", b"\xed\xa0\x80"] {
            assert!(!is_text(&[wrong]), "{wrong:?}");
            assert!(!is_text(&wrong.chunks(1).collect::<Vec<_>>()), "{wrong:?}");
        }
        assert!(!is_text(&[b"\xff", b"a"]));
    }

    #[test]
    fn text_stays_text_and_other_bytes_come_back() {
        for bytes in [&b"ok\n"[..], b"", b"\xff\x00\xfe"] {
            let json = serde_json::to_string(&ProgramOutput::from(bytes.to_vec())).expect("JSON");
            let output: ProgramOutput = serde_json::from_str(&json).expect("JSON");
            assert_eq!(output.into_bytes().as_deref(), Some(bytes), "{json}");
        }
        assert_eq!(ProgramOutput::Binary { base64: "!".to_owned() }.into_bytes(), None);
    }

    #[test]
    fn an_integer_is_read_exactly_or_refused() {
        let integer = |text: &str| ProgramOutput::Text(text.to_owned()).integer();
        assert_eq!(integer(&format!(" {}\n", i128::MIN)), Ok(i128::MIN));
        for wrong in ["", "1.0", "1 2", "170141183460469231731687303715884105728"] {
            assert!(integer(wrong).is_err(), "{wrong}");
        }
    }
}
