//! Configuration: every variable of the worker, its unit and its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use api::MAX_SLOTS_PER_WORKER;
use api::client::{ClientTls, base_url};
use model::{Labels, WorkerId, distinct, split_word};
use serde::Deserialize;
use service::kubernetes::{ACCOUNT_DIR, PodName};
use service::{Credential, DoorSettings, Variable, WorkerToken, variables_of};
use url::Url;

/// The longest time that any setting may have, a week: it is added to clocks.
const MAX_TIMEOUT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The environment of `divvy-worker`. Logs have their own two variables, `DIVVY_LOG` and `DIVVY_LOG_FORMAT`.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// `DIVVY_LISTEN_ADDR`: address of the listener for leases. Default `0.0.0.0:8082`; port 0 picks a free one.
    #[serde(default = "default_listen_addr")]
    pub listen_addr: SocketAddr,
    /// `DIVVY_COORDINATOR`: the internal URLs of the coordinators of one grid, up to 16 with commas between them. Every
    /// address that a name has is a coordinator; names are looked up each second. Where a name has addresses of both
    /// families, IPv4 is used. A path goes before the coordinator's own ones; a user, a password, a query or a fragment
    /// is refused. Default `http://127.0.0.1:8081`.
    #[serde(default)]
    pub coordinator: Coordinators,
    /// `DIVVY_WORKER_ID`: the name to register under. Default: `POD_IP` with dashes for dots, else host name and port.
    pub worker_id: Option<WorkerId>,
    /// `DIVVY_SLOTS`: leases computed at the same time, 1 to 1024. Default: the cores that the process may use, CPU
    /// affinity and cgroup limit included.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// `DIVVY_WORKER_LABELS`: labels that jobs can require or prefer, as `key=value,key=value`; a colon does as well. A key
    /// with an empty value is ignored, such as one from an unset template variable. Default: none.
    #[serde(default)]
    pub worker_labels: WorkerLabels,
    /// `DIVVY_DRAIN_TIMEOUT_MS`: how long after SIGTERM leases may go on and outcomes may wait to be settled before they
    /// are handed back; a week at most. Default 10000.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
    /// `DIVVY_HEARTBEAT_TIMEOUT_MS`: how long a coordinator may take to answer a heartbeat; one that is late twice in a
    /// row counts as away. At least 100, a week at most. Default 1000.
    #[serde(default = "default_heartbeat_timeout_ms")]
    pub heartbeat_timeout_ms: u64,
    /// `DIVVY_ORPHAN_TIMEOUT_MS`: when no coordinator has accepted a heartbeat for so long, leases of stored jobs are stopped
    /// and their outcomes dropped; at least 1, a week at most. Long tasks need more than the longest absence of a
    /// coordinator. A highest epoch that no coordinator shows for so long, 10 s at least, is forgotten too. Default 60000.
    #[serde(default = "default_orphan_timeout_ms")]
    pub orphan_timeout_ms: u64,
    /// `DIVVY_MAX_HELD_BYTES`: outcomes of stored jobs that are kept until a coordinator has settled them; beyond it such
    /// leases are refused with 503. At least 1. Default 268435456 (256 MiB).
    #[serde(default = "default_max_held_bytes")]
    pub max_held_bytes: u64,
    /// `DIVVY_PROGRAMS`: a TOML file of programs that this worker brings, each with a name and a command. Default: none.
    pub programs: Option<PathBuf>,
    /// `DIVVY_ALLOW_NATIVE`: 1 to run uploaded native executables, caged. Default 0.
    #[serde(default, deserialize_with = "service::flag")]
    pub allow_native: bool,
    /// `DIVVY_PROGRAM_DIR`: directory of uploaded programs, their compiled forms and scratch directories; made with mode
    /// 0700. Workers of one user may share it. Default: `divvy-programs-UID` in the directory for temporary files.
    pub program_dir: Option<PathBuf>,
    /// `DIVVY_PROGRAM_CACHE_BYTES`: uploaded programs on disk, and as much again of compiled ones; the least recently used go
    /// first. Also the longest input of a program that combines results. Default 1073741824, 1 GiB.
    #[serde(default = "default_program_cache_bytes")]
    pub program_cache_bytes: u64,
    /// `DIVVY_PROGRAM_MEMORY_BYTES`: the most memory that a task of a program gets, whatever its job asks for; times the
    /// slots it should be less than the worker's own limit. Default 1073741824, 1 GiB.
    #[serde(default = "default_program_memory_bytes")]
    pub program_memory_bytes: u64,
    /// `DIVVY_WORKER_TOKEN`: secret shared with the coordinator, demanded in both directions. Default: none.
    #[serde(default)]
    pub worker_token: WorkerToken,
    /// `DIVVY_WORKER_TOKEN_FILE`: a file of the token to show to coordinators instead of the shared one, such as the
    /// projected token of a service account of Kubernetes; read again when it changes. Default: none.
    pub worker_token_file: Option<PathBuf>,
    /// `DIVVY_DELETION_COST_POD`: the worker's own pod, as `NAMESPACE/NAME`, whose annotation
    /// `controller.kubernetes.io/pod-deletion-cost` is kept at the number of busy slots. Default: none.
    pub deletion_cost_pod: Option<PodName>,
    /// `DIVVY_KUBERNETES_ACCOUNT_DIR`: directory of the files `token` and `ca.crt` for requests to the API server. Default
    /// `/var/run/secrets/kubernetes.io/serviceaccount`.
    #[serde(default = "default_account_dir")]
    pub kubernetes_account_dir: PathBuf,
    /// Host names and TLS of the listener.
    #[serde(skip)]
    pub doors: DoorSettings,
    /// `POD_IP`, without the prefix of the others: the pod's address, from the Kubernetes downward API.
    #[serde(skip)]
    pub pod_ip: Option<String>,
}

