//! Configuration: every variable of the coordinator, its unit and its default.

mod places;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use jiff::Timestamp;
use model::{DEFAULT_CHUNK_SIZE, DEFAULT_MAX_ATTEMPTS, INLINE_OUTPUT_BYTES};
use scheduler::Policy;
use serde::Deserialize;
use service::kubernetes::{ACCOUNT_DIR, ServiceAccounts};
use service::{DoorSettings, Variable, WorkerToken, variables_of};
use store::Retention;
use store::shared::Member;
use store::statistics::StatisticsRetention;
use store_sqlite::StoreSettings;
use url::Url;
use uuid::Uuid;
use workloads::MAX_OUTPUT_BYTES;

use crate::advertised::advertised;
use crate::http::{REPORT_OVERHEAD_BYTES, UPLOAD_OVERHEAD_BYTES};
use crate::kafka::{Kafka, KafkaConfig};

pub use places::StoreUrl;

/// The longest time that any setting may have.
const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// The usual lease of the leadership, and the shortest: [`store::shared::LEASE`].
const LEADERSHIP_LEASE_MS: u64 = 1_200;

/// The longest lease of the leadership: a request waits 10 s for the next leader, which needs time to begin.
const MAX_LEADERSHIP_LEASE_MS: u64 = 8_000;

/// Changes that may wait for the disk before no more work is leased.
const MAX_UNSTORED: u64 = 50_000;

