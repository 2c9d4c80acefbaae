//! Outcomes that are compared with another worker's, tasks that are opened again, sections that no lease crosses.

use std::time::Duration;

use model::Order;

use super::harness::{Harness, TASK_TIME, job, lane, revoked, slots, spec, worker};
use crate::{JobSpec, Lane, Lease, LeaseSize, Revocation};

fn contest(grid: &mut Harness, lease: &Lease, number: u64) {
    let voter = format!("worker-{number}").parse().expect("a name");
    grid.scheduler.contest(lease.attempt, voter, TASK_TIME).expect("it holds the lease");
}

#[test]
fn contested_run_goes_whole_to_a_worker_of_another_name_and_counts_once() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { task_estimate: Some(Duration::from_millis(1)), ..spec(100) });
    let first = grid.claim(1).expect("work");
    assert!(first.tasks.end > 1);
    contest(&mut grid, &first, 1);
    let next = grid.claim(1).expect("other tasks");
    assert_eq!(next.tasks.start, first.tasks.end, "the same worker does not get it again");
    let second = grid.claim(2).expect("work");
    assert_eq!(second.tasks, first.tasks);
    assert_eq!(grid.done(1), Some(0), "nothing counts yet");
    grid.complete(&second).expect("it holds the lease");
    assert_eq!(grid.done(1), Some(first.tasks.end));
}

#[test]
fn contested_run_stays_whole_when_its_worker_is_lost_and_keeps_its_voters() {
    let mut grid = Harness::with_workers(3);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 10, task_estimate: Some(Duration::from_millis(1)), ..spec(10) });
    let first = grid.claim(1).expect("work");
    contest(&mut grid, &first, 1);
    let second = grid.claim(2).expect("work");
    assert_eq!(second.tasks, first.tasks);
    grid.scheduler.worker_lost(worker(2), grid.now);
    let others: Vec<_> = std::iter::from_fn(|| grid.claim(1)).map(|lease| lease.tasks).collect();
    assert!(!others.contains(&first.tasks), "{others:?}");
    assert_eq!(grid.claim(3).expect("work").tasks, first.tasks);
    grid.scheduler.check();
}

#[test]
fn contested_run_stays_whole_when_its_worker_would_hand_a_part_back() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { task_estimate: Some(Duration::from_millis(1)), ..spec(100) });
    let first = grid.claim(1).expect("work");
    assert!(first.tasks.end > 1);
    contest(&mut grid, &first, 1);
    let second = grid.claim(2).expect("work");
    assert_eq!(second.tasks, first.tasks);
    assert_eq!(grid.scheduler.release_rest(second.attempt, 1, grid.now), Ok(false));
    grid.complete(&second).expect("it holds the lease");
    assert_eq!(grid.done(1), Some(first.tasks.end));
}

#[test]
fn worker_that_registers_again_is_not_another_one() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 1, ..spec(1) });
    let first = grid.claim(1).expect("work");
    contest(&mut grid, &first, 1);
    grid.scheduler.worker_lost(worker(1), grid.now);
    grid.join(1, slots(1));
    assert_eq!(grid.claim(1), None);
    grid.join(2, slots(1));
    assert_eq!(grid.claim(2).expect("work").tasks, first.tasks);
}

#[test]
fn claim_for_fewer_tasks_than_a_contested_run_gets_others() {
    let mut grid = Harness::with_workers(1);
    grid.join(2, slots(1));
    grid.submit_spec(1, JobSpec { task_estimate: Some(Duration::from_millis(1)), ..spec(100) });
    let first = grid.claim(1).expect("work");
    contest(&mut grid, &first, 1);
    let few = grid.claim_for(lane(2), LeaseSize::AtMost(1)).expect("a worker").expect("work");
    assert_eq!(few.tasks, first.tasks.end..first.tasks.end + 1);
    let whole = grid.claim_for(lane(2), LeaseSize::AtMost(50)).expect("a worker").expect("work");
    assert_eq!(whole.tasks, first.tasks);
}

#[test]
fn so_many_contested_runs_keep_other_tasks_back() {
    // After one lease fewer runs wait, and as many tasks as before may be leased where one task is kept back.
    for tasks in [257, 1_000] {
        let mut grid = Harness::with_workers(1);
        grid.submit_spec(1, JobSpec { max_lease_tasks: 1, ..spec(tasks) });
        let mut contested = 0;
        while let Some(lease) = grid.claim(1) {
            contest(&mut grid, &lease, 1);
            contested += 1;
        }
        assert_eq!(contested, 256);
        grid.scheduler.slot_idle(lane(1));
        grid.join(2, slots(1));
        assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
        assert_eq!(grid.claim(1), None);
        grid.scheduler.slot_idle(lane(1));
        assert_eq!(grid.scheduler.next_idle(grid.now), None);
        let lease = grid.claim(2).expect("the first of them");
        assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)), "there is room again");
        grid.complete(&lease).expect("it holds the lease");
        assert_eq!(grid.claim(1).expect("there is room again").tasks, 256..257);
    }
}

