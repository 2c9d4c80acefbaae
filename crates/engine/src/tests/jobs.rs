//! Jobs: their ends, their results, and clients' changes to them.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use model::{JobKind, TaskCounts};
use serde_json::value::RawValue;
use store::ResultBody;
use workloads::Report;

use super::harness::{Harness, job};
use crate::{ComposeFailure, LeaseFailure};

const SECOND: Duration = Duration::from_secs(1);

fn result() -> ResultBody {
    ResultBody::Inline(RawValue::from_string("{}".to_owned()).expect("JSON"))
}

/// A job of the kind `tasks` whose only task is done.
fn done(grid: &mut Harness, number: u128) -> Vec<String> {
    let puller = grid.puller(&format!("p{number}"));
    grid.take_up(number, JobKind::TASKS, 1);
    let lease = grid.engine.claim(puller, 1, grid.now).expect("a task");
    grid.effects();
    grid.engine.complete(lease.attempt, Report::default(), SECOND, grid.now).expect("leased");
    grid.effects()
}

#[test]
fn a_result_that_cannot_be_stored_is_composed_again_after_a_pause() {
    let mut grid = Harness::new();
    assert_eq!(done(&mut grid, 1), ["store 1 completed 0..1 0", "compose 1"]);
    let full = || Err(ComposeFailure::Unavailable("the disk is full".to_owned()));
    grid.engine.composed(job(1), full(), grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
    assert!(grid.engine.explain(job(1)).is_some_and(|why| why.contains("the disk is full")));
    assert_eq!(grid.wait(SECOND / 2), Vec::<String>::new());
    assert_eq!(grid.wait(SECOND / 2), ["compose 1"]);
    grid.engine.composed(job(1), full(), grid.now);
    assert_eq!(grid.wait(SECOND), Vec::<String>::new(), "the second pause is longer");
    assert_eq!(grid.wait(SECOND), ["compose 1"]);
    grid.engine.composed(job(1), Ok(result()), grid.now);
    assert_eq!(grid.effects(), ["store 1 ended succeeded"]);
    assert!(!grid.engine.knows(job(1)));
}

#[test]
fn one_result_does_not_wait_for_the_pause_of_another() {
    let mut grid = Harness::new();
    done(&mut grid, 1);
    grid.engine.composed(job(1), Err(ComposeFailure::Unavailable("no".to_owned())), grid.now);
    assert_eq!(done(&mut grid, 2), ["store 2 completed 0..1 0", "compose 2"]);
    grid.engine.composed(job(2), Err(ComposeFailure::Permanent("no".to_owned())), grid.now);
    assert_eq!(grid.effects(), ["store 2 ended failed: its result could not be put together: no"]);
}

#[test]
fn few_results_are_composed_at_the_same_time() {
    let mut grid = Harness::new();
    for number in 1..=4 {
        assert_eq!(done(&mut grid, number).last(), Some(&format!("compose {number}")));
    }
    assert_eq!(done(&mut grid, 5), ["store 5 completed 0..1 0"]);
    grid.engine.composed(job(3), Ok(result()), grid.now);
    assert_eq!(grid.effects(), ["compose 5", "store 3 ended succeeded"]);
}

#[test]
fn a_job_that_is_canceled_while_it_is_composed_ends_by_no_result() {
    let mut grid = Harness::new();
    done(&mut grid, 1);
    grid.engine.cancel(job(1), grid.now);
    grid.engine.composed(job(1), Ok(result()), grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
    assert!(!grid.engine.knows(job(1)));
}

#[test]
fn a_job_that_is_canceled_retried_and_canceled_again_while_it_is_composed_is_not_composed_again() {
    let mut grid = Harness::new();
    done(&mut grid, 1);
    grid.engine.cancel(job(1), grid.now);
    let mut again = grid.stored(1, JobKind::TASKS, 1);
    again.done = std::iter::once(0..1).collect();
    grid.engine.take_up(again.clone(), grid.now).expect("a job");
    assert_eq!(grid.engine.take_effects().len(), 0, "the ignored run has not ended");
    assert!(grid.engine.explain(job(1)).is_some(), "it waits for that");
    grid.engine.cancel(job(1), grid.now);
    grid.engine.composed(job(1), Ok(result()), grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
    grid.engine.take_up(again, grid.now).expect("a job");
    assert_eq!(grid.effects(), ["compose 1"]);
}

#[test]
fn a_pause_stops_what_runs_and_a_resumption_starts_it_again() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    assert_eq!(grid.take_up(1, JobKind::SLEEP, 1), ["store 1 started", "send 1 0..1 to 1.0"]);
    assert_eq!(grid.engine.pause(job(1), grid.now), Ok(true));
    assert_eq!(grid.effects(), ["stop 0..1 at 1 because Paused"]);
    assert_eq!(grid.engine.pause(job(1), grid.now), Ok(false));
    assert_eq!(grid.engine.resume(job(1), grid.now), Ok(true));
    assert_eq!(grid.effects(), ["send 1 0..1 to 1.0"]);
}

#[test]
fn a_failed_job_keeps_the_share_of_its_work_that_was_done_where_its_tasks_differ() {
    let mut grid = Harness::new();
    let params = r#"{"a":2,"b":100000000000,"algorithm":"combinatorial","plan":1}"#.to_owned();
    let params = RawValue::from_string(params).expect("JSON");
    let kind = workloads::kind(JobKind::SUM_OF_PRIMES).expect("a kind");
    let work = kind.restore(&params, model::DEFAULT_CHUNK_SIZE).expect("parameters");
    let (tasks, last) = (work.tasks(), work.tasks() - 1);
    let mut stored = grid.stored(1, JobKind::SUM_OF_PRIMES, tasks);
    stored.record.params = params;
    (stored.record.started_at, stored.record.tasks_done) = (Some(grid.now.at), 1);
    stored.record.options.timeout.job_seconds = NonZeroU32::new(1);
    stored.done = std::iter::once(last..tasks).collect();
    grid.engine.take_up(stored, grid.now).expect("a job");
    let share = work.weight(&(last..tasks)) / work.weight(&(0..tasks));
    let billionths = grid.engine.work_done(job(1)).expect("its parts differ");
    assert!((f64::from(billionths) / 1e9 - share).abs() < 1e-8, "{billionths}");
    let effects = grid.wait(2 * SECOND);
    assert_eq!(effects[0], format!("store 1 work done {billionths}"), "{effects:?}");
    assert!(effects[1].starts_with("store 1 ended failed"), "{effects:?}");
}

#[test]
fn a_job_whose_result_is_being_stored_counts_as_running() {
    let mut grid = Harness::new();
    assert_eq!(done(&mut grid, 1).last(), Some(&"compose 1".to_owned()));
    assert_eq!((grid.engine.job_counts().queued, grid.engine.job_counts().running), (0, 1));
    assert_eq!(grid.engine.task_counts(), TaskCounts { total: 1, succeeded: 1, ..TaskCounts::default() });
    grid.engine.composed(job(1), Ok(result()), grid.now);
    grid.effects();
    assert_eq!((grid.engine.job_counts().running, grid.engine.task_counts()), (0, TaskCounts::default()));
}

#[test]
fn the_time_of_a_pause_does_not_slow_a_job_down() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 9);
    let done = |grid: &mut Harness, task, time| {
        grid.advance(time);
        grid.complete(grid.attempt(1, task));
        grid.engine.tick(grid.now);
        grid.effects();
        grid.engine.job(job(1)).and_then(|view| view.tasks_per_second)
    };
    assert_eq!(done(&mut grid, 0, SECOND), None);
    assert_eq!(done(&mut grid, 1, SECOND), Some(1.0));
    grid.engine.pause(job(1), grid.now).expect("it goes on");
    grid.effects();
    grid.advance(3_600 * SECOND);
    grid.engine.resume(job(1), grid.now).expect("it goes on");
    grid.effects();
    assert_eq!(done(&mut grid, 2, SECOND), Some(1.0));
    assert_eq!(done(&mut grid, 3, SECOND), Some(1.0));
}

