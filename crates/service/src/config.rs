//! Configuration from the environment.

use std::ffi::{OsStr, OsString};

use anyhow::{Context, anyhow, bail};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use tracing::warn;

use crate::command_line::Variable;
use crate::doors::DoorSettings;
use crate::telemetry;

const PREFIX: &str = "DIVVY_";

/// Reads a flat struct, all of whose fields may be absent, from the variables `DIVVY_*`: field `chunk_size` from
/// `DIVVY_CHUNK_SIZE`. An empty variable counts as unset.
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
        // envy does not name the variable that it cannot read, so each variable is read alone first.
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

/// Reads a variable that is `1` or `0`.
///
/// # Errors
/// The value is something else.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        other => Err(de::Error::custom(format!("it must be 1 or 0, but is {other:?}"))),
    }
}

/// The error without the variable, which envy appends in its own form, and without words for programmers.
fn plain(error: &str) -> String {
    let (cause, value) = match error.split_once(" while parsing value '") {
        Some((cause, rest)) => (cause, rest.rsplit_once("' provided by ").map(|(value, _)| value)),
        None => (error, None),
    };
    match value {
        Some(value) => match model::parse_error(value, cause) {
            Some(predicate) => format!("it {predicate}"),
            None => format!("{cause}, but is {value:?}"),
        },
        None => model::predicate(cause).map_or_else(|| cause.to_owned(), |predicate| format!("it {predicate}")),
    }
}

/// The variables of all programs of the project, save those of listeners, TLS and logs: one that another program reads may be set
/// for several of them. A test of the `divvy` command, which knows all programs, holds this list against their configurations.
const OF_ALL_PROGRAMS: &[&str] = &[
    "DIVVY_ADVERTISE_INTERNAL_ADDR",
    "DIVVY_ADVERTISE_PUBLIC_ADDR",
    "DIVVY_AGING_INTERVAL_MS",
    "DIVVY_ALLOW_NATIVE",
    "DIVVY_CHUNK_SIZE",
    "DIVVY_COORDINATOR",
    "DIVVY_COORDINATOR_ID",
    "DIVVY_DASHBOARD",
    "DIVVY_DATA_DIR",
    "DIVVY_DELETION_COST_POD",
    "DIVVY_DRAIN_TIMEOUT_MS",
    "DIVVY_EVICT_AFTER_MS",
    "DIVVY_FRONT_PATIENCE_MS",
    "DIVVY_FRONT_TARGET",
    "DIVVY_HEARTBEAT_TIMEOUT_MS",
    "DIVVY_INTERNAL_ADDR",
    "DIVVY_KAFKA_BROKERS",
    "DIVVY_KAFKA_CONFIG",
    "DIVVY_KAFKA_PREFIX",
    "DIVVY_KUBERNETES_ACCOUNT_DIR",
    "DIVVY_LEADERSHIP_LEASE_MS",
    "DIVVY_LEASE_TARGET_MS",
    "DIVVY_LEASE_TIMEOUT_MS",
    "DIVVY_LISTEN_ADDR",
    "DIVVY_LOCK_TIMEOUT_MS",
    "DIVVY_LOG",
    "DIVVY_LOG_FORMAT",
    "DIVVY_MAX_ATTEMPTS",
    "DIVVY_MAX_BODY_MEMORY",
    "DIVVY_MAX_HELD_BYTES",
    "DIVVY_MAX_INFLIGHT",
    "DIVVY_MAX_JOB_BYTES",
    "DIVVY_MAX_OUTCOME_MEMORY",
    "DIVVY_MAX_OUTPUT_BYTES",
    "DIVVY_MAX_PROGRAM_BYTES",
    "DIVVY_MAX_RESULT_BYTES",
    "DIVVY_NO_WORKER_TIMEOUT_MS",
    "DIVVY_ORPHAN_TIMEOUT_MS",
    "DIVVY_PROGRAMS",
    "DIVVY_PROGRAM_CACHE_BYTES",
    "DIVVY_PROGRAM_DIR",
    "DIVVY_PROGRAM_MEMORY_BYTES",
    "DIVVY_PUBLIC_ADDR",
    "DIVVY_RECOVERY_MS",
    "DIVVY_RESULTS_URL",
    "DIVVY_RETENTION_BYTES",
    "DIVVY_RETENTION_DAYS",
    "DIVVY_SLOTS",
    "DIVVY_STATISTICS_HOURS_DAYS",
    "DIVVY_STATISTICS_MINUTES_HOURS",
    "DIVVY_STORE_URL",
    "DIVVY_TOKEN",
    "DIVVY_URL",
    "DIVVY_WORKER_AUDIENCE",
    "DIVVY_WORKER_ID",
    "DIVVY_WORKER_LABELS",
    "DIVVY_WORKER_REVIEW_AGE_MS",
    "DIVVY_WORKER_SERVICE_ACCOUNTS",
    "DIVVY_WORKER_TOKEN",
    "DIVVY_WORKER_TOKEN_FILE",
];

/// Warns about variables of the project's prefix that no program reads, such as misspelt ones.
pub fn warn_about_unknown_variables(known: &[&[Variable]]) {
    for name in unknown_variables(known) {
        warn!(variable = name, "a variable of this name is not read by any program: it has no effect");
    }
}

/// The variables of the project's prefix that no program reads.
pub(crate) fn unknown_variables(known: &[&[Variable]]) -> Vec<String> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let unknown = named
        .filter(|(name, value)| name.starts_with(PREFIX) && !is_known(name, known) && !is_service_link(name, value));
    unknown.map(|(name, _)| name).collect()
}

/// Whether some program of the project reads this variable.
#[must_use]
pub fn is_variable_of_a_program(name: &str) -> bool {
    is_known(name, &[])
}

fn is_known(name: &str, known: &[&[Variable]]) -> bool {
    let (logs, doors) = (telemetry::variables(), DoorSettings::variables());
    let mut known = known.iter().copied().flatten().chain(&logs).chain(&doors);
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
        assert_eq!(wrong("0"), "DIVVY_SOME is not valid: it must be a whole number from 1 to 4294967295, but is 0");
        assert_eq!(wrong("x"), "DIVVY_SOME is not valid: it must be a whole number, but is \"x\"");
        assert_eq!(wrong("99999999999"), "DIVVY_SOME is not valid: it is too large: 99999999999");
        let secret = format!("{:#}", config(&[("DIVVY_SECRET", "two words")]).expect_err("a space"));
        assert!(secret.starts_with("DIVVY_SECRET is not valid: a token has visible ASCII"), "{secret}");
        assert!(!secret.contains("two words"), "{secret}");
    }

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
        for (name, expected) in [
            ("DIVVY_NEW", true),
            ("DIVVY_LOG", true),
            ("DIVVY_SLOTS", true),
            ("DIVVY_TLS_CERT", true),
            ("DIVVY_CA_FILE", true),
            ("DIVVY_FOO", false),
        ] {
            assert_eq!(is_known(name, &[&own]), expected, "{name}");
        }
    }
}
