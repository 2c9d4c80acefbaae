//! Jobs whose leases are compared, and workers that report wrong outcomes.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{AttemptId, BootId, JobKind, Share};
use scheduler::WorkerKey;
use store::{SetAsideWorker, Verified};
use uuid::Uuid;

use super::harness::{Harness, held, job};
use crate::{HeldState, Standing, Suspension, SuspensionReason, VerificationCounts};

const SECOND: Duration = Duration::from_secs(1);

/// More rounds than the workers of a test report in.
const MOST_ROUNDS: u32 = 10_000;

/// Takes up a sum of `tasks` tasks, of which this share is compared.
fn take_up(grid: &mut Harness, number: u128, tasks: u64, share: f64) -> Vec<String> {
    let mut stored = grid.stored(number, JobKind::SUM_OF_PRIMES, tasks);
    stored.record.options.verify = Share::try_from(share).ok();
    stored.record.options.chunk_size = std::num::NonZeroU64::new(10_000_000);
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects()
}

/// The lease that a worker has, and its number of tasks.
fn lease_of(grid: &Harness, key: WorkerKey) -> Option<(AttemptId, u64)> {
    let holds = |attempt: AttemptId| grid.engine.lease(attempt, grid.now).is_some();
    let own = grid.orders.iter().filter(|order| order.worker == key && holds(order.attempt));
    own.map(|order| (order.attempt, order.tasks.end - order.tasks.start)).next()
}

/// Lets all workers report in turns, as `value` says of their number of tasks, until nobody has a lease; returns the
/// effects.
fn run(grid: &mut Harness, keys: &[WorkerKey], value: impl Fn(WorkerKey, u64) -> u128) -> Vec<String> {
    let mut effects = Vec::new();
    let mut rounds = 0;
    while keys.iter().any(|key| lease_of(grid, *key).is_some()) {
        rounds += 1;
        assert!(rounds < MOST_ROUNDS, "workers get leases without end");
        for key in keys {
            let Some((attempt, tasks)) = lease_of(grid, *key) else { continue };
            effects.extend(grid.complete_with(attempt, value(*key, tasks)));
            grid.engine.stored(u64::MAX, grid.now);
            effects.extend(grid.wait(SECOND));
        }
    }
    effects
}

fn honest(_: WorkerKey, tasks: u64) -> u128 {
    tasks.into()
}

/// The counted values less the values that were taken back.
fn counted(effects: &[String]) -> i128 {
    let number = |text: &str| text.rsplit(' ').next().and_then(|word| word.parse::<i128>().ok());
    let completed = |line: &String| number(line.strip_prefix("store 1 completed ")?);
    let reopened = |line: &String| number(line.strip_prefix("store 1 reopened ")?.split_once(": ")?.0);
    effects.iter().filter_map(completed).sum::<i128>() - effects.iter().filter_map(reopened).sum::<i128>()
}

#[test]
fn outcomes_of_a_wholly_verified_job_count_when_two_workers_agree() {
    let mut grid = Harness::new();
    let keys = [grid.worker("a", 1, &[]).0, grid.worker("b", 1, &[]).0];
    take_up(&mut grid, 1, 50, 1.0);
    let (first, tasks) = lease_of(&grid, keys[0]).expect("it has one");
    let effects = grid.complete_with(first, tasks.into());
    assert!(!effects.iter().any(|line| line.contains("completed")), "{effects:?}");
    assert_eq!(grid.engine.footprint().unsettled, 1);
    // Its worker keeps the outcome, and may report it twice.
    let order = grid.orders.iter().find(|order| order.attempt == first).expect("it was sent").clone();
    let listed = [held(&order, HeldState::Finished)];
    assert_eq!(grid.engine.heartbeat(keys[0], &listed, grid.now), crate::Reconciled::default());
    grid.effects();
    assert_eq!(grid.complete_with(first, tasks.into()), Vec::<String>::new());
    let effects = run(&mut grid, &keys, honest);
    assert_eq!(counted(&effects), 50);
    assert!(effects.contains(&"store 1 ended succeeded".to_owned()), "{effects:?}");
    assert_eq!(grid.engine.footprint().unsettled, 0);
    // The number of the last change: every outcome of both workers is durable with it.
    grid.engine.stored(u64::MAX, grid.now);
    let with_leases =
        grid.orders.iter().filter(|order| order.worker == keys[0]).flat_map(|order| order.settled.clone());
    let mut settled: Vec<_> = with_leases.collect();
    settled.extend(grid.engine.heartbeat(keys[0], &[], grid.now).settled);
    assert!(settled.contains(&first), "{settled:?}");
}

