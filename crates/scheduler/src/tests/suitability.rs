//! Choice of workers for jobs by kinds, requirements and affinity.

use model::{Affinity, JobKind, Labels, Requirements, Resources};

use super::harness::{Harness, job, labels, lane, slots, spec, worker};
use crate::{AttemptFailure, JobSpec, Lane, LeaseSize, WaitReason, WorkerSpec};

fn requiring(requires: Requirements) -> JobSpec {
    JobSpec { requires, ..spec(10) }
}

fn keyed(key: &str) -> JobSpec {
    JobSpec { affinity: Affinity { key: Some(key.to_owned()), ..Affinity::default() }, ..spec(10) }
}

fn with_labels(words: &[(&str, &str)]) -> WorkerSpec {
    WorkerSpec { labels: labels(words), ..slots(1) }
}

#[test]
fn a_worker_gets_only_the_kinds_that_it_runs() {
    let mut grid = Harness::new();
    grid.join(1, WorkerSpec { kinds: vec![JobKind::TASKS], ..slots(1) });
    grid.submit(1, 10);
    assert_eq!(grid.claim(1), None);
    grid.submit_spec(2, JobSpec::new(JobKind::TASKS, 10));
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..1)));
}

#[test]
fn a_worker_that_lacks_a_kind_keeps_its_leases_and_gets_other_kinds() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let (first, other) = (grid.claim(1).expect("a task"), grid.claim(2).expect("a task"));
    grid.scheduler.worker_lacks(worker(1), JobKind::SUM_OF_PRIMES, grid.now);
    grid.scheduler.undeliverable(other.attempt).expect("leased");
    assert_eq!(grid.claim(1), None);
    grid.complete(&first).expect("it holds its lease");
    grid.submit_spec(2, JobSpec::new(JobKind::SLEEP, 1));
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..1)));
    assert_eq!(grid.claim_tasks(2).map(|(id, _)| id), Some(job(1)));
    grid.scheduler.worker_lacks(worker(2), JobKind::SUM_OF_PRIMES, grid.now);
    let reason = grid.scheduler.explain(job(1)).expect("a reason").to_string();
    assert!(reason.ends_with("runs jobs of the kind sum-of-primes"), "{reason}");
}

#[test]
fn a_suspended_worker_lacks_a_kind_when_it_is_resumed() {
    let mut grid = Harness::with_workers(1);
    grid.scheduler.slot_idle(lane(1));
    grid.scheduler.worker_suspended(worker(1), grid.now);
    grid.scheduler.worker_lacks(worker(1), JobKind::SUM_OF_PRIMES, grid.now);
    grid.submit(1, 1);
    grid.scheduler.worker_resumed(worker(1));
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
    grid.submit_spec(2, JobSpec::new(JobKind::SLEEP, 1));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
}

#[test]
fn a_worker_gets_only_jobs_whose_requirements_it_meets() {
    let mut grid = Harness::new();
    let gpu = Requirements {
        labels: labels(&[("gpu", "yes")]),
        cpus: Some(4),
        memory_bytes: Some(1 << 30),
        ..Requirements::default()
    };
    grid.submit_spec(1, requiring(gpu));
    let resources = |cpus, memory_bytes| Resources { cpus, memory_bytes };
    let spec = |words: &[(&str, &str)], resources| WorkerSpec { resources, ..with_labels(words) };
    grid.join(1, spec(&[("gpu", "no")], resources(8, 1 << 40)));
    grid.join(2, spec(&[("gpu", "yes"), ("zone", "b")], resources(3, 1 << 40)));
    grid.join(3, spec(&[("gpu", "yes")], resources(8, 1 << 29)));
    grid.join(4, spec(&[("gpu", "yes"), ("zone", "a")], resources(4, 1 << 30)));
    for number in 1..=3 {
        assert_eq!(grid.claim(number), None, "worker {number}");
    }
    assert_eq!(grid.claim_tasks(4), Some((job(1), 0..1)));
}

#[test]
fn a_worker_gets_no_job_whose_slots_could_not_all_have_the_memory_that_one_needs() {
    let mut grid = Harness::new();
    let requires = Requirements { slot_memory_bytes: Some(64 << 20), ..Requirements::default() };
    let resources = Resources { cpus: 8, memory_bytes: 512 << 20 };
    grid.join(1, WorkerSpec { resources, ..slots(9) });
    grid.submit_spec(1, requiring(requires.clone()));
    assert_eq!(grid.claim(1), None);
    let reason = grid.scheduler.explain(job(1)).expect("a reason").to_string();
    assert!(reason.ends_with("requires: 67108864 bytes of memory for each of its slots"), "{reason}");
    // The same in all but the number of slots.
    grid.join(2, WorkerSpec { resources, ..slots(8) });
    assert_eq!(grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &requires), None);
    assert_eq!(grid.claim(1), None);
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
}

