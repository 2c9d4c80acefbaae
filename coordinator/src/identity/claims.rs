//! The claims of a service account's token (RFC 7519). They are not trusted: they spare the API server questions about tokens
//! for other services, and shorten the validity of its answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The longest token that is read, in bytes; tokens of Kubernetes have about 1 KiB.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    aud: Audiences,
    #[serde(default)]
    pub(super) sub: String,
    /// Seconds since 1970.
    exp: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Claims {
    /// `None` where the text does not have the form of a token.
    pub(super) fn read(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    pub(super) fn are_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audiences::One(one) => one == audience,
            Audiences::Several(several) => several.iter().any(|one| one == audience),
        }
    }

    /// The remaining validity of the token; `None` where the token does not limit it.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        let until = UNIX_EPOCH.checked_add(Duration::from_secs(self.exp?))?;
        Some(until.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("header.{}.signature", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn audience_is_a_text_or_a_list() {
        for (payload, is_ours) in [
            (r#"{"aud":"divvy"}"#, true),
            (r#"{"aud":["other","divvy"]}"#, true),
            (r#"{"aud":["https://kubernetes.default.svc"]}"#, false),
            (r#"{"sub":"x"}"#, false),
        ] {
            assert_eq!(Claims::read(&token(payload)).expect(payload).are_for("divvy"), is_ours, "{payload}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        let long = token(&format!(r#"{{"sub":"{}"}}"#, "x".repeat(9000)));
        for text in ["", "a", "a.b", "..", "a.e30.c.d", "a.!!.c", &token("[]"), &token("text"), &long] {
            assert!(Claims::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_time_that_is_left_ends_with_the_token() {
        let claims = Claims::read(&token(r#"{"exp":1000}"#)).expect("claims");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(claims.left(at(990)), Some(Duration::from_secs(10)));
        assert_eq!(claims.left(at(2000)), Some(Duration::ZERO));
        assert_eq!(Claims::read(&token("{}")).expect("claims").left(at(0)), None);
    }
}