#[test]
fn tasks_that_are_out_of_attempts_are_no_part_of_the_time_left() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    let mut stored = grid.stored(1, JobKind::SLEEP, 4);
    stored.record.options.max_attempts = NonZeroU32::MIN;
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    for task in 0..2 {
        grid.advance(SECOND);
        grid.complete(grid.attempt(1, task));
        grid.engine.tick(grid.now);
        grid.effects();
    }
    let seconds_left =
        |grid: &Harness| grid.engine.job(job(1)).and_then(|view| view.seconds_left).expect("it is known");
    assert!((seconds_left(&grid) - 2.0).abs() < 1e-6, "{}", seconds_left(&grid));
    let failure = LeaseFailure::TaskFailed("no luck".to_owned());
    grid.engine.fail(grid.attempt(1, 2), failure, grid.now).expect("leased");
    grid.effects();
    assert!((seconds_left(&grid) - 1.0).abs() < 1e-6, "{}", seconds_left(&grid));
    grid.engine.retry(job(1), grid.now).expect("it goes on");
    grid.effects();
    assert!((seconds_left(&grid) - 2.0).abs() < 1e-6, "{}", seconds_left(&grid));
}

#[test]
fn a_canceled_job_stops_and_records_nothing() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    grid.engine.cancel(job(1), grid.now);
    assert_eq!(grid.effects(), ["stop 0..1 at 1 because JobOver"]);
    assert!(grid.engine.complete(grid.attempt(1, 0), Report::default(), SECOND, grid.now).is_err());
}