/// The coordinators' URLs as the environment gives them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Coordinators(Vec<Url>);

impl Coordinators {
    const MAX_URLS: usize = 16;

    /// At least one.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.0
    }
}

impl Default for Coordinators {
    fn default() -> Self {
        Self(vec![Url::parse("http://127.0.0.1:8081").expect("a valid URL")])
    }
}

impl TryFrom<String> for Coordinators {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let url = |part| base_url(part).map_err(|error| anyhow!("{error}: name URLs such as http://127.0.0.1:8081"));
        let urls: Vec<_> = parts.map(url).collect::<anyhow::Result<_>>()?;
        ensure!(!urls.is_empty(), "the list must name a URL such as http://127.0.0.1:8081");
        ensure!(urls.len() <= Self::MAX_URLS, "the list must have at most {} URLs", Self::MAX_URLS);
        Ok(Self(urls))
    }
}

/// Labels as the environment gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WorkerLabels(pub Labels);

impl TryFrom<String> for WorkerLabels {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let label = |pair: &str| {
            let wrong = || format!("{pair:?} must be key=value or key:value");
            let (key, value) = split_word(pair);
            let value = value.with_context(wrong)?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        let pairs = pairs.map(label).collect::<anyhow::Result<Vec<_>>>()?;
        let mut labels = distinct(pairs).map_err(|key| anyhow!("the list has {key:?} twice"))?;
        labels.retain(|_, value| !value.is_empty());
        model::check_words("the list", &labels)?;
        Ok(Self(labels))
    }
}

/// Every variable, as the comments of [`Config`] and [`DoorSettings`] describe it.
#[must_use]
pub fn variables() -> Vec<Variable> {
    let mut variables = variables_of(include_str!("config.rs"));
    variables.extend(DoorSettings::internal_variables());
    variables
}

impl Config {
    /// Reads and checks the environment.
    ///
    /// # Errors
    /// A variable is out of its range.
    pub fn from_env() -> anyhow::Result<Self> {
        let config = Self::without_files()?;
        ClientTls::from_env()?;
        Ok(config)
    }

    /// As [`Self::from_env`], but opens no file that a variable names: a check may run on another machine.
    ///
    /// # Errors
    /// A variable is out of its range.
    pub fn without_files() -> anyhow::Result<Self> {
        let mut config = Self { doors: service::from_env()?, ..service::from_env()? };
        config.pod_ip = std::env::var("POD_IP").ok().filter(|ip| !ip.is_empty());
        config.validate()?;
        config.doors.check()?;
        Ok(config)
    }

    fn validate(&self) -> anyhow::Result<()> {
        let slots = 1..=MAX_SLOTS_PER_WORKER;
        ensure!(
            slots.contains(&self.slots),
            "DIVVY_SLOTS must be from 1 to {MAX_SLOTS_PER_WORKER}, but is {}",
            self.slots
        );
        for (name, least_ms, value_ms) in [
            ("DIVVY_DRAIN_TIMEOUT_MS", 0, self.drain_timeout_ms),
            ("DIVVY_HEARTBEAT_TIMEOUT_MS", 100, self.heartbeat_timeout_ms),
            ("DIVVY_ORPHAN_TIMEOUT_MS", 1, self.orphan_timeout_ms),
        ] {
            let allowed = least_ms..=MAX_TIMEOUT_MS;
            ensure!(
                allowed.contains(&value_ms),
                "{name} must be from {least_ms} to {MAX_TIMEOUT_MS}, but is {value_ms}"
            );
        }
        for (name, bytes) in [
            ("DIVVY_MAX_HELD_BYTES", self.max_held_bytes),
            ("DIVVY_PROGRAM_CACHE_BYTES", self.program_cache_bytes),
            ("DIVVY_PROGRAM_MEMORY_BYTES", self.program_memory_bytes),
        ] {
            ensure!(bytes > 0, "{name} must be at least 1, but is 0");
        }
        Ok(())
    }

    /// [`Self::drain_timeout_ms`] as a duration.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// [`Self::heartbeat_timeout_ms`] as a duration.
    #[must_use]
    pub fn heartbeat_timeout(&self) -> Duration {
        Duration::from_millis(self.heartbeat_timeout_ms)
    }