#[test]
fn a_reserved_worker_gets_only_jobs_that_require_all_its_labels() {
    let mut grid = Harness::new();
    let reserved = with_labels(&[("for", "one"), ("zone", "a")]);
    grid.join(1, WorkerSpec { is_reserved: true, ..reserved });
    grid.submit(1, 10);
    let requires = |words: &[(&str, &str)]| Requirements { labels: labels(words), ..Requirements::default() };
    grid.submit_spec(2, requiring(requires(&[("zone", "a")])));
    assert_eq!(grid.claim(1), None);
    grid.submit_spec(3, requiring(requires(&[("for", "one"), ("zone", "a")])));
    assert_eq!(grid.claim_tasks(1), Some((job(3), 0..1)));
}

#[test]
fn a_job_that_nobody_can_run_says_what_is_missing() {
    let mut grid = Harness::new();
    let requires = Requirements { labels: labels(&[("gpu", "yes")]), cpus: Some(64), ..Requirements::default() };
    grid.submit_spec(1, requiring(requires.clone()));
    assert_eq!(grid.scheduler.explain(job(1)), Some(WaitReason::NoWorker));
    assert_eq!(grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &requires), Some(WaitReason::NoWorker));
    grid.join(1, slots(1));
    let reason = grid.scheduler.explain(job(1)).expect("a reason");
    assert_eq!(
        reason.to_string(),
        "the only ready worker does not run sum-of-primes with what the job requires: the label gpu=yes, 64 cores"
    );
    assert_eq!(grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &requires), Some(reason));
    assert_eq!(grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &Requirements::default()), None);
    grid.join(2, WorkerSpec { kinds: vec![JobKind::TASKS], ..slots(1) });
    grid.scheduler.worker_suspended(worker(1), grid.now);
    let reason = grid.scheduler.explain(job(1)).expect("a reason");
    assert_eq!(reason.to_string(), "the only ready worker does not run jobs of the kind sum-of-primes");
}

#[test]
fn a_program_that_no_worker_can_run_is_told_in_words() {
    let mut grid = Harness::new();
    grid.join(1, slots(1));
    for (label, told) in [
        ("divvy.program.render", "the program render"),
        ("divvy.native", "uploaded executables (DIVVY_ALLOW_NATIVE=1)"),
        ("gpu", "the label gpu=yes"),
    ] {
        let requires = Requirements { labels: labels(&[(label, "yes")]), ..Requirements::default() };
        let reason = grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &requires).expect("a reason").to_string();
        assert!(reason.ends_with(&format!("requires: {told}")), "{reason}");
    }
}

#[test]
fn workers_of_a_simulation_are_no_workers_for_other_jobs() {
    let mut grid = Harness::new();
    grid.join(1, WorkerSpec { is_reserved: true, ..with_labels(&[("divvy.simulation", "s")]) });
    let none = Requirements::default();
    assert_eq!(grid.scheduler.mismatch(JobKind::SUM_OF_PRIMES, &none), Some(WaitReason::NoWorker));
}

#[test]
fn an_explanation_names_pause_and_place() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    grid.submit(2, 10);
    let unasked = grid.scheduler.explain(job(1)).expect("it waits").to_string();
    assert!(unasked.starts_with("workers that can run it have free slots and have not asked for work; "), "{unasked}");
    let lease = grid.claim(1).expect("a task");
    assert_eq!(grid.scheduler.explain(job(1)), Some(WaitReason::Running { running: 1, pending: 9 }));
    let busy = WaitReason::Busy { slots: 1, busy: 1, ahead: 1 };
    assert_eq!(grid.scheduler.explain(job(2)), Some(busy.clone()));
    assert!(busy.to_string().starts_with("the only slot of the worker that can run it is busy; "), "{busy}");
    grid.scheduler.pause(job(2)).expect("it waits");
    assert_eq!(grid.scheduler.explain(job(2)), Some(WaitReason::Paused));
    grid.scheduler.cancel(job(1)).expect("it runs");
    assert_eq!(grid.scheduler.explain(lease.job), None);
}

#[test]
fn an_explanation_counts_the_busy_slots_of_the_workers_that_can_run_the_job() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.join(2, WorkerSpec { kinds: vec![JobKind::TASKS], ..slots(4) });
    grid.submit(1, 1);
    grid.submit_spec(2, JobSpec::new(JobKind::TASKS, 4));
    for slot in 0..4 {
        let other = Lane { slot, ..lane(2) };
        grid.claim_for(other, LeaseSize::Fitting).expect("active").expect("a task of job 2");
    }
    let busy = |grid: &Harness, number| match grid.scheduler.explain(job(number)) {
        Some(WaitReason::Busy { slots, busy, .. }) => (slots, busy),
        other => panic!("{other:?}"),
    };
    assert_eq!(busy(&grid, 1), (2, 0), "the four leases are not of a worker that can run it");
    grid.claim(1).expect("the task of job 1");
    grid.submit(3, 1);
    grid.join(3, slots(1));
    assert_eq!(busy(&grid, 3), (3, 1));
    grid.scheduler.worker_suspended(worker(1), grid.now);
    assert_eq!(busy(&grid, 3), (1, 0), "slots of a suspended worker do not count");
    grid.scheduler.worker_resumed(worker(1));
    assert_eq!(busy(&grid, 3), (3, 1));
    grid.scheduler.check();
}