#[test]
fn contested_run_is_offered_past_all_workers_that_have_computed_it() {
    let mut grid = Harness::with_workers(4);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 1, ..spec(1) });
    for number in 1..=3 {
        let lease = grid.claim(number).expect("work");
        contest(&mut grid, &lease, number);
    }
    (1..=4).for_each(|number| grid.scheduler.slot_idle(lane(number)));
    for number in 1..=3 {
        assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(number)));
        assert_eq!(grid.claim(number), None);
        grid.scheduler.slot_idle(lane(number));
    }
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(4)));
    assert_eq!(grid.claim_tasks(4), Some((job(1), 0..1)));
}

#[test]
fn late_lease_of_a_contested_run_is_offered_past_all_workers_that_have_computed_the_run() {
    let mut grid = Harness::with_workers(2);
    grid.join(3, slots(2));
    grid.join(4, slots(1));
    grid.submit_spec(1, JobSpec { max_lease_tasks: 1, ..spec(1) });
    for number in 1..=2 {
        let lease = grid.claim(number).expect("work");
        contest(&mut grid, &lease, number);
    }
    let late = grid.claim(3).expect("work");
    let of_its_worker = Lane { slot: 1, ..lane(3) };
    [lane(1), lane(2), of_its_worker, lane(4)].into_iter().for_each(|idle| grid.scheduler.slot_idle(idle));
    grid.wait(Duration::from_secs(1));
    for idle in [lane(1), lane(2), of_its_worker] {
        assert_eq!(grid.scheduler.next_idle(grid.now), Some(idle));
        assert_eq!(grid.claim_for(idle, LeaseSize::Fitting).expect("a worker"), None);
        grid.scheduler.slot_idle(idle);
    }
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(4)));
    assert_eq!(grid.claim_tasks(4), Some((job(1), late.tasks)));
    grid.scheduler.check();
}

#[test]
fn contested_runs_that_a_worker_has_computed_do_not_hide_those_of_others_from_it() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 1, ..spec(101) });
    let of_other = grid.claim(2).expect("work");
    for _ in 0..100 {
        let lease = grid.claim(1).expect("an open task");
        contest(&mut grid, &lease, 1);
    }
    contest(&mut grid, &of_other, 2);
    assert_eq!(grid.claim(1).expect("the other worker's").tasks, of_other.tasks);
    grid.scheduler.check();
}

#[test]
fn tasks_that_are_opened_again_run_again_and_their_value_is_taken_back() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 4, task_estimate: Some(Duration::from_millis(1)), ..spec(8) });
    let first = grid.claim(1).expect("work");
    grid.complete(&first).expect("it holds the lease");
    let done = first.tasks.end - first.tasks.start;
    grid.scheduler.reopen(job(1), std::slice::from_ref(&first.tasks), done.into()).expect("it is there");
    assert_eq!(grid.done(1), Some(0));
    grid.scheduler.check();
    while let Some(lease) = grid.claim(2) {
        grid.complete(&lease).expect("it holds the lease");
    }
    let ends = grid.ends();
    assert_eq!(ends, [crate::Event::JobSucceeded { job: job(1), total: 8 }], "each task counts once");
}

#[test]
fn worker_that_is_set_aside_loses_its_leases_and_gets_no_more() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = grid.claim(1).expect("work");
    grid.scheduler.worker_set_aside(worker(1), grid.now);
    assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::SetAside)]);
    assert!(grid.complete(&lease).is_err());
    assert!(grid.try_claim(1).is_err());
    assert_eq!(grid.claim(2).expect("work").tasks.start, 0, "its tasks are open, and no attempt is used up");
    grid.scheduler.check();
}

#[test]
fn no_lease_has_tasks_of_two_sections() {
    for order in [Order::Stripes, Order::FirstInFirstOut] {
        let mut grid = Harness::with_workers(2);
        let sections = vec![7, 8, 30];
        let estimate = Some(Duration::from_micros(10));
        grid.submit_spec(1, JobSpec { sections: sections.clone(), order, task_estimate: estimate, ..spec(100) });
        let mut number = 0;
        while let Some(lease) = grid.claim(1 + number % 2) {
            let crosses = |section: &u64| lease.tasks.start < *section && *section < lease.tasks.end;
            assert!(!sections.iter().any(crosses), "{:?}", lease.tasks);
            if number == 2 {
                grid.fail(&lease).expect("it holds the lease");
            } else {
                grid.complete(&lease).expect("it holds the lease");
            }
            number += 1;
            grid.wait(Duration::from_secs(1));
        }
        assert!(grid.ends().contains(&crate::Event::JobSucceeded { job: job(1), total: 100 }), "{order:?}");
    }
}
