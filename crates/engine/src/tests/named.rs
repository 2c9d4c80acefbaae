//! Tests of reports that name another lease than their attempt holds, and of reports that come to another coordinator.

use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use model::{AttemptId, JobKind, WorkerId};
use uuid::Uuid;
use workloads::Report;

use super::harness::{Harness, job};
use crate::{HeldLease, HeldState, Holding, NamedLease};

const SECOND: Duration = Duration::from_secs(1);
const LEASE_TIMEOUT: Duration = Duration::from_secs(30);

fn named(worker: &str, tasks: Range<u64>) -> NamedLease {
    NamedLease { worker: WorkerId::try_from(worker.to_owned()).expect("a name"), job: job(1), tasks }
}

/// Adopts a lease of the first task by a report of the worker `p`.
fn adopt(grid: &mut Harness, number: u128) -> AttemptId {
    let puller = grid.puller("p");
    let attempt = AttemptId(Uuid::from_u128(number));
    let (age, state) = (Duration::ZERO, HeldState::Running);
    let held = HeldLease { attempt, job: job(1), tasks: 0..1, slot: 0, age, state };
    assert_eq!(grid.engine.hear(attempt, Some(&named("p", 0..1)), grid.now), Holding::Unknown);
    assert!(grid.engine.adopt_reported(puller, &held, grid.now));
    attempt
}

#[test]
fn a_report_is_about_the_lease_that_its_attempt_holds_and_ends_it_where_it_names_fewer_tasks() {
    let mut grid = Harness::new();
    let puller = grid.puller("p");
    grid.take_up(1, JobKind::TASKS, 8);
    let attempt = grid.engine.claim(puller, 8, grid.now).expect("tasks").attempt;
    grid.advance(SECOND);
    let whole = named("p", 0..8);
    for other in [named("q", 0..8), named("p", 1..8), NamedLease { job: job(2), ..whole.clone() }] {
        assert_eq!(grid.engine.hear(attempt, Some(&other), grid.now), Holding::Other);
    }
    for same in [None, Some(&whole), Some(&named("p", 0..3))] {
        assert_eq!(grid.engine.hear(attempt, same, grid.now), Holding::Held(SECOND));
    }
    assert!(grid.engine.is_about(attempt, Some(&whole)) && grid.engine.is_about(attempt, None));
    assert!(!grid.engine.is_about(attempt, Some(&named("p", 0..3))));
    assert!(!grid.engine.end_at_named(attempt, 8, grid.now), "it names all tasks");
    assert!(grid.engine.end_at_named(attempt, 3, grid.now));
    assert!(!grid.engine.end_at_named(attempt, 3, grid.now), "the lease ends there");
    assert!(grid.engine.is_about(attempt, Some(&named("p", 0..3))) && !grid.engine.is_about(attempt, Some(&whole)));
    grid.engine.complete(attempt, Report::default(), SECOND, grid.now).expect("leased");
    assert!(grid.engine.is_about(attempt, Some(&whole)), "it holds none, and its outcome counts");
    grid.engine.stored(9, grid.now);
    assert_eq!(grid.engine.hear(attempt, Some(&whole), grid.now), Holding::Ended);
}

#[test]
fn a_late_renewal_of_a_lease_that_has_ended_at_another_coordinator_costs_no_attempt() {
    for limit in [None, NonZeroU32::new(10)] {
        let mut grid = Harness::of_epoch(2);
        let mut stored = grid.stored(1, JobKind::TASKS, 1);
        stored.record.options.max_attempts = NonZeroU32::MIN;
        stored.record.options.timeout.task_seconds = limit;
        grid.engine.take_up(stored, grid.now).expect("a job");
        grid.effects();
        let attempt = adopt(&mut grid, 1);
        assert_eq!(grid.effects(), ["store 1 started"]);
        let time = limit.map_or(LEASE_TIMEOUT, |seconds| SECOND * seconds.get());
        assert_eq!(grid.wait(time), ["stop 0..0 at 1 because Expired"], "{limit:?}");
        assert!(!grid.engine.is_leased(attempt));
        let other = grid.puller("q");
        let lease = grid.engine.claim(other, 1, grid.now).expect("its task is open");
        assert_eq!(lease.tasks, 0..1);
    }
}

#[test]
fn a_lease_that_was_taken_up_again_and_renewed_costs_an_attempt_when_it_expires() {
    let mut grid = Harness::of_epoch(2);
    grid.take_up(1, JobKind::TASKS, 1);
    let attempt = adopt(&mut grid, 1);
    grid.advance(SECOND);
    assert_eq!(grid.engine.hear(attempt, Some(&named("p", 0..1)), grid.now), Holding::Held(SECOND));
    grid.engine.renew(attempt, grid.now).expect("leased");
    grid.effects();
    let expired = ["stop 0..0 at 1 because Expired", "store 1 failed 0..1 1 at p"];
    assert_eq!(grid.wait(LEASE_TIMEOUT), expired);
}