#[test]
fn tasks_under_a_key_go_to_the_worker_that_has_seen_it() {
    let mut grid = Harness::with_workers(2);
    for (number, key) in [(1, "curve=USD"), (2, "curve=EUR"), (3, "curve=USD"), (4, "curve=EUR")] {
        grid.submit_spec(number, keyed(key));
    }
    let mut order = Vec::new();
    // The workers do not ask in turn, or the jobs' own turns would have the same effect.
    for number in [2, 1, 1, 2, 2, 1] {
        let lease = grid.claim(number).expect("a task");
        grid.complete(&lease).expect("leased");
        order.push(u8::from(lease.job == job(1) || lease.job == job(3)));
    }
    assert_eq!(order, [1, 0, 0, 1, 1, 0], "worker 2 does USD, worker 1 EUR");
}

#[test]
fn a_worker_is_remembered_for_the_keys_that_it_has_seen_last() {
    let mut grid = Harness::with_workers(2);
    // The second time under its key makes "0" newer than "1", which the last key drives out.
    let keys = (0..64).chain([0, 64]);
    for (number, key) in (1..).zip(keys) {
        grid.submit_spec(number, JobSpec { tasks: 1, ..keyed(&key.to_string()) });
        let lease = grid.claim(1).expect("its only task");
        grid.complete(&lease).expect("leased");
    }
    grid.submit_spec(100, keyed("0"));
    grid.submit(101, 10);
    assert_eq!(grid.claim_tasks(2).map(|(id, _)| id), Some(job(101)), "another worker is remembered");
    grid.scheduler.cancel(job(100)).expect("a live job");
    grid.scheduler.cancel(job(101)).expect("a live job");
    grid.submit_spec(102, keyed("1"));
    grid.submit(103, 10);
    assert_eq!(grid.claim_tasks(2).map(|(id, _)| id), Some(job(102)), "no worker is remembered");
}

#[test]
fn an_affinity_never_keeps_a_slot_idle() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, keyed("warm"));
    grid.claim(1).expect("a task");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 1..2)));
}

#[test]
fn labels_that_a_job_would_rather_have_decide_among_equals_only() {
    let mut grid = Harness::new();
    grid.join(1, with_labels(&[("disk", "ssd")]));
    let affinity = Affinity { labels: labels(&[("disk", "ssd")]), key: None };
    grid.submit(1, 10);
    grid.submit_spec(2, JobSpec { affinity, ..spec(10) });
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..1)));
    grid.submit_spec(3, JobSpec { priority: model::Priority::HIGHEST, ..spec(10) });
    assert_eq!(grid.try_claim(1).expect("active").expect("a task").job, job(3));
}

#[test]
fn a_job_is_not_passed_over_for_ever() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, keyed("hot"));
    let lease = grid.claim(1).expect("the only job");
    grid.complete(&lease).expect("leased");
    grid.submit(2, 10);
    let mut turns = 0;
    while turns < 100 {
        grid.submit_spec(100 + turns, keyed("hot"));
        let lease = grid.claim(1).expect("a task");
        grid.complete(&lease).expect("leased");
        if lease.job == job(2) {
            break;
        }
        turns += 1;
    }
    assert_eq!(turns, 1 + 8, "the turn that was due, and eight that were not");
}

#[test]
fn a_retry_may_go_back_to_its_worker_when_no_other_can_run_it() {
    let mut grid = Harness::new();
    grid.join(1, with_labels(&[("gpu", "yes")]));
    grid.join(2, slots(4));
    let requires = Requirements { labels: labels(&[("gpu", "yes")]), ..Requirements::default() };
    grid.submit_spec(1, requiring(requires));
    let lease = grid.claim(1).expect("task 0");
    grid.scheduler.fail(lease.attempt, AttemptFailure::Expired, grid.now).expect("leased");
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
}

#[test]
fn a_bounded_number_of_classes_without_jobs_is_kept() {
    let mut grid = Harness::with_workers(1);
    for number in 0..1_000 {
        let requires =
            Requirements { labels: Labels::from([("n".to_owned(), number.to_string())]), ..Requirements::default() };
        grid.submit_spec(number, requiring(requires));
    }
    for number in 0..1_000 {
        grid.scheduler.cancel(job(number)).expect("it waits");
    }
    assert_eq!(grid.scheduler.queue().classes().count(), 256);
    grid.scheduler.check();
    grid.submit(1, 1);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
}

#[test]
fn a_job_that_nobody_can_run_is_no_work() {
    let mut grid = Harness::with_workers(1);
    let requires = Requirements { labels: labels(&[("gpu", "yes")]), ..Requirements::default() };
    grid.submit_spec(1, requiring(requires));
    assert!(!grid.scheduler.has_work());
    grid.join(2, with_labels(&[("gpu", "yes")]));
    assert!(grid.scheduler.has_work());
}