#[test]
fn third_worker_decides_between_two_and_the_wrong_one_is_set_aside() {
    let mut grid = Harness::new();
    let keys = [grid.worker("liar", 1, &[]).0, grid.worker("b", 1, &[]).0, grid.worker("c", 1, &[]).0];
    take_up(&mut grid, 1, 60, 1.0);
    let lies = |key, tasks: u64| if key == keys[0] { u128::from(tasks) + 1 } else { tasks.into() };
    let effects = run(&mut grid, &keys, lies);
    assert_eq!(counted(&effects), 60, "{effects:?}");
    assert!(effects.contains(&"store 1 ended succeeded".to_owned()), "{effects:?}");
    let notice = "the worker liar was set aside: its results were wrong";
    assert!(effects.iter().any(|line| line.contains(notice)), "{effects:?}");
    assert_eq!(grid.engine.worker(keys[0]).expect("registered").standing, Standing::Suspended);
    grid.engine.heartbeat(keys[0], &[], grid.now);
    grid.wait(60 * SECOND);
    assert_eq!(take_up(&mut grid, 2, 60, 0.5).iter().filter(|line| line.contains("to 1.0")).count(), 0);
}

#[test]
fn liars_that_do_not_agree_with_each_other_are_all_set_aside() {
    let mut grid = Harness::new();
    let keys = ["liar", "other", "c", "d"].map(|name| grid.worker(name, 1, &[]).0);
    take_up(&mut grid, 1, 60, 1.0);
    let lie = |key: WorkerKey| keys[..2].iter().position(|liar| *liar == key).map_or(0, |place| place as u128 + 1);
    let effects = run(&mut grid, &keys, |key, tasks| u128::from(tasks) + lie(key));
    assert_eq!(counted(&effects), 60, "{effects:?}");
    assert!(effects.contains(&"store 1 ended succeeded".to_owned()), "{effects:?}");
    let standing = keys.map(|key| grid.engine.worker(key).expect("registered").standing);
    assert_eq!(standing, [Standing::Suspended, Standing::Suspended, Standing::Ready, Standing::Ready]);
}

#[test]
fn outcome_that_two_names_agree_on_counts_though_it_is_wrong() {
    let mut grid = Harness::new();
    let keys = ["liar", "accomplice", "honest"].map(|name| grid.worker(name, 1, &[]).0);
    take_up(&mut grid, 1, 60, 1.0);
    let effects = run(&mut grid, &keys, |key, tasks| u128::from(tasks) + u128::from(key != keys[2]));
    assert!(effects.contains(&"store 1 ended succeeded".to_owned()), "{effects:?}");
    assert!(counted(&effects) > 60, "{effects:?}");
    let standing = keys.map(|key| grid.engine.worker(key).expect("registered").standing);
    assert_eq!(standing, [Standing::Ready, Standing::Ready, Standing::Suspended]);
}

#[test]
fn whatever_a_liar_has_computed_unseen_is_computed_anew() {
    let mut grid = Harness::new();
    let keys = [grid.worker("liar", 1, &[]).0, grid.worker("b", 1, &[]).0, grid.worker("c", 1, &[]).0];
    take_up(&mut grid, 1, 5_000, 0.2);
    let lies = |key, tasks: u64| if key == keys[0] { u128::from(tasks) + 1 } else { tasks.into() };
    let mut effects = Vec::new();
    // The workers take turns until the wrong one is found out.
    for key in keys.iter().cycle().take(1_000) {
        if effects.iter().any(|line: &String| line.contains("set aside")) {
            break;
        }
        let Some((attempt, tasks)) = lease_of(&grid, *key) else { continue };
        effects.extend(grid.complete_with(attempt, lies(*key, tasks)));
        grid.engine.stored(u64::MAX, grid.now);
        effects.extend(grid.wait(SECOND));
    }
    let view = grid.engine.job(job(1)).expect("it goes on").verification.expect("it is verified");
    assert_eq!(view.set_aside, ["liar".parse().expect("a name")]);
    assert!(view.counts.recomputed_tasks > 0 && view.counts.mismatches == 1, "{view:?}");
    effects.extend(run(&mut grid, &keys, lies));
    assert_eq!(counted(&effects), 5_000);
    assert!(effects.contains(&"store 1 ended succeeded".to_owned()));
}

