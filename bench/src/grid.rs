//! A whole grid in this process, asked over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use divvy::embedded::EmbeddedGrid;
use protocol::{NumberRange, SumOfPrimes, WorkerSummary};
use reqwest::Client;
use url::Url;

use crate::kernel::Kernel;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Grid {
    grid: EmbeddedGrid,
    client: Client,
    url: Url,
}

impl Grid {
    /// Starts a grid and waits until its workers are there.
    pub(crate) async fn start(workers: u32) -> anyhow::Result<Self> {
        let grid = EmbeddedGrid::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), workers, None)?;
        let (client, url) = (service::http_client(Duration::from_secs(1))?, grid.url()?);
        let grid = Self { grid, client, url };
        while grid.workers().await? < workers as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(grid)
    }

    /// The sum and the time from request to answer.
    pub(crate) async fn sum(&self, range: NumberRange) -> anyhow::Result<(u128, Duration)> {
        let started_at = Instant::now();
        let url = self.url.join("sum-of-primes")?;
        let response = self.client.get(url).query(&[("a", range.a()), ("b", range.b())]).send().await?;
        let answer: SumOfPrimes = service::read_bounded_json(response.error_for_status()?, MAX_ANSWER_BYTES).await?;
        Ok((answer.sum, started_at.elapsed()))
    }

    /// Seconds that each of some requests took beyond the kernel's median time for the same range.
    pub(crate) async fn time_beyond_computation(
        &self,
        kernel: &Kernel,
        range: NumberRange,
        requests: usize,
    ) -> anyhow::Result<Vec<f64>> {
        let mut computing: Vec<_> = (0..requests).map(|_| kernel.sum(range).1).collect();
        computing.sort();
        let computing = computing[requests / 2];
        let mut beyond = Vec::with_capacity(requests);
        for _ in 0..requests {
            let (_, elapsed) = self.sum(range).await?;
            beyond.push(elapsed.as_secs_f64() - computing.as_secs_f64());
        }
        Ok(beyond)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.grid.stop().await
    }

    async fn workers(&self) -> anyhow::Result<usize> {
        let response = self.client.get(self.url.join("workers")?).send().await.context("list the workers")?;
        let workers: Vec<WorkerSummary> = service::read_bounded_json(response, MAX_ANSWER_BYTES).await?;
        Ok(workers.len())
    }
}