/// The environment of `divvy-coordinator`. Logs have their own two variables, `DIVVY_LOG` and `DIVVY_LOG_FORMAT`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `DIVVY_PUBLIC_ADDR`: address of the public listener, for clients. Default `0.0.0.0:8080`; port 0 picks a free one.
    pub public_addr: SocketAddr,
    /// `DIVVY_INTERNAL_ADDR`: address of the internal listener, for workers and metrics. Default `0.0.0.0:8081`.
    pub internal_addr: SocketAddr,
    /// `DIVVY_WORKER_TOKEN`: secret shared with the workers, demanded in both directions. Default: none.
    pub worker_token: WorkerToken,
    /// `DIVVY_WORKER_SERVICE_ACCOUNTS`: service accounts of Kubernetes, as `NAMESPACE:NAME` with commas between, whose tokens
    /// workers may show instead of the shared one. The API server is asked about each token. Default: none.
    pub worker_service_accounts: ServiceAccounts,
    /// `DIVVY_WORKER_AUDIENCE`: the audience that tokens of service accounts must be for. Default `divvy`.
    pub worker_audience: String,
    /// `DIVVY_WORKER_REVIEW_AGE_MS`: how long the API server's acceptance of a token is valid, at most; it is renewed
    /// earlier. Default 50000, from 1000 to 59000.
    pub worker_review_age_ms: u64,
    /// `DIVVY_KUBERNETES_ACCOUNT_DIR`: directory of the files `token` and `ca.crt` for requests to the API server. Default
    /// `/var/run/secrets/kubernetes.io/serviceaccount`.
    pub kubernetes_account_dir: PathBuf,
    /// `DIVVY_DATA_DIR`: directory of jobs, events and results, in `divvy.db` and beside it. Default `divvy-data`.
    pub data_dir: PathBuf,
    /// `DIVVY_STORE_URL`: a PostgreSQL that several coordinators share, such as `postgres://user:password@host/database`,
    /// with the parameters of libpq and several hosts with commas between. Needs `DIVVY_RESULTS_URL`. Default: none, SQLite
    /// in the data directory.
    pub store_url: Option<StoreUrl>,
    /// `DIVVY_RESULTS_URL`: location of results above 64 KiB, such as `file:///mnt/results`. Default: `results` in
    /// `DIVVY_DATA_DIR`.
    #[serde(deserialize_with = "places::results_url")]
    pub results_url: Option<Url>,
    /// `DIVVY_COORDINATOR_ID`: the name of this coordinator in its grid. Default: the host's name, on Kubernetes the pod's.
    pub coordinator_id: Option<String>,
    /// `DIVVY_ADVERTISE_PUBLIC_ADDR`: host and port where the other coordinators reach the public port. Default:
    /// `DIVVY_PUBLIC_ADDR`, with `POD_IP` or else an address of the host in place of `0.0.0.0`.
    pub advertise_public_addr: Option<String>,
    /// `DIVVY_ADVERTISE_INTERNAL_ADDR`: host and port where the other coordinators reach the internal port. Default:
    /// `DIVVY_INTERNAL_ADDR`, with `POD_IP` or else an address of the host in place of `0.0.0.0`.
    pub advertise_internal_addr: Option<String>,
    /// `DIVVY_LEADERSHIP_LEASE_MS`: how long this coordinator leads after it last reached the shared store, before another one
    /// may take over. Default 1200, from 1200 to 8000: longer where the network or the machine stands still for so long.
    pub leadership_lease_ms: u64,
    /// `DIVVY_RETENTION_DAYS`: jobs that are over are forgotten after this many days. Default 30.
    pub retention_days: u32,
    /// `DIVVY_RETENTION_BYTES`: jobs that are over are forgotten above this total, the oldest first. Default 10737418240, 10
    /// GiB.
    pub retention_bytes: u64,
    /// `DIVVY_STATISTICS_MINUTES_HOURS`: statistics by the minute are kept this many hours. Default 24.
    pub statistics_minutes_hours: u32,
    /// `DIVVY_STATISTICS_HOURS_DAYS`: statistics by the hour are kept this many days; those by the day for ever. Default 31.
    pub statistics_hours_days: u32,
    /// `DIVVY_MAX_JOB_BYTES`: the longest body of a job. Default 67108864, 64 MiB.
    pub max_job_bytes: usize,
    /// `DIVVY_MAX_BODY_MEMORY`: the most memory of all request bodies, and of the jobs in them until these are stored; long
    /// answers may take as much until clients have read them. Further requests get 503. Default 536870912, 512 MiB.
    pub max_body_memory: usize,
    /// `DIVVY_MAX_RESULT_BYTES`: the longest results of one lease, as JSON; outputs of programs above 64 KiB do not count.
    /// Default 67108864, 64 MiB.
    pub max_result_bytes: usize,
    /// `DIVVY_MAX_OUTPUT_BYTES`: the longest output that a task of a program may be allowed, up to 68719476736, 64 GiB.
    /// Default 1073741824, 1 GiB.
    pub max_output_bytes: u64,
    /// `DIVVY_MAX_OUTCOME_MEMORY`: the most memory of outcomes, beside those below 1 KiB, and of uploaded outputs until they are on
    /// disk; further ones wait at their workers. Default 134217728, 128 MiB.
    pub max_outcome_memory: usize,
    /// `DIVVY_MAX_PROGRAM_BYTES`: the longest program upload. Default 67108864, 64 MiB, as much as a worker compiles.
    pub max_program_bytes: u64,
    /// `DIVVY_CHUNK_SIZE`: numbers from a task's first to its last. Default 2500000, at least 1.
    pub chunk_size: NonZeroU64,
    /// `DIVVY_LEASE_TARGET_MS`: computing time that one lease should carry. Default 100.
    pub lease_target_ms: u64,
    /// `DIVVY_LEASE_TIMEOUT_MS`: how long a lease may take, beyond ten times the estimate for its worker, before another worker
    /// gets its tasks. Default 60000.
    pub lease_timeout_ms: u64,
    /// `DIVVY_MAX_ATTEMPTS`: attempts at one task before its job fails, for requests that wait for their answer; other jobs
    /// set it themselves. Default 4, at least 1.
    pub max_attempts: NonZeroU32,
    /// `DIVVY_AGING_INTERVAL_MS`: a job that waits this long for its next lease counts as one priority higher, and so
    /// on, so that none starves. Default 30000.
    pub aging_interval_ms: u64,
    /// `DIVVY_EVICT_AFTER_MS`: silence after which a worker is removed. Default 5000, at least 2000: heartbeats come
    /// every second.
    pub evict_after_ms: u64,
    /// `DIVVY_RECOVERY_MS`: how long after a start the tasks of started jobs wait, at most, for the workers that hold
    /// them. Default 2500: a worker tries again within a second when its coordinator was away.
    pub recovery_ms: u64,
    /// `DIVVY_MAX_INFLIGHT`: requests computed or waiting at the same time; further ones get 503. Default 1000.
    pub max_inflight: u32,
    /// `DIVVY_NO_WORKER_TIMEOUT_MS`: how long a request waits while no worker is ready for work. Default 10000.
    pub no_worker_timeout_ms: u64,
    /// `DIVVY_DASHBOARD`: `on` or `off`, the pages for people at `/` of the public port. Default `on`.
    pub dashboard: Switch,
    /// `DIVVY_DRAIN_TIMEOUT_MS`: how long requests may go on after SIGTERM before they get 503. Default 10000.
    pub drain_timeout_ms: u64,
    /// `DIVVY_KAFKA_BROKERS`: Kafka's brokers as `host:port,…`: events and the workers' state go out to them, jobs come in.
    /// Default: none, and no Kafka.
    pub kafka_brokers: String,
    /// `DIVVY_KAFKA_CONFIG`: further settings of librdkafka as `key=value,…`, such as TLS and SASL; a comma in a value is
    /// `\,`. Default: none.
    pub kafka_config: KafkaConfig,
    /// `DIVVY_KAFKA_PREFIX`: beginning of the names of topics, by which several grids share brokers. Default `divvy`.
    pub kafka_prefix: String,
    /// `DIVVY_LOCK_TIMEOUT_MS`: how long a start waits for another coordinator to leave the data directory, or for a database
    /// that cannot be reached. Default 15000: as long as a stop may take; 0 refuses at once.
    pub lock_timeout_ms: u64,
    /// Tokens, host names and TLS of the listeners.
    #[serde(skip)]
    pub doors: DoorSettings,
    /// `POD_IP`, without the prefix of the others: the pod's address, from the Kubernetes downward API.
    #[serde(skip)]
    pub pod_ip: Option<IpAddr>,
}

