//! The sizes of the pods, and the bounds of the services that must fit into them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::helpers::{coordinator, worker};

#[test]
fn one_coordinator_and_ten_workers_have_their_sizes() {
    let sizes = [(coordinator(), 1, "1Gi", "256Mi"), (worker(), 10, "512Mi", "768Mi")];
    for (workload, replicas, memory, scratch) in sizes {
        assert_eq!(workload.replicas, replicas, "{}", workload.name);
        let resources = workload.container().resources.clone();
        let resources = resources.expect("resources are stated");
        let size = |scratch: &str| {
            let size = [("cpu", "1"), ("ephemeral-storage", scratch), ("memory", memory)];
            Some(size.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into())
        };
        assert_eq!(resources.requests, size("64Mi"));
        assert_eq!(resources.limits, size(scratch));
    }
}

#[test]
fn bodies_fit_into_the_memory_of_the_coordinator() {
    let workload = coordinator();
    let bytes = |name: &str| workload.env(name).parse::<u64>().expect("a number");
    let (job, result) = (bytes("DIVVY_MAX_JOB_BYTES"), bytes("DIVVY_MAX_RESULT_BYTES"));
    let together = bytes("DIVVY_MAX_BODY_MEMORY");
    assert!(together > job.max(result), "one body of the largest size is accepted");
    // A body, its parsed tasks and their rows on their way to the disk: three times its length was measured.
    let limits = workload.container().resources.clone().and_then(|resources| resources.limits).expect("limits");
    assert_eq!(limits["memory"], Quantity("1Gi".to_owned()));
    assert!(together * 4 <= 1 << 30, "{together}");
}

#[test]
fn programs_have_a_volume_and_memory_that_their_bounds_fit_into() {
    const MIB: u64 = 1 << 20;
    // The bounds of a slot's scratch directory, and of held outcomes in a worker's memory.
    const SCRATCH: u64 = 64 * MIB;
    const HELD: u64 = 256 * MIB;
    let workload = worker();
    let bytes = |name: &str| workload.env(name).parse::<u64>().expect("a number");
    let mib = |quantity: &Quantity| {
        let mib = quantity.0.strip_suffix("Mi").and_then(|mib| mib.parse::<u64>().ok());
        mib.expect("a size in MiB") * MIB
    };
    let limits = workload.container().resources.clone().and_then(|resources| resources.limits).expect("limits");
    let slots: u64 = limits["cpu"].0.parse().expect("whole cores");

    let volumes = workload.pod.volumes.clone().unwrap_or_default();
    let [volume] = &volumes[..] else { panic!("{volumes:?}") };
    let room = volume.empty_dir.as_ref().and_then(|directory| directory.size_limit.as_ref()).map(mib).expect("a limit");
    let mounts = workload.container().volume_mounts.clone().unwrap_or_default();
    let [mount] = &mounts[..] else { panic!("{mounts:?}") };
    assert_eq!((&mount.name, mount.read_only), (&volume.name, None));
    // A directory of the worker's own in it: the volume's is the node's.
    let directory = workload.env("DIVVY_PROGRAM_DIR");
    assert!(directory.strip_prefix(&mount.mount_path).is_some_and(|rest| rest.starts_with('/')), "{directory}");

    // Programs, compiled programs, and in each slot the input of a program that combines results, a scratch directory and an
    // output. A pod whose volume or memory is above its limit is killed whole.
    let cache = bytes("DIVVY_PROGRAM_CACHE_BYTES");
    let output = coordinator().env("DIVVY_MAX_OUTPUT_BYTES").parse::<u64>().expect("a number");
    assert!((2 + slots) * cache + slots * (SCRATCH + output) <= room, "{room}");
    assert!(room + 256 * MIB <= mib(&limits["ephemeral-storage"]), "{limits:?}");
    let memory = slots * bytes("DIVVY_PROGRAM_MEMORY_BYTES");
    assert!(memory + HELD + 64 * MIB <= mib(&limits["memory"]), "{memory}");
}
