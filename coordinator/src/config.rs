//! Configuration: every variable of the coordinator, its unit and its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use model::{DEFAULT_CHUNK_SIZE, DEFAULT_MAX_ATTEMPTS};
use scheduler::Policy;
use serde::Deserialize;
use service::{DoorSettings, Variable, WorkerToken, variables_of};
use store::Retention;
use store::statistics::StatisticsRetention;
use store_sqlite::StoreSettings;
use url::Url;

use crate::http::REPORT_OVERHEAD_BYTES;

/// The longest time that any setting may have.
const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Changes that may wait for the disk before no more work is leased.
const MAX_UNSTORED: u64 = 50_000;

/// The environment of `divvy-coordinator`. Logs have their own two variables, `DIVVY_LOG` and `DIVVY_LOG_FORMAT`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `DIVVY_PUBLIC_ADDR`: where clients ask. Default `0.0.0.0:8080`; port 0 picks a free one.
    pub public_addr: SocketAddr,
    /// `DIVVY_INTERNAL_ADDR`: where workers register and metrics are read. Default `0.0.0.0:8081`.
    pub internal_addr: SocketAddr,
    /// `DIVVY_WORKER_TOKEN`: secret shared with the workers, demanded in both directions. Default: none.
    pub worker_token: WorkerToken,
    /// `DIVVY_DATA_DIR`: where jobs, events and results are kept, in `divvy.db` and beside it. Default `divvy-data`.
    pub data_dir: PathBuf,
    /// `DIVVY_RESULTS_URL`: where results above 64 KiB go, such as `file:///mnt/results`. Default: `results` in the data
    /// directory.
    pub results_url: Option<Url>,
    /// `DIVVY_RETENTION_DAYS`: jobs that are over are forgotten after this many days. Default 30.
    pub retention_days: u32,
    /// `DIVVY_RETENTION_BYTES`: or earlier, the oldest first, when they take up more than this. Default 10737418240,
    /// 10 GiB.
    pub retention_bytes: u64,
    /// `DIVVY_STATISTICS_MINUTES_HOURS`: statistics by the minute are kept this many hours. Default 24.
    pub statistics_minutes_hours: u32,
    /// `DIVVY_STATISTICS_HOURS_DAYS`: statistics by the hour are kept this many days; those by the day for ever. Default 31.
    pub statistics_hours_days: u32,
    /// `DIVVY_MAX_JOB_BYTES`: the longest body of a job. Default 67108864, 64 MiB.
    pub max_job_bytes: usize,
    /// `DIVVY_MAX_BODY_MEMORY`: the memory that bodies of requests may take together; further ones get 503. Default
    /// 536870912, 512 MiB.
    pub max_body_memory: usize,
    /// `DIVVY_MAX_RESULT_BYTES`: the longest results of one lease. Default 67108864, 64 MiB.
    pub max_result_bytes: usize,
    /// `DIVVY_CHUNK_SIZE`: numbers from a task's first to its last. Default 2500000, at least 1.
    pub chunk_size: NonZeroU64,
    /// `DIVVY_LEASE_TARGET_MS`: computing time that one lease should carry. Default 100.
    pub lease_target_ms: u64,
    /// `DIVVY_LEASE_TIMEOUT_MS`: how long a lease may take, on top of ten times what its worker has shown, before it is
    /// given to another worker. Default 60000.
    pub lease_timeout_ms: u64,
    /// `DIVVY_MAX_ATTEMPTS`: attempts at one task before its job fails, for requests that wait for their answer; jobs
    /// say it themselves. Default 4, at least 1.
    pub max_attempts: NonZeroU32,
    /// `DIVVY_AGING_INTERVAL_MS`: a job that waits this long for its next lease counts as one priority higher, and so
    /// on, so that none starves. Default 30000.
    pub aging_interval_ms: u64,
    /// `DIVVY_EVICT_AFTER_MS`: silence after which a worker is removed. Default 5000, at least 2000: heartbeats come
    /// every second.
    pub evict_after_ms: u64,
    /// `DIVVY_RECOVERY_MS`: how long, after a start, the tasks of jobs that had started wait for the workers that hold them
    /// from before. Default 2500: a worker tries again within a second when its coordinator was away.
    pub recovery_ms: u64,
    /// `DIVVY_MAX_INFLIGHT`: requests computed or waiting at the same time; further ones get 503. Default 1000.
    pub max_inflight: u32,
    /// `DIVVY_NO_WORKER_TIMEOUT_MS`: how long a request waits while no worker is registered. Default 10000.
    pub no_worker_timeout_ms: u64,
    /// `DIVVY_DASHBOARD`: `on` or `off`, the pages for people at `/` of the public port. Default `on`.
    pub dashboard: Switch,
    /// `DIVVY_DRAIN_TIMEOUT_MS`: how long requests may go on after SIGTERM before they get 503. Default 10000.
    pub drain_timeout_ms: u64,
    /// Tokens, host names and TLS of the listeners.
    #[serde(skip)]
    pub doors: DoorSettings,
}

/// A part that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It is there.
    On,
    /// It is not.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_addr: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            internal_addr: (Ipv4Addr::UNSPECIFIED, 8081).into(),
            worker_token: WorkerToken::default(),
            data_dir: PathBuf::from("divvy-data"),
            results_url: None,
            retention_days: 30,
            retention_bytes: 10 << 30,
            statistics_minutes_hours: 24,
            statistics_hours_days: 31,
            max_job_bytes: 64 << 20,
            max_body_memory: 512 << 20,
            max_result_bytes: 64 << 20,
            chunk_size: DEFAULT_CHUNK_SIZE,
            lease_target_ms: 100,
            lease_timeout_ms: 60_000,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            aging_interval_ms: 30_000,
            evict_after_ms: 5_000,
            recovery_ms: 2_500,
            max_inflight: 1_000,
            no_worker_timeout_ms: 10_000,
            dashboard: Switch::On,
            drain_timeout_ms: 10_000,
            doors: DoorSettings::default(),
        }
    }
}

