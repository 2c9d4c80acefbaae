//! Set-up: a broker, the coordinator's process, records.

mod broker;
mod cluster;
#[path = "../../../e2e/tests/grid/helpers/collector.rs"]
#[expect(dead_code, reason = "the tests of the grid use more of it")]
mod collector;
mod coordinator;
mod figures;
mod group;
mod java;
mod jobs;
mod kcat;
mod order;
mod process;

pub(crate) use broker::Broker;
pub(crate) use cluster::Cluster;
pub(crate) use collector::Collector;
pub(crate) use coordinator::{Coordinator, refusal};
pub(crate) use figures::check_statistics;
pub(crate) use group::Group;
pub(crate) use jobs::{job, jobs, numbers, wait_for_jobs};
pub(crate) use kcat::Record;
pub(crate) use order::{check_order, read_by_number};
pub(crate) use process::{PATIENCE, eventually, spawn};

/// A number from the environment, for longer runs.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}
