//! The token that a client shows to a grid.

use std::fmt;
use std::str::FromStr;

use reqwest::header::HeaderValue;

/// A token, sent as `Authorization: Bearer`.
#[derive(Clone)]
pub struct AccessToken(HeaderValue);

/// A text that is not valid in the header. The error does not repeat it: the text may be a mistyped secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to 512 visible ASCII characters: no space and no line end")]
pub struct InvalidAccessToken;

/// Longest token: far above the length of tokens of `divvy token new`.
const MAX_TOKEN_BYTES: usize = 512;

impl FromStr for AccessToken {
    type Err = InvalidAccessToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_token = (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let header = is_token.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok()).flatten();
        let mut header = header.ok_or(InvalidAccessToken)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }
}

impl AccessToken {
    /// The value of the `Authorization` header, which no debug output shows.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_one_visible_word_and_stay_secret() {
        let token: AccessToken = "divvy_s3cret".parse().expect("a token");
        assert_eq!(token.header(), "Bearer divvy_s3cret");
        assert!(!format!("{token:?}{:?}", token.header()).contains("s3cret"));
        for text in ["", "two words", "line\n", "ü", &"x".repeat(513)] {
            assert_eq!(text.parse::<AccessToken>().err(), Some(InvalidAccessToken), "{text:?}");
        }
    }
}
