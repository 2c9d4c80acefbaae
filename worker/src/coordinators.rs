//! The coordinators' addresses: the hosts of the configured URLs are looked up every second.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::HeaderValue;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use url::{Host, Url};

use crate::heartbeat::INTERVAL;

/// The most addresses of one name that are used.
const MAX_ADDRESSES: usize = 64;

/// A coordinator's address, with the path prefix and the host name of its configured URL.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    url: Url,
    host: HeaderValue,
}

/// The addresses of one configured URL.
#[derive(Debug)]
pub(crate) struct Found {
    source: usize,
    endpoints: Vec<Endpoint>,
}

/// Whether a coordinator's name still has its address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed(Arc<AtomicBool>);

impl Listed {
    pub(crate) fn is_listed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The known addresses, each with the task that sends heartbeats to it.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    found: HashMap<usize, Vec<Endpoint>>,
    contacts: HashMap<Url, (Listed, AbortHandle)>,
}

impl Endpoint {
    /// `None` where the host's name cannot stand in a header.
    fn new(source: &Url, ip: IpAddr) -> Option<Self> {
        let name = source.host_str()?;
        let host = source.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let mut url = source.clone();
        url.set_ip_host(ip).ok()?;
        Some(Self { url, host: HeaderValue::from_str(&host).ok()? })
    }

    /// The address, for logs.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(crate) fn join(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

impl Directory {
    /// Takes the present addresses of one URL: each new one gets a task by `start`.
    pub(crate) fn update(
        &mut self,
        Found { source, endpoints }: Found,
        mut start: impl FnMut(Endpoint, Listed) -> AbortHandle,
    ) {
        self.found.insert(source, endpoints);
        for (listed, _) in self.contacts.values() {
            listed.0.store(false, Ordering::Relaxed);
        }
        self.contacts.retain(|_, (_, task)| !task.is_finished());
        for endpoint in self.found.values().flatten() {
            let new = || {
                let listed = Listed::default();
                (listed.clone(), start(endpoint.clone(), listed))
            };
            let (listed, _) = self.contacts.entry(endpoint.url.clone()).or_insert_with(new);
            listed.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Starts to look up each URL, on a task of its own.
pub(crate) fn look_up_all(urls: &[Url], found: &mpsc::Sender<Found>, tasks: &mut JoinSet<()>) {
    for (source, url) in urls.iter().cloned().enumerate() {
        tasks.spawn(look_up(source, url, found.clone()));
    }
}

async fn look_up(source: usize, url: Url, found: mpsc::Sender<Found>) {
    let port = url.port_or_known_default().unwrap_or_default();
    let name = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => return tell(&found, source, &url, vec![ip.into()]).await,
        Some(Host::Ipv6(ip)) => return tell(&found, source, &url, vec![ip.into()]).await,
        None => return,
    };
    let mut is_failing = false;
    loop {
        let next = Instant::now() + INTERVAL;
        let ips = match lookup_host((name.as_str(), port)).await {
            Ok(addresses) => one_family(addresses),
            Err(error) => {
                log_failure(&name, &error, &mut is_failing);
                Vec::new()
            }
        };
        // Without an answer the last addresses stay.
        if !ips.is_empty() {
            is_failing = false;
            tell(&found, source, &url, ips).await;
        }
        sleep_until(next).await;
    }
}

fn log_failure(name: &str, error: &impl Display, is_failing: &mut bool) {
    if !*is_failing {
        warn!(name, %error, "the coordinators' name cannot be looked up; the last known addresses stay");
    }
    *is_failing = true;
}

async fn tell(found: &mpsc::Sender<Found>, source: usize, url: &Url, ips: Vec<IpAddr>) {
    let endpoints = ips.into_iter().filter_map(|ip| Endpoint::new(url, ip)).collect();
    // The receiver ends with the worker.
    let _ = found.send(Found { source, endpoints }).await;
}

/// The IPv4 addresses, or the others if there are none: a coordinator that is reached over both would see this worker
/// under two addresses in turn.
fn one_family(addresses: impl Iterator<Item = SocketAddr>) -> Vec<IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.map(|address| address.ip()).partition(IpAddr::is_ipv4);
    let mut ips = if v4.is_empty() { v6 } else { v4 };
    ips.sort_unstable();
    ips.dedup();
    ips.truncate(MAX_ADDRESSES);
    ips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, ip: [u8; 4]) -> Endpoint {
        Endpoint::new(&url.parse().expect("a URL"), ip.into()).expect("an address")
    }

    #[test]
    fn an_address_keeps_the_path_and_the_name_of_its_url() {
        let endpoint = endpoint("http://grid.example:8081/inside/", [10, 0, 0, 7]);
        assert_eq!(
            endpoint.join(&["worker", "register", "w"]).as_str(),
            "http://10.0.0.7:8081/inside/worker/register/w"
        );
        assert_eq!(endpoint.host(), "grid.example:8081");
    }

    #[test]
    fn one_family_of_addresses_is_used_and_each_address_once() {
        let addresses = ["[::1]:1", "127.0.0.2:1", "127.0.0.1:1", "127.0.0.1:1"].map(|text| text.parse().expect("one"));
        assert_eq!(one_family(addresses.into_iter()), [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from));
        assert_eq!(one_family(["[::1]:1".parse().expect("one")].into_iter()).len(), 1);
    }

    #[tokio::test]
    async fn an_address_has_one_task_and_an_address_that_is_gone_is_no_longer_listed() {
        let (mut directory, mut tasks, mut started) = (Directory::default(), JoinSet::new(), Vec::new());
        let mut update = |source, ips: &[[u8; 4]]| {
            let endpoints = ips.iter().map(|ip| endpoint("http://name:1", *ip)).collect();
            directory.update(Found { source, endpoints }, |endpoint, listed| {
                started.push((endpoint.url.host_str().map(str::to_owned), listed));
                tasks.spawn(std::future::pending::<()>())
            });
            started
                .iter()
                .map(|(host, listed)| (host.clone().unwrap_or_default(), listed.is_listed()))
                .collect::<Vec<_>>()
        };
        let shown = |addresses: &[(&str, bool)]| -> Vec<(String, bool)> {
            addresses.iter().map(|(host, is_listed)| ((*host).to_owned(), *is_listed)).collect()
        };
        assert_eq!(update(0, &[[10, 0, 0, 1]]), shown(&[("10.0.0.1", true)]));
        assert_eq!(update(1, &[[10, 0, 0, 1], [10, 0, 0, 2]]), shown(&[("10.0.0.1", true), ("10.0.0.2", true)]));
        assert_eq!(update(1, &[]), shown(&[("10.0.0.1", true), ("10.0.0.2", false)]));
        assert_eq!(update(0, &[[10, 0, 0, 2]]), shown(&[("10.0.0.1", false), ("10.0.0.2", true)]));
    }
}
