use uuid::Uuid;

use super::ended::CHUNK;
use super::*;

fn attempt(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

fn begin(log: &LeaseLog, number: u128, slot: Option<u32>, tasks: std::ops::Range<u64>, now: Instant) {
    let worker = "w".parse().expect("a name");
    let job = JobId(Uuid::nil());
    let (kind, attempt) = (JobKind::SLEEP, attempt(number));
    log.began(Begun { attempt, worker: &worker, slot, job, kind, tasks: &tasks }, now);
}

/// All leases that are kept one by one.
fn all(log: &Log) -> Vec<Logged> {
    log.running().chain(log.ended.newest_first()).collect()
}

#[test]
fn a_lease_that_was_sent_ahead_begins_when_the_one_before_it_ends() {
    let (log, start) = (LeaseLog::new(true), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    begin(&log, 1, Some(0), 0..5, at(0));
    begin(&log, 2, Some(0), 5..9, at(0));
    log.ended(attempt(1), End::Done, at(3));
    log.ended(attempt(2), End::Failed, at(7));
    let leases = log.view(all);
    assert_eq!(leases.iter().map(|lease| lease.start).collect::<Vec<_>>(), [at(3), at(0)]);
    assert_eq!(leases[0].end, Some((at(7), End::Failed)));
    let steps: Vec<_> = log.view(|log| log.steps.iter().map(|step| step.shares[&0]).collect());
    let busy: Duration = steps.iter().map(|share| share.busy).sum();
    assert!(busy <= Duration::from_secs(7) && steps.iter().map(|share| share.failed).sum::<u32>() == 1, "{steps:?}");
}

#[test]
fn a_lease_of_tasks_that_are_leased_already_is_a_second_attempt() {
    let (log, now) = (LeaseLog::new(true), Instant::now());
    begin(&log, 1, Some(0), 0..5, now);
    begin(&log, 2, Some(1), 0..5, now);
    log.ended(attempt(1), End::Done, now);
    log.ended(attempt(2), End::Stopped, now);
    begin(&log, 3, Some(0), 0..5, now);
    let mut seconds: Vec<_> = log.view(all).iter().map(|lease| lease.is_second).collect();
    seconds.sort_unstable();
    assert_eq!(seconds, [false, false, true]);
}

#[test]
fn a_lease_of_tasks_of_a_failed_one_is_a_second_attempt() {
    let (log, now) = (LeaseLog::new(true), Instant::now());
    begin(&log, 1, Some(0), 4..12, now);
    log.ended(attempt(1), End::Failed, now);
    // It is tried again in halves, beside its neighbours.
    for (number, tasks) in [(2, 4..8), (3, 8..12), (4, 12..16), (5, 0..4)] {
        begin(&log, number, Some(0), tasks, now);
    }
    let seconds: Vec<_> = log.view(|log| log.open.values().map(|(lease, _)| lease.is_second).collect());
    assert_eq!(seconds, [true, true, false, false]);
}

#[test]
fn a_lease_whose_last_tasks_have_gone_back_has_the_others() {
    let (log, now) = (LeaseLog::new(true), Instant::now());
    begin(&log, 1, None, 2..10, now);
    for beyond in [5, 8] {
        log.shortened(attempt(1), beyond);
    }
    log.shortened(attempt(2), 1);
    let tasks: Vec<_> = log.view(all).iter().map(|lease| lease.tasks).collect();
    assert_eq!(tasks, [3]);
}

#[test]
fn a_pulling_worker_takes_its_free_slots_again_and_forgotten_leases_end() {
    let (log, now) = (LeaseLog::new(true), Instant::now());
    begin(&log, 1, None, 0..1, now);
    begin(&log, 2, None, 1..2, now);
    log.ended(attempt(1), End::Done, now);
    begin(&log, 3, None, 2..3, now);
    assert_eq!(log.view(|log| log.slots.len()), 2);
    log.sweep(now + Duration::from_secs(1), now, |held| held == attempt(3));
    let open: Vec<_> = log.view(|log| log.open.keys().copied().collect());
    assert_eq!(open, [attempt(3)]);
}

#[test]
fn sweeps_look_at_all_leases_in_turn() {
    let (log, now) = (LeaseLog::new(true), Instant::now());
    for number in 0..=10_000 {
        begin(&log, number, Some(0), 0..1, now);
    }
    let sweep = |is_held: &dyn Fn(AttemptId) -> bool| {
        log.sweep(now + Duration::from_secs(1), now, is_held);
        log.view(|log| log.open.len())
    };
    let is_held = |held: AttemptId| held != attempt(10_000);
    assert_eq!([sweep(&is_held), sweep(&is_held)], [10_001, 10_000], "the last one comes in the second sweep");
    assert_eq!(sweep(&|_| false), 0, "the third sweep begins with the first one again");
}

#[test]
fn a_copy_stays_as_it_was_while_leases_begin_and_end() {
    let (log, start) = (LeaseLog::new(true), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let figures = |copy: &Recent| (copy.leases().len(), copy.steps[0].shares.len(), copy.slots.len());
    begin(&log, 1, Some(0), 0..5, at(0));
    log.ended(attempt(1), End::Done, at(1));
    let copy = log.view(|log| log.recent(start));
    begin(&log, 2, Some(1), 5..9, at(1));
    log.ended(attempt(2), End::Done, at(2));
    assert_eq!(figures(&copy), (1, 1, 1));
    assert_eq!(figures(&log.view(|log| log.recent(start))), (2, 2, 2));
}

#[test]
fn its_memory_is_bounded() {
    let (log, start) = (LeaseLog::new(true), Instant::now());
    for number in 0..50_010 {
        begin(&log, number, Some(0), 0..1, start);
        log.ended(attempt(number), End::Done, start + Duration::from_millis(100 * number as u64));
    }
    log.view(|log| {
        assert_eq!((all(log).len(), log.steps.len()), (50_010 - CHUNK, MAX_STEPS));
        assert!(log.open.is_empty() && log.begun.is_empty() && log.open_at.is_empty());
        assert!(log.ended.complete_since().is_some());
    });
}
