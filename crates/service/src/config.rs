//! Configuration from the environment.

use std::ffi::OsStr;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::program::Variable;
use crate::telemetry;

const PREFIX: &str = "DIVVY_";

/// Reads a flat struct, all of whose fields may be absent, from the variables `DIVVY_*`: field `chunk_size` from
/// `DIVVY_CHUNK_SIZE`. An empty variable counts as unset.
///
/// # Errors
/// A variable has no valid value; the message names it.
pub fn from_env<T: DeserializeOwned>() -> anyhow::Result<T> {
    let variables = || std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let is_ours = |name: &str, value: &OsStr| name.starts_with(PREFIX) && !value.is_empty();
    let ours: Vec<_> = variables().filter(|(name, value)| is_ours(name, value)).collect();
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

/// The variables of all programs of the project: one that another program reads may be set for several of them.
const OF_ALL_PROGRAMS: [&str; 26] = [
    "DIVVY_AGING_INTERVAL_MS",
    "DIVVY_CHUNK_SIZE",
    "DIVVY_COORDINATOR",
    "DIVVY_DATA_DIR",
    "DIVVY_DRAIN_TIMEOUT_MS",
    "DIVVY_EVICT_AFTER_MS",
    "DIVVY_INTERNAL_ADDR",
    "DIVVY_LEASE_TARGET_MS",
    "DIVVY_LEASE_TIMEOUT_MS",
    "DIVVY_LISTEN_ADDR",
    "DIVVY_LOG",
    "DIVVY_LOG_FORMAT",
    "DIVVY_MAX_ATTEMPTS",
    "DIVVY_MAX_INFLIGHT",
    "DIVVY_MAX_JOB_BYTES",
    "DIVVY_NO_WORKER_TIMEOUT_MS",
    "DIVVY_PUBLIC_ADDR",
    "DIVVY_RESULTS_URL",
    "DIVVY_RETENTION_BYTES",
    "DIVVY_RETENTION_DAYS",
    "DIVVY_SLOTS",
    "DIVVY_TOKEN",
    "DIVVY_URL",
    "DIVVY_WORKER_ID",
    "DIVVY_WORKER_LABELS",
    "DIVVY_WORKER_TOKEN",
];

/// Warns about variables of the project's prefix that no program reads, such as misspelt ones.
pub fn warn_about_unknown_variables(known: &[&[Variable]]) {
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(PREFIX) && !is_known(name, known) && !is_service_link(name, &value) {
            warn!(variable = name, "a variable of this name is not read by any program: it has no effect");
        }
    }
}

fn is_known(name: &str, known: &[&[Variable]]) -> bool {
    let logs = telemetry::variables();
    let mut known = known.iter().copied().flatten().chain(&logs);
    OF_ALL_PROGRAMS.contains(&name) || known.any(|variable| variable.name == name)
}

/// Whether Kubernetes has set the variable for a Service: `{NAME}_SERVICE_HOST`, `{NAME}_PORT_8080_TCP_ADDR` and the like.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_address = value.to_str().is_some_and(|value| value.contains("://"));
    let is_of_port = name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || is_of_port
        || (name.ends_with("_PORT") && is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_told_from_misspelt_ones() {
        for (name, value, is_link) in [
            ("DIVVY_COORDINATOR_SERVICE_HOST", "10.0.0.1", true),
            ("DIVVY_COORDINATOR_SERVICE_PORT_HTTP", "80", true),
            ("DIVVY_COORDINATOR_PORT", "tcp://10.0.0.1:80", true),
            ("DIVVY_COORDINATOR_PORT_80_TCP_ADDR", "10.0.0.1", true),
            ("DIVVY_PORT", "8080", false),
            ("DIVVY_FOO", "1", false),
        ] {
            assert_eq!(is_service_link(name, OsStr::new(value)), is_link, "{name}");
        }
    }

    #[test]
    fn variables_are_known_by_the_configuration_or_by_another_program() {
        let own = [Variable { name: "DIVVY_NEW".to_owned(), help: String::new() }];
        for (name, expected) in [("DIVVY_NEW", true), ("DIVVY_LOG", true), ("DIVVY_SLOTS", true), ("DIVVY_FOO", false)]
        {
            assert_eq!(is_known(name, &[&own]), expected, "{name}");
        }
    }
}
