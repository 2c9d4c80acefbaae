//! Configuration from the environment.

use anyhow::Context;
use serde::de::DeserializeOwned;

/// Reads a flat struct from the variables `DIVVY_*`: field `chunk_size` from `DIVVY_CHUNK_SIZE`.
///
/// # Errors
/// A variable has no valid value; the message names it.
pub fn from_env<T: DeserializeOwned>() -> anyhow::Result<T> {
    envy::prefixed("DIVVY_").from_env().context("read the configuration from the environment (variables DIVVY_*)")
}