/// A part that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// The part is on.
    On,
    /// The part is off.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_addr: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            internal_addr: (Ipv4Addr::UNSPECIFIED, 8081).into(),
            worker_token: WorkerToken::default(),
            worker_service_accounts: ServiceAccounts::default(),
            worker_audience: "divvy".to_owned(),
            worker_review_age_ms: 50_000,
            kubernetes_account_dir: PathBuf::from(ACCOUNT_DIR),
            data_dir: PathBuf::from("divvy-data"),
            store_url: None,
            results_url: None,
            coordinator_id: None,
            advertise_public_addr: None,
            advertise_internal_addr: None,
            leadership_lease_ms: LEADERSHIP_LEASE_MS,
            retention_days: 30,
            retention_bytes: 10 << 30,
            statistics_minutes_hours: 24,
            statistics_hours_days: 31,
            max_job_bytes: 64 << 20,
            max_body_memory: 512 << 20,
            max_result_bytes: 64 << 20,
            max_output_bytes: 1 << 30,
            max_outcome_memory: 128 << 20,
            max_program_bytes: 64 << 20,
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
            kafka_brokers: String::new(),
            kafka_config: KafkaConfig::default(),
            kafka_prefix: "divvy".to_owned(),
            lock_timeout_ms: 15_000,
            doors: DoorSettings::default(),
            pod_ip: None,
        }
    }
}

/// The address that the downward API of Kubernetes gives.
fn pod_ip(text: String) -> anyhow::Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().ok();
    ensure!(address.is_some(), "POD_IP must be an IP address, but is {text:?}");
    Ok(address)
}

