//! What a program writes and reads, as JSON: text as a string, other bytes as `{"base64": "…"}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The output of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProgramOutput {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Binary {
        /// In the standard alphabet, with padding.
        base64: String,
    },
}

impl ProgramOutput {
    /// The bytes; none where they are not encoded as they should be.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.into_bytes()),
            Self::Binary { base64 } => STANDARD.decode(base64).ok(),
        }
    }

    /// The integer that the output consists of, but for white space around it.
    ///
    /// # Errors
    /// It is no decimal integer of 128 bits.
    pub fn integer(&self) -> Result<i128, String> {
        let Self::Text(text) = self else { return Err("it is no text".to_owned()) };
        let digits = text.trim();
        let shown: String = digits.chars().take(50).collect();
        digits.parse().map_err(|error| format!("{shown:?} is no decimal integer of 128 bits: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;

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
