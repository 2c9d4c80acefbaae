//! Tests of leases whose workers hand their last tasks back.

use std::time::Duration;

use model::{AttemptId, JobKind};
use uuid::Uuid;
use workloads::Report;

use super::harness::{Harness, job};
use crate::{ClaimId, HeldLease, HeldState};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_rest_of_a_lease_goes_to_the_worker_that_waits_and_the_lease_counts_without_it() {
    let mut grid = Harness::new();
    let (one, other) = (grid.puller("one"), grid.puller("other"));
    grid.take_up(1, JobKind::TASKS, 8);
    let lease = grid.engine.claim(one, 8, grid.now).expect("tasks");
    assert_eq!(lease.tasks, 0..8);
    grid.engine.wait_for_tasks(ClaimId(1), other, 8, grid.now);
    grid.effects();
    assert_eq!(grid.engine.release_rest(lease.attempt, 0, grid.now), Ok(false));
    assert_eq!(grid.effects(), Vec::<String>::new());
    assert_eq!(grid.engine.release_rest(lease.attempt, 3, grid.now), Ok(true));
    assert_eq!(grid.effects(), ["deliver 1 3..8 to claim 1"]);
    assert_eq!(grid.engine.release_rest(lease.attempt, 3, grid.now), Ok(true), "the first answer may be lost");
    assert_eq!(grid.effects(), Vec::<String>::new());
    grid.engine.complete(lease.attempt, Report::default(), SECOND, grid.now).expect("leased");
    assert_eq!(grid.effects(), ["store 1 completed 0..3 0"]);
    assert!(grid.engine.release_rest(lease.attempt, 3, grid.now).is_err());
}

#[test]
fn a_coordinator_that_takes_over_adopts_a_shortened_lease_beside_that_of_the_rest() {
    let mut grid = Harness::of_epoch(2);
    let (one, other) = (grid.puller("one"), grid.puller("other"));
    let mut stored = grid.stored(1, JobKind::TASKS, 8);
    stored.record.started_at = Some(grid.now.at);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let held = |number, tasks| HeldLease {
        attempt: AttemptId(Uuid::from_u128(number)),
        job: job(1),
        tasks,
        slot: 0,
        age: Duration::ZERO,
        state: HeldState::Running,
    };
    assert!(grid.engine.adopt_reported(other, &held(2, 3..8), grid.now));
    assert!(!grid.engine.adopt_reported(one, &held(1, 0..8), grid.now), "the rest is another worker's");
    let shortened = held(1, 0..3);
    assert!(grid.engine.adopt_reported(one, &shortened, grid.now));
    assert_eq!(grid.engine.release_rest(shortened.attempt, 3, grid.now), Ok(true));
    grid.effects();
    grid.engine.complete(shortened.attempt, Report::default(), SECOND, grid.now).expect("leased");
    assert_eq!(grid.effects(), ["store 1 completed 0..3 0"]);
}
