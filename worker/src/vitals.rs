//! The machine's load and memory, for heartbeats.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::Resources;
use sysinfo::System;

/// Heartbeats to several coordinators share a sample. The CPU's load is an average since the last one.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// A sample of the machine's load and memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vitals {
    /// Share of all cores in use, 0 to 1.
    pub(crate) cpu_load: f32,
    pub(crate) free_memory_bytes: u64,
    pub(crate) resources: Resources,
}

/// Reads the system at most twice a second.
#[derive(Debug)]
pub(crate) struct Sampler(Mutex<Last>);

#[derive(Debug)]
struct Last {
    system: System,
    sampled_at: Instant,
    vitals: Vitals,
}

impl Sampler {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut system = System::new().context("read the system's load")?;
        let vitals = sample(&mut system);
        Ok(Self(Mutex::new(Last { system, sampled_at: Instant::now(), vitals })))
    }

    pub(crate) fn vitals(&self) -> Vitals {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.sampled_at.elapsed() >= SAMPLE_INTERVAL {
            last.vitals = sample(&mut last.system);
            last.sampled_at = Instant::now();
        }
        last.vitals
    }
}

fn sample(system: &mut System) -> Vitals {
    system.refresh_cpu_usage();
    system.refresh_memory();
    let cpu_load = (system.global_cpu_usage() / 100.0).clamp(0.0, 1.0);
    Vitals { cpu_load, free_memory_bytes: free_memory_bytes(system), resources: resources(system) }
}

fn free_memory_bytes(system: &System) -> u64 {
    let of_host = system.available_memory();
    system.cgroup_limits().map_or(of_host, |cgroup| cgroup.free_memory.min(of_host))
}

fn resources(system: &System) -> Resources {
    let cpus = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let of_host = system.total_memory();
    let memory_bytes = system.cgroup_limits().map_or(of_host, |cgroup| cgroup.total_memory.min(of_host));
    Resources { cpus, memory_bytes }
}