    /// [`Self::orphan_timeout_ms`] as a duration.
    #[must_use]
    pub fn orphan_timeout(&self) -> Duration {
        Duration::from_millis(self.orphan_timeout_ms)
    }

    /// The directory of uploaded programs, their compiled forms and scratch directories.
    #[must_use]
    pub fn program_directory(&self) -> PathBuf {
        let user = rustix::process::getuid().as_raw();
        self.program_dir.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("divvy-programs-{user}")))
    }

    /// The credential shown to coordinators.
    ///
    /// # Errors
    /// The file of the token cannot be read.
    pub fn credential(&self) -> anyhow::Result<Credential> {
        match &self.worker_token_file {
            Some(file) => Credential::from_file(file).context("read the token of DIVVY_WORKER_TOKEN_FILE"),
            None => Ok(Credential::shared(self.worker_token.clone())),
        }
    }

    /// The name to register under, for a worker that listens on `port`.
    ///
    /// # Errors
    /// The host's name, where it is needed, is no worker id.
    pub fn name(&self, port: u16) -> anyhow::Result<WorkerId> {
        if let Some(id) = &self.worker_id {
            return Ok(id.clone());
        }
        let name = match &self.pod_ip {
            Some(ip) => ip.replace(['.', ':'], "-"),
            None => format!("{}-{port}", sysinfo::System::host_name().context("read the host's name")?),
        };
        name.parse().with_context(|| format!("{name:?} cannot be the worker's name: set DIVVY_WORKER_ID"))
    }
}

fn default_account_dir() -> PathBuf {
    ACCOUNT_DIR.into()
}

fn default_listen_addr() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 8082).into()
}

fn default_slots() -> u32 {
    available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)).min(MAX_SLOTS_PER_WORKER)
}

fn default_drain_timeout_ms() -> u64 {
    10_000
}

fn default_heartbeat_timeout_ms() -> u64 {
    1_000
}

fn default_orphan_timeout_ms() -> u64 {
    60_000
}

fn default_max_held_bytes() -> u64 {
    256 * 1024 * 1024
}

fn default_program_cache_bytes() -> u64 {
    1 << 30
}

fn default_program_memory_bytes() -> u64 {
    1 << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Config {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        envy::from_iter(variables).expect("valid variables")
    }

    #[test]
    fn a_worker_is_named_after_its_pod_else_its_host_and_port() {
        let mut config = config(&[]);
        let host = sysinfo::System::host_name().expect("a host name");
        assert_eq!(config.name(8082).expect("a name").as_str(), format!("{host}-8082"));
        config.pod_ip = Some("10.1.2.3".to_owned());
        assert_eq!(config.name(8082).expect("a name").as_str(), "10-1-2-3");
        config.worker_id = Some("mine".parse().expect("a name"));
        assert_eq!(config.name(8082).expect("a name").as_str(), "mine");
    }

    #[test]
    fn values_out_of_their_range_are_refused_before_anything_starts() {
        assert!(config(&[]).validate().is_ok());
        let zeros = ["slots", "orphan_timeout_ms", "max_held_bytes", "program_cache_bytes", "program_memory_bytes"];
        let timeouts = ["orphan_timeout_ms", "drain_timeout_ms", "heartbeat_timeout_ms"];
        let most = timeouts.map(|name| (name, "18446744073709551615"));
        let others = [("slots", "1025"), ("heartbeat_timeout_ms", "99")];
        for (name, value) in zeros.map(|name| (name, "0")).into_iter().chain(most).chain(others) {
            assert!(config(&[(name, value)]).validate().is_err(), "{name}={value}");
        }
    }

    #[test]
    fn coordinators_are_urls_with_commas_between_them_and_nothing_secret_in_them() {
        let urls = |text: &str| Coordinators::try_from(text.to_owned()).map(|list| list.urls().to_vec());
        let parsed = |text: &str| Url::parse(text).expect("a URL");
        let two = urls("http://a:1, http://[::1]:2/prefix/,").expect("two");
        assert_eq!(two, [parsed("http://a:1"), parsed("http://[::1]:2/prefix/")]);
        for wrong in ["", ",", "a:1", "ftp://x:1", "data:x", "http://x:1/?q", "http://x:1/#f", "http://x:70000"] {
            assert!(urls(wrong).is_err(), "{wrong}");
        }
        assert!(urls(&["http://a:1"; 17].join(",")).is_err());
        for secret in ["http://me:hush@x:1", "http://hush@x:1", "http://me:hush@", "http://me:hush@x:1?q"] {
            let error = urls(secret).expect_err("refused");
            assert!(!format!("{error:#}").contains("hush"), "{error:#}");
        }
    }

    #[test]
    fn labels_are_pairs_of_key_and_value() {
        let labels = config(&[("worker_labels", "gpu:yes, zone=a=b,rack=,")]).worker_labels.0;
        let expected = [("gpu", "yes"), ("zone", "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels, Labels::from(expected));
        for wrong in ["gpu", "=yes", "a=b,c", "a=b,a=c"] {
            assert!(WorkerLabels::try_from(wrong.to_owned()).is_err(), "{wrong}");
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
