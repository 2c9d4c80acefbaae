//! Configuration from the environment.

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

const PREFIX: &str = "DIVVY_";

/// Reads a flat struct, all of whose fields may be absent, from the variables `DIVVY_*`: field `chunk_size` from
/// `DIVVY_CHUNK_SIZE`.
///
/// # Errors
/// A variable has no valid value; the message names it.
pub fn from_env<T: DeserializeOwned>() -> anyhow::Result<T> {
    let variables = || std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours: Vec<_> = variables().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut valid = Vec::with_capacity(ours.len());
    for (name, value) in ours {
        let value = value.into_string().map_err(|_| anyhow!("{name} is not text"))?;
        // envy does not say which variable it cannot read, so each is read alone first.
        read::<T>([(name.clone(), value.clone())]).with_context(|| format!("{name} is not valid"))?;
        valid.push((name, value));
    }
    read(valid)
}

fn read<T: DeserializeOwned>(variables: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<T> {
    Ok(envy::prefixed(PREFIX).from_iter(variables)?)
}