#[test]
fn liar_of_an_earlier_coordinator_takes_everything_with_it() {
    let mut grid = Harness::new();
    let keys = [grid.worker("liar", 1, &[]).0, grid.worker("b", 1, &[]).0, grid.worker("c", 1, &[]).0];
    let mut stored = grid.stored(1, JobKind::SUM_OF_PRIMES, 100);
    stored.record.options.verify = Some(Share::ALL);
    stored.record.value = 123;
    stored.done = vec![0..40, 50..60];
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    let lies = |key, tasks: u64| if key == keys[0] { u128::from(tasks) + 1 } else { tasks.into() };
    let effects = run(&mut grid, &keys, lies);
    assert!(effects.iter().any(|line| line.starts_with("store 1 reopened [0..40, 50..60] 123: ")), "{effects:?}");
    assert_eq!(counted(&effects) + 123, 100, "the wrong part is gone, and all tasks count");
}

#[test]
fn liar_that_registers_again_is_trusted_only_as_another_process() {
    let mut grid = Harness::new();
    let keys = [grid.worker("liar", 1, &[]).0, grid.worker("b", 1, &[]).0, grid.worker("c", 1, &[]).0];
    take_up(&mut grid, 1, 30, 1.0);
    run(&mut grid, &keys, |key, tasks| if key == keys[0] { 0 } else { tasks.into() });
    grid.engine.lose(keys[0], grid.now);
    grid.effects();
    let (again, _) = grid.worker("liar", 1, &[]);
    grid.effects();
    assert_eq!(grid.engine.worker(again).expect("registered").standing, Standing::Suspended);
    let mut other = Harness::new();
    let (fresh, _) = other.worker("liar", 1, &[]);
    assert_eq!(other.engine.worker(fresh).expect("registered").standing, Standing::Ready);
}

#[test]
fn liar_that_left_before_it_was_found_out_is_not_trusted_when_the_same_process_comes_back() {
    let mut grid = Harness::new();
    let keys = [grid.worker("liar", 1, &[]).0, grid.worker("b", 1, &[]).0, grid.worker("c", 1, &[]).0];
    take_up(&mut grid, 1, 30, 1.0);
    let (attempt, _) = lease_of(&grid, keys[0]).expect("it has one");
    grid.complete_with(attempt, 0);
    grid.engine.lose(keys[0], grid.now);
    grid.effects();
    let effects = run(&mut grid, &keys[1..], honest);
    assert!(effects.iter().any(|line| line.contains("the worker liar was set aside")), "{effects:?}");
    let (again, _) = grid.worker("liar", 1, &[]);
    grid.effects();
    assert_eq!(grid.engine.worker(again).expect("registered").standing, Standing::Suspended);
}

#[test]
fn workers_that_were_set_aside_under_an_earlier_coordinator_stay_so_and_one_that_pulls_for_an_hour() {
    let mut grid = Harness::of_epoch(2);
    let set_aside = |name: &str, boot| SetAsideWorker { id: name.parse().expect("a name"), boot, at: grid.now.at };
    let earlier = vec![set_aside("liar", Some(BootId(Uuid::nil()))), set_aside("puller", None)];
    grid.engine.keep_set_aside(earlier, grid.now);
    let (liar, _) = grid.worker("liar", 1, &[]);
    let puller = grid.puller("puller");
    grid.take_up(1, JobKind::TASKS, 1);
    for key in [liar, puller] {
        assert_eq!(grid.engine.worker(key).expect("registered").standing, Standing::Suspended);
    }
    let suspension = |key| grid.engine.worker(key).expect("registered").suspension;
    let (reason, hour) = (SuspensionReason::WrongOutcome, grid.now.instant + 3_600 * SECOND);
    assert_eq!(suspension(liar), Some(Suspension { reason, until: None }));
    assert_eq!(suspension(puller), Some(Suspension { reason, until: Some(hour) }));
    let why = "no worker is ready; the worker liar is suspended: an outcome of it was wrong (and 1 more)";
    assert_eq!(grid.engine.explain(job(1)).as_deref(), Some(why));
    assert!(grid.engine.claim(puller, 1, grid.now).is_none());
    grid.advance(3_599 * SECOND);
    assert!(grid.engine.take_readmitted(grid.now).is_empty());
    grid.advance(SECOND);
    assert_eq!(grid.engine.take_readmitted(grid.now), BTreeSet::from([puller]));
    grid.engine.lose(puller, grid.now);
    let again = grid.puller("puller");
    assert!(grid.engine.claim(again, 1, grid.now).is_some());
    assert_eq!(grid.engine.worker(liar).expect("registered").standing, Standing::Suspended);
    grid.effects();
}

