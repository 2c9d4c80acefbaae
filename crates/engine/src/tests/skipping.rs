//! Tasks that a client does not want any more.

use model::JobKind;
use workloads::Report;

use super::harness::{Harness, job};
use crate::SkipError;

#[test]
fn a_skipped_task_is_given_to_no_worker_and_the_job_ends_with_the_others() {
    let mut grid = Harness::new();
    let puller = grid.puller("p");
    grid.take_up(1, JobKind::TASKS, 4);
    let held = grid.engine.claim(puller, 1, grid.now).expect("a task");
    assert_eq!(held.tasks, 0..1);
    grid.effects();
    let skipped = grid.engine.skip(job(1), &[2, 0, 1, 2, 9, u64::MAX], grid.now);
    assert_eq!(skipped, Ok(vec![2, 1]), "neither what is held, nor done, nor none of the job");
    assert_eq!(grid.effects(), ["store 1 completed 2..3 0", "store 1 completed 1..2 0"]);
    let last = grid.engine.claim(puller, 9, grid.now).expect("a task");
    assert_eq!(last.tasks, 3..4);
    for lease in [held, last] {
        grid.engine.complete(lease.attempt, Report::default(), std::time::Duration::ZERO, grid.now).expect("leased");
    }
    assert_eq!(grid.effects(), ["store 1 completed 0..1 0", "store 1 completed 3..4 0", "compose 1"]);
}

#[test]
fn a_job_of_which_no_task_is_left_ends_and_a_failed_attempt_s_task_can_be_skipped() {
    let mut grid = Harness::new();
    let puller = grid.puller("p");
    grid.take_up(1, JobKind::TASKS, 2);
    let lease = grid.engine.claim(puller, 2, grid.now).expect("tasks");
    grid.engine.release(lease.attempt, grid.now).expect("leased");
    grid.effects();
    assert_eq!(grid.engine.skip(job(1), &[1, 0], grid.now), Ok(vec![1, 0]));
    assert_eq!(grid.effects(), ["store 1 completed 1..2 0", "store 1 completed 0..1 0", "compose 1"]);
    assert_eq!(grid.engine.skip(job(1), &[1], grid.now), Ok(Vec::new()));
    assert!(matches!(grid.engine.skip(job(7), &[0], grid.now), Err(SkipError::Unknown(_))));
}

#[test]
fn tasks_whose_results_count_are_not_skipped() {
    let mut grid = Harness::new();
    grid.take_up(1, JobKind::SUM_OF_PRIMES, 2);
    assert_eq!(grid.engine.skip(job(1), &[0], grid.now), Err(SkipError::Kind(JobKind::SUM_OF_PRIMES)));
    assert_eq!(grid.effects(), Vec::<String>::new());
}