#[test]
fn a_job_that_is_retried_while_it_runs_has_its_time_limit_from_the_retry_on_also_after_a_restart() {
    let mut grid = Harness::new();
    let puller = grid.puller("p");
    let mut stored = grid.stored(1, JobKind::TASKS, 2);
    (stored.record.options.timeout.job_seconds, stored.record.options.max_attempts) =
        (NonZeroU32::new(30), NonZeroU32::MIN);
    grid.engine.take_up(stored.clone(), grid.now).expect("a job");
    let lease = grid.engine.claim(puller, 1, grid.now).expect("a task");
    grid.advance(20 * SECOND);
    grid.engine.fail(lease.attempt, LeaseFailure::TaskFailed("no".to_owned()), grid.now).expect("leased");
    grid.engine.retry(job(1), grid.now).expect("it runs");
    assert_eq!(grid.effects().last().map(String::as_str), Some("store 1 retried"));
    stored.record.retried_at = Some(grid.now.at);
    assert_eq!(grid.wait(29 * SECOND), Vec::<String>::new());
    let mut next = Harness::of_epoch(2);
    next.now = grid.now;
    next.engine.take_up(stored, next.now).expect("a job");
    assert_eq!(next.effects(), Vec::<String>::new());
    for grid in [&mut grid, &mut next] {
        let ends = grid.wait(SECOND);
        assert!(ends.len() == 1 && ends[0].starts_with("store 1 ended failed"), "{ends:?}");
    }
}

#[test]
fn a_job_that_fails_has_its_last_figures_until_its_end_is_stored() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    let mut stored = grid.stored(1, JobKind::SLEEP, 2);
    stored.record.options.max_attempts = NonZeroU32::MIN;
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    grid.complete(grid.attempt(1, 0));
    let failed = grid.attempt(1, 1);
    grid.engine.fail(failed, LeaseFailure::TaskFailed("no".to_owned()), grid.now).expect("leased");
    assert!(grid.effects().iter().any(|effect| effect.starts_with("store 1 ended failed")));
    assert!(grid.engine.job(job(1)).is_none());
    let figures = grid.engine.last_figures(job(1)).expect("its end is not stored");
    assert_eq!(figures.counts, TaskCounts { total: 2, pending: 0, running: 0, succeeded: 1, failed: 1 });
    assert_eq!(figures.attempts, 2);
    // Started, completed, given up, ended.
    grid.engine.stored(3, grid.now);
    assert!(grid.engine.last_figures(job(1)).is_some());
    grid.engine.stored(4, grid.now);
    assert!(grid.engine.last_figures(job(1)).is_none());
}