#[test]
fn figures_of_a_verification_go_on_from_an_earlier_coordinator() {
    let mut grid = Harness::new();
    let keys = [grid.worker("a", 1, &[]).0, grid.worker("b", 1, &[]).0];
    let mut stored = grid.stored(1, JobKind::SUM_OF_PRIMES, 50);
    stored.record.options.verify = Some(Share::ALL);
    stored.record.verified = Verified { compared: 70, mismatches: 2, recomputed_tasks: 9, ..Verified::default() };
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    let (first, tasks) = lease_of(&grid, keys[0]).expect("it has one");
    grid.complete_with(first, tasks.into());
    let verification = |grid: &Harness| grid.engine.job(job(1)).and_then(|job| job.verification).expect("it goes on");
    let counts = VerificationCounts { compared: 70, mismatches: 2, recomputed_tasks: 9 };
    assert_eq!(verification(&grid).counts, counts);
    let mut effects = Vec::new();
    for key in keys.iter().cycle().take(50) {
        if effects.iter().any(|line: &String| line == "store 1 compared") {
            break;
        }
        let Some((attempt, tasks)) = lease_of(&grid, *key) else { continue };
        effects.extend(grid.complete_with(attempt, tasks.into()));
    }
    assert_eq!(verification(&grid).counts, VerificationCounts { compared: 71, ..counts });
}

#[test]
fn each_report_about_a_compared_lease_is_an_attempt() {
    let mut grid = Harness::new();
    let keys = ["liar", "b", "c"].map(|name| grid.worker(name, 1, &[]).0);
    take_up(&mut grid, 1, 60, 1.0);
    let mut reports = 0;
    let mut turns = keys.iter().cycle().take(MOST_ROUNDS as usize);
    while grid.engine.knows(job(1)) {
        let key = turns.next().expect("workers get leases without end");
        let Some((attempt, tasks)) = lease_of(&grid, *key) else { continue };
        grid.complete_with(attempt, u128::from(tasks) + u128::from(*key == keys[0]));
        reports += 1;
        let under_way = grid.engine.leased_tasks(job(1), grid.now).len() as u64;
        let view = grid.engine.job(job(1)).or_else(|| grid.engine.last_figures(job(1))).expect("its end is not stored");
        assert_eq!(view.attempts, reports + under_way);
        if grid.engine.knows(job(1)) {
            grid.engine.stored(u64::MAX, grid.now);
            grid.wait(SECOND);
        }
    }
    assert!(reports > 2);
}

#[test]
fn lease_whose_only_outcome_was_forgotten_waits_for_no_other_worker() {
    let mut grid = Harness::new();
    let (liar, _) = grid.worker("liar", 1, &[]);
    take_up(&mut grid, 1, 1, 1.0);
    take_up(&mut grid, 2, 1, 1.0);
    for _ in 0..2 {
        let (attempt, tasks) = lease_of(&grid, liar).expect("it has one");
        grid.complete_with(attempt, u128::from(tasks) + 1);
    }
    let waiting = |grid: &Harness, number| {
        grid.engine.job(job(number)).and_then(|view| view.verification).map(|verification| verification.waiting)
    };
    assert_eq!((waiting(&grid, 1), waiting(&grid, 2)), (Some(1), Some(1)));
    // The other job is left as it is.
    assert_eq!(grid.engine.pause(job(2), grid.now), Ok(true));
    for name in ["b", "c"] {
        let (key, _) = grid.worker(name, 1, &[]);
        grid.effects();
        let (attempt, tasks) = lease_of(&grid, key).expect("it has one");
        grid.complete_with(attempt, tasks.into());
    }
    assert!(!grid.engine.knows(job(1)), "two agree");
    assert_eq!(waiting(&grid, 2), Some(0), "the outcome of the liar is forgotten");
}

#[test]
fn lone_worker_waits_for_another_and_the_job_says_so() {
    let mut grid = Harness::new();
    let (alone, _) = grid.worker("alone", 1, &[]);
    take_up(&mut grid, 1, 5, 1.0);
    run(&mut grid, &[alone], honest);
    let reason = grid.engine.explain(job(1)).expect("it waits");
    let is_whole = reason.starts_with("the outcomes of ")
        && reason.ends_with("leases wait for another worker to compute the same");
    assert!(is_whole, "its worker has asked for work: {reason}");
    assert_eq!(grid.engine.lacks_another_worker(job(1)), Some(reason));
    let view = grid.engine.job(job(1)).expect("it waits").verification.expect("it is verified");
    assert!(view.waiting > 0 && view.counts == VerificationCounts::default(), "{view:?}");
    grid.engine.cancel(job(1), grid.now);
    grid.effects();
    assert_eq!(grid.engine.footprint().unsettled, 0);
}

#[test]
fn jobs_that_are_not_verified_count_at_once() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SUM_OF_PRIMES, 5);
    let (attempt, tasks) = lease_of(&grid, key).expect("it has one");
    assert!(grid.complete_with(attempt, tasks.into())[0].starts_with("store 1 completed"));
    assert_eq!(grid.engine.job(job(1)).map(|job| job.verification), Some(None));
}
