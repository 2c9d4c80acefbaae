//! Answers of `GET /metrics`, with Prometheus' labels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use crate::helpers::{eventually, try_request};

/// The addresses at which a grid is scraped.
pub(super) struct Grid {
    pub(super) coordinators: Vec<SocketAddr>,
    pub(super) workers: Vec<SocketAddr>,
}

/// The samples of one moment by their series; those of a process that does not answer are missing.
pub(super) type Scrape = BTreeMap<String, String>;

impl Grid {
    /// Every sample as the processes answer.
    pub(super) fn scrape_with_disk(&self) -> Scrape {
        let coordinators = self.coordinators.iter().map(|address| ("coordinator", address));
        let workers = self.workers.iter().map(|address| ("worker", address));
        coordinators.chain(workers).flat_map(|(job, address)| samples(job, *address)).collect()
    }

    /// The disk counts as empty: how full the one of this machine is says nothing about the grid.
    pub(super) fn scrape(&self) -> Scrape {
        let mut scrape = self.scrape_with_disk();
        let free = |(series, size): (&String, &String)| {
            let labels = series.strip_prefix("divvy_disk_size_bytes")?;
            Some((format!("divvy_disk_free_bytes{labels}"), size.clone()))
        };
        let empty: Vec<_> = scrape.iter().filter_map(free).collect();
        scrape.extend(empty);
        scrape
    }

    /// A scrape in which every worker is ready and its heartbeats are taken: for a moment this does not hold of a worker that is
    /// late with a heartbeat or has just started.
    pub(super) fn scrape_well(&self) -> Scrape {
        let workers = self.workers.len() as f64;
        let sum = |scrape: &Scrape, name: &str, label: &str| -> f64 {
            let is_meant = |series: &str| series.starts_with(name) && series.contains(label);
            let values = scrape.iter().filter(|(series, _)| is_meant(series.as_str()));
            values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
        };
        eventually("every worker is ready and has a coordinator", || {
            let scrape = self.scrape();
            let are_ready = sum(&scrape, "divvy_workers{", r#"state="ready""#) >= workers;
            (are_ready && sum(&scrape, "divvy_worker_coordinators{", "") >= workers).then_some(scrape)
        })
    }
}

fn samples(job: &str, address: SocketAddr) -> Vec<(String, String)> {
    let Some(answer) = try_request(address, "GET", "/metrics", &[], "") else { return Vec::new() };
    assert_eq!(answer.status, 200, "{answer:?}");
    let own = format!(r#"namespace="divvy",job="{job}",instance="{address}",pod="{job}""#);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let series = match series.split_once('{') {
                Some((name, labels)) => format!("{name}{{{own},{labels}"),
                None => format!("{series}{{{own}}}"),
            };
            (series, value.to_owned())
        })
        .collect()
}

/// The names of all metrics.
pub(super) fn metric_names(scrapes: &[Scrape]) -> BTreeSet<&str> {
    let series = scrapes.iter().flat_map(BTreeMap::keys);
    series.filter_map(|series| series.split('{').next()).collect()
}

/// Every query of a dashboard, with its variables as Grafana fills them in.
pub(super) fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| {
            let query = target["expr"].as_str().expect("a query");
            query.replace("$namespace", ".*").replace("$__rate_interval", "5m")
        })
        .collect()
}
