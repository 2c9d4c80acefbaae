//! From a job's submission on an idle grid to the start of its first task, at a worker that waits for it.

use std::time::Instant;

use anyhow::{Context, ensure};
use api::Claimed;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, quantile, verdict};
use crate::grid::Grid;
use crate::http::Connection;

/// Jobs in a round.
const JOBS: usize = 100;

const DURABLE: &str = r#"{"kind":"tasks","params":{"list":[0]}}"#;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    print_head("From submission to start on an idle grid", &["job", "figure", "µs (min–max)", "goal", "met"])?;
    let grid = Grid::start(&setting.binaries, &[])?;
    let mut worker = grid.connect_internal()?;
    let [mut stored_p50, mut stored_p99] = [(); 2].map(|()| Samples::default());
    for _ in 0..setting.rounds {
        let starts = (0..JOBS).map(|_| stored_start(&grid, &mut worker));
        let mut starts = starts.collect::<anyhow::Result<Vec<_>>>()?;
        stored_p50.add(quantile(&mut starts, 0.5));
        stored_p99.add(quantile(&mut starts, 0.99));
    }
    print_row(&["stored before it starts", "p50", &stored_p50.spread(0), &verdict(stored_p50.median(), Some(300.0))])?;
    print_row(&["stored before it starts", "p99", &stored_p99.spread(0), &verdict(stored_p99.median(), Some(500.0))])?;
    Ok(())
}

/// µs from sending a job until a worker that waited has its task.
fn stored_start(grid: &Grid, worker: &mut Connection) -> anyhow::Result<f64> {
    let mut client = grid.connect()?;
    worker.send_body("/v1/worker/claim", r#"{"worker_id":"bench","kinds":["tasks"],"wait_seconds":10}"#)?;
    let started_at = Instant::now();
    client.send_body("/v1/jobs", DURABLE)?;
    let (status, claimed) = worker.receive_any()?;
    let seconds = started_at.elapsed().as_secs_f64();
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&claimed));
    let claimed: Claimed = serde_json::from_slice(&claimed).context("read a claim")?;
    ensure!(client.receive_any()?.0 == 201, "the job is not accepted");
    worker.post(&format!("/v1/worker/tasks/{}/complete", claimed.attempt), "{}")?;
    // Until the end of the job is stored, the next submission would wait for the writer.
    client.get(&format!("/v1/jobs/{}/result?wait=60s", claimed.job))?;
    Ok(seconds * 1e6)
}