/// Whether a text is `HOST:PORT` with a port that can be asked, and no URL.
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let of_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match of_address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    is_host && port.parse::<NonZeroU16>().is_ok()
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
        let config = Self::without_files()?;
        config.doors.to_workers()?;
        Ok(config)
    }

    /// As [`Self::from_env`], but opens no file that a variable names: a check may run on another machine.
    ///
    /// # Errors
    /// A variable is out of its range.
    pub fn without_files() -> anyhow::Result<Self> {
        let mut config = Self { doors: service::from_env()?, ..service::from_env()? };
        config.pod_ip = pod_ip(std::env::var("POD_IP").unwrap_or_default())?;
        config.validate()?;
        config.doors.check()?;
        Kafka::check(&config)?;
        Ok(config)
    }

    fn validate(&self) -> anyhow::Result<()> {
        ensure!(self.max_inflight >= 1, "DIVVY_MAX_INFLIGHT must be at least 1, but is 0");
        let longest_body = self.max_job_bytes.max(self.max_result_bytes.saturating_add(REPORT_OVERHEAD_BYTES));
        ensure!(
            self.max_body_memory >= longest_body,
            "DIVVY_MAX_BODY_MEMORY must be at least {longest_body}, so that the longest job and the longest results fit, \
             but is {}",
            self.max_body_memory
        );
        ensure!(
            (INLINE_OUTPUT_BYTES..=MAX_OUTPUT_BYTES).contains(&self.max_output_bytes),
            "DIVVY_MAX_OUTPUT_BYTES must be from {INLINE_OUTPUT_BYTES} to {MAX_OUTPUT_BYTES}, but is {}",
            self.max_output_bytes
        );
        places::check(self.store_url.as_ref(), self.results_url.as_ref())?;
        let longest_upload = self.max_program_bytes.saturating_add(UPLOAD_OVERHEAD_BYTES as u64);
        ensure!(
            self.store_url.is_none() || self.max_body_memory as u64 >= longest_upload,
            "DIVVY_MAX_BODY_MEMORY must be at least {longest_upload} with DIVVY_STORE_URL, so that the longest program can be \
             passed on to the coordinator that leads, but is {}",
            self.max_body_memory
        );
        ensure!(
            (1_000..=59_000).contains(&self.worker_review_age_ms),
            "DIVVY_WORKER_REVIEW_AGE_MS must be from 1000 to 59000, but is {}",
            self.worker_review_age_ms
        );
        ensure!(
            (LEADERSHIP_LEASE_MS..=MAX_LEADERSHIP_LEASE_MS).contains(&self.leadership_lease_ms),
            "DIVVY_LEADERSHIP_LEASE_MS must be from {LEADERSHIP_LEASE_MS} to {MAX_LEADERSHIP_LEASE_MS}, but is {}",
            self.leadership_lease_ms
        );
        for (name, address) in [
            ("DIVVY_ADVERTISE_PUBLIC_ADDR", &self.advertise_public_addr),
            ("DIVVY_ADVERTISE_INTERNAL_ADDR", &self.advertise_internal_addr),
        ] {
            if let Some(address) = address.as_ref().filter(|address| !is_host_and_port(address)) {
                bail!("{name} must be HOST:PORT, but is {address:?}");
            }
        }
        ensure!(!self.worker_audience.is_empty(), "DIVVY_WORKER_AUDIENCE must not be empty");
        for (name, least_ms, value_ms) in [
            ("DIVVY_LEASE_TARGET_MS", 1, self.lease_target_ms),
            ("DIVVY_LEASE_TIMEOUT_MS", 1, self.lease_timeout_ms),
            ("DIVVY_AGING_INTERVAL_MS", 1, self.aging_interval_ms),
            ("DIVVY_EVICT_AFTER_MS", 2_000, self.evict_after_ms),
            ("DIVVY_RECOVERY_MS", 0, self.recovery_ms),
            ("DIVVY_NO_WORKER_TIMEOUT_MS", 0, self.no_worker_timeout_ms),
            ("DIVVY_DRAIN_TIMEOUT_MS", 0, self.drain_timeout_ms),
            ("DIVVY_LOCK_TIMEOUT_MS", 0, self.lock_timeout_ms),
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
        StoreSettings {
            data_dir: self.data_dir.clone(),
            results_url: self.results_url.clone(),
            retention: self.retention(),
        }
    }

    /// The shared store, where there is one.
    pub(crate) fn postgres_settings(&self) -> Option<store_postgres::StoreSettings> {
        let url = self.store_url.as_ref()?.0.clone();
        let lease = Duration::from_millis(self.leadership_lease_ms);
        let patience = Duration::from_millis(self.lock_timeout_ms);
        Some(store_postgres::StoreSettings { url, results_url: self.results_url.clone(), lease, patience })
    }

    pub(crate) fn worker_review_age(&self) -> Duration {
        Duration::from_millis(self.worker_review_age_ms)
    }

    pub(crate) fn retention(&self) -> Retention {
        let max_age = Duration::from_hours(24).saturating_mul(self.retention_days);
        Retention { max_age, max_bytes: self.retention_bytes }
    }

    /// This run of this coordinator, as the others of its grid know it.
    pub(crate) fn member(&self, public: SocketAddr, internal: SocketAddr) -> Member {
        let host_name = || sysinfo::System::host_name().unwrap_or_else(|_| "coordinator".to_owned());
        Member {
            id: Uuid::new_v4(),
            name: self.coordinator_id.clone().unwrap_or_else(host_name),
            public_address: advertised(self.advertise_public_addr.as_deref(), public, self.pod_ip),
            internal_address: advertised(self.advertise_internal_addr.as_deref(), internal, self.pod_ip),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Timestamp::now(),
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
            secret: fastrand::u64(..),
        }
    }
}

#[cfg(test)]
mod tests;