/// Every variable, as the comments of [`Config`] and [`DoorSettings`] describe it.
#[must_use]
pub fn variables() -> Vec<Variable> {
    let mut variables = variables_of(include_str!("config.rs"));
    variables.extend(DoorSettings::variables());
    variables
}

impl Config {
    /// Reads and checks the environment.
    ///
    /// # Errors
    /// A variable is out of its range.
    pub fn from_env() -> anyhow::Result<Self> {
        let config = Self { doors: service::from_env()?, ..service::from_env()? };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> anyhow::Result<()> {
        ensure!(self.max_inflight >= 1, "DIVVY_MAX_INFLIGHT must be at least 1");
        let longest_body = self.max_job_bytes.max(self.max_result_bytes.saturating_add(REPORT_OVERHEAD_BYTES));
        ensure!(
            self.max_body_memory >= longest_body,
            "DIVVY_MAX_BODY_MEMORY must be at least {longest_body}, so that the longest job and the longest results fit, \
             but is {}",
            self.max_body_memory
        );
        ensure!(
            self.results_url.as_ref().is_none_or(|url| url.scheme() != "memory"),
            "DIVVY_RESULTS_URL must name a place that outlives the process, such as file:///mnt/results: results in \
             memory are lost with it"
        );
        for (name, least_ms, value_ms) in [
            ("DIVVY_LEASE_TARGET_MS", 1, self.lease_target_ms),
            ("DIVVY_LEASE_TIMEOUT_MS", 1, self.lease_timeout_ms),
            ("DIVVY_AGING_INTERVAL_MS", 1, self.aging_interval_ms),
            ("DIVVY_EVICT_AFTER_MS", 2_000, self.evict_after_ms),
            ("DIVVY_RECOVERY_MS", 0, self.recovery_ms),
            ("DIVVY_NO_WORKER_TIMEOUT_MS", 0, self.no_worker_timeout_ms),
            ("DIVVY_DRAIN_TIMEOUT_MS", 0, self.drain_timeout_ms),
        ] {
            let allowed = least_ms..=MAX_TIMEOUT_MS;
            ensure!(
                allowed.contains(&value_ms),
                "{name} must be from {least_ms} to {MAX_TIMEOUT_MS}, but is {value_ms}"
            );
        }
        Ok(())
    }

    pub(crate) fn store_settings(&self) -> StoreSettings {
        let max_age = Duration::from_hours(24).saturating_mul(self.retention_days);
        StoreSettings {
            data_dir: self.data_dir.clone(),
            results_url: self.results_url.clone(),
            retention: Retention { max_age, max_bytes: self.retention_bytes },
        }
    }

    pub(crate) fn statistics_retention(&self) -> StatisticsRetention {
        let hours = |count: u64| Duration::from_hours(count);
        StatisticsRetention {
            minutes: hours(self.statistics_minutes_hours.into()),
            hours: hours(24 * u64::from(self.statistics_hours_days)),
        }
    }

    /// The engine's settings for the owner of a store's epoch.
    pub(crate) fn engine_settings(&self, epoch: u64) -> engine::Settings {
        engine::Settings {
            policy: Policy {
                lease_target: Duration::from_millis(self.lease_target_ms),
                lease_timeout: Duration::from_millis(self.lease_timeout_ms),
                aging_interval: Duration::from_millis(self.aging_interval_ms),
            },
            chunk_size: self.chunk_size,
            worker_wait: Duration::from_millis(self.no_worker_timeout_ms),
            max_unstored: MAX_UNSTORED,
            recovery: Duration::from_millis(self.recovery_ms),
            epoch,
            instance: fastrand::u64(..),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config: Config = envy::from_iter(variables)?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn nothing_set_is_valid_and_every_variable_is_read() {
        assert_eq!(read(&[]).expect("valid").chunk_size, DEFAULT_CHUNK_SIZE);
        let config =
            read(&[("chunk_size", "1"), ("evict_after_ms", "2000"), ("public_addr", "[::1]:0")]).expect("valid");
        assert_eq!((config.chunk_size.get(), config.evict_after_ms), (1, 2_000));
        assert!(config.public_addr.is_ipv6());
    }

    #[test]
    fn values_out_of_their_range_are_refused_before_anything_starts() {
        for (name, value) in [
            ("chunk_size", "0"),
            ("max_attempts", "0"),
            ("max_inflight", "0"),
            ("max_body_memory", "1048576"),
            ("evict_after_ms", "1999"),
            ("lease_target_ms", "0"),
            ("lease_timeout_ms", "-1"),
            ("drain_timeout_ms", "86400001"),
            ("public_addr", "8080"),
            ("results_url", "memory:///"),
        ] {
            assert!(read(&[(name, value)]).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn every_variable_is_described() {
        let described = variables();
        let fields = service::fields_of::<Config>();
        for field in fields.iter().filter(|field| **field != "pod_ip") {
            let name = format!("DIVVY_{}", field.to_uppercase());
            assert!(described.iter().any(|variable| variable.name == name && variable.help.len() > 10), "{name}");
        }
        assert!(fields.len() >= 7, "{fields:?}");
    }
}