#[test]
fn tasks_that_were_leased_or_failed_when_their_job_failed_are_counted_as_the_store_counts_them() {
    let mut grid = Harness::new();
    grid.worker("w", 2, &[]);
    let mut stored = grid.stored(1, JobKind::SLEEP, 4);
    stored.record.options.timeout.job_seconds = NonZeroU32::new(10);
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    grid.complete(grid.attempt(1, 0));
    grid.wait(10 * SECOND);
    let figures = grid.engine.last_figures(job(1)).expect("its end is not stored");
    assert_eq!(figures.counts, TaskCounts { total: 4, pending: 3, running: 0, succeeded: 1, failed: 0 });
    // Its first failed task ends the job.
    let mut stored = grid.stored(2, JobKind::SUM_OF_PRIMES, 4);
    stored.record.options.max_attempts = NonZeroU32::MIN;
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    let lease = grid.orders.iter().find(|order| order.job == job(2)).expect("it was sent").clone();
    grid.engine.fail(lease.attempt, LeaseFailure::TaskFailed("no".to_owned()), grid.now).expect("leased");
    let TaskCounts { total, pending, running, succeeded, failed } =
        grid.engine.last_figures(job(2)).expect("its end is not stored").counts;
    assert_eq!((running, succeeded, failed), (0, 0, lease.tasks.end - lease.tasks.start));
    assert_eq!(pending, total - failed);
}

#[test]
fn progress_is_recorded_once_a_tick_and_only_after_a_change() {
    let mut grid = Harness::new();
    grid.worker("w", 2, &[]);
    grid.take_up(1, JobKind::SLEEP, 3);
    grid.complete(grid.attempt(1, 0));
    grid.engine.tick(grid.now);
    assert_eq!(grid.effects(), ["store 1 progress"]);
    grid.engine.tick(grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
}

#[test]
fn time_left_of_a_job_that_a_client_waits_for_is_known_and_nothing_of_it_is_recorded() {
    let mut grid = Harness::new();
    grid.worker("w", 2, &[]);
    let params = grid.stored(1, JobKind::SLEEP, 4).record.params;
    let kind = workloads::kind(JobKind::SLEEP).expect("a kind");
    let work = kind.restore(&params, NonZeroU64::MIN).expect("a job");
    grid.engine.ask(job(1), JobKind::SLEEP, work, &model::JobOptions::default(), grid.now);
    grid.effects();
    let mut effects = Vec::new();
    for first in 0..2 {
        effects.extend(grid.complete(grid.attempt(1, first)));
        grid.advance(SECOND);
        grid.engine.tick(grid.now);
        effects.extend(grid.effects());
    }
    let view = grid.engine.job(job(1)).expect("half of it is left");
    assert_eq!((view.fraction, view.tasks_per_second), (0.5, Some(1.0)));
    let left = view.seconds_left.expect("two ticks show its rate");
    assert!((left - 2.0).abs() < 1e-6, "{left}");
    effects.extend(grid.complete(grid.attempt(1, 2)));
    effects.extend(grid.complete(grid.attempt(1, 3)));
    grid.engine.tick(grid.now);
    effects.extend(grid.effects());
    assert!(!effects.iter().any(|line| line.starts_with("store")), "{effects:?}");
    assert!(effects.iter().any(|line| line.starts_with("answer 1 Ok")), "{effects:?}");
}
