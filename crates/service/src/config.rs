//! Configuration from the environment.

use std::ffi::OsString;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

const PREFIX: &str = "DIVVY_";

/// Reads a flat struct, all of whose fields may be absent, from the variables `DIVVY_*`: field `chunk_size` from
/// `DIVVY_CHUNK_SIZE`. A variable that is empty is as if it were not set.
///
/// # Errors
/// A variable has no valid value; the message names it.
pub fn from_env<T: DeserializeOwned>() -> anyhow::Result<T> {
    from_variables(std::env::vars_os())
}

fn from_variables<T: DeserializeOwned>(variables: impl Iterator<Item = (OsString, OsString)>) -> anyhow::Result<T> {
    let named = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let mut valid = Vec::new();
    for (name, value) in named.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()) {
        let value = value.into_string().map_err(|_| anyhow!("{name} is not text"))?;
        // envy does not say which variable it cannot read, so each is read alone first.
        if let Err(error) = read::<T>([(name.clone(), value.clone())]) {
            bail!("{name} is not valid: {}", plain(&error.to_string()));
        }
        valid.push((name, value));
    }
    read(valid).context("read the variables DIVVY_*")
}

fn read<T: DeserializeOwned>(variables: impl IntoIterator<Item = (String, String)>) -> envy::Result<T> {
    envy::prefixed(PREFIX).from_iter(variables)
}

/// The error without the variable, which envy tells in its own form, and without words for programmers.
fn plain(error: &str) -> String {
    let (cause, value) = match error.split_once(" while parsing value '") {
        Some((cause, rest)) => (cause, rest.rsplit_once("' provided by ").map(|(value, _)| value)),
        None => (error, None),
    };
    let cause = match cause {
        cause if cause.starts_with("invalid value: integer `0`, expected a nonzero") => {
            "it must be at least 1, but is 0"
        }
        "invalid digit found in string" => "it must be a whole number",
        "number too large to fit in target type" => "it is too large",
        other => other,
    };
    value.map_or_else(|| cause.to_owned(), |value| format!("{cause}, but is {value:?}"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    struct Config {
        some: NonZeroU32,
        dir: String,
        secret: crate::WorkerToken,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { some: NonZeroU32::MIN, dir: "default".to_owned(), secret: crate::WorkerToken::default() }
        }
    }

    fn config(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        from_variables(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn an_empty_variable_is_as_if_it_were_not_set() {
        let config = config(&[("DIVVY_SOME", ""), ("DIVVY_DIR", ""), ("DIVVY_SECRET", "")]).expect("valid");
        assert_eq!((config.some.get(), config.dir.as_str(), config.secret.is_set()), (1, "default", false));
    }

    #[test]
    fn a_wrong_value_is_told_once_in_plain_words_with_its_variable() {
        let wrong =
            |value: &str| format!("{:#}", config(&[("DIVVY_SOME", value), ("DIVVY_DIR", "x")]).expect_err(value));
        assert_eq!(wrong("0"), "DIVVY_SOME is not valid: it must be at least 1, but is 0");
        assert_eq!(wrong("x"), "DIVVY_SOME is not valid: it must be a whole number, but is \"x\"");
        assert_eq!(wrong("99999999999"), "DIVVY_SOME is not valid: it is too large, but is \"99999999999\"");
        let secret = format!("{:#}", config(&[("DIVVY_SECRET", "two words")]).expect_err("a space"));
        assert!(secret.starts_with("DIVVY_SECRET is not valid: a token has visible ASCII"), "{secret}");
        assert!(!secret.contains("two words"), "{secret}");
    }
}
