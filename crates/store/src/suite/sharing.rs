use std::sync::Arc;
use std::time::Duration;

use model::JobState;
use uuid::Uuid;

use super::SharedHarness;
use super::helpers::*;
use crate::backend::BatchError;
use crate::shared::{Acquired, LEASE, LeadershipLease, Member};
use crate::{
    Batch, ChangeKind, Entry, Epoch, Leadership, LeadershipError, Retention, Shared, Store, Submission, SubmitError,
    WriteError,
};

fn member(number: u128) -> Member {
    Member {
        id: Uuid::from_u128(number),
        name: format!("coordinator-{number}"),
        public_address: format!("10.0.0.{number}:8080"),
        internal_address: format!("10.0.0.{number}:8081"),
        version: "1.2.3".to_owned(),
        started_at: at(number as i64),
    }
}

/// The first answer to a member: a busy machine does not always answer within the time of a lease.
fn acquire(leadership: &mut dyn Leadership, number: u128) -> Acquired {
    let mut answers = (0..50).map(|_| leadership.acquire(Uuid::from_u128(number)));
    answers.find_map(Result::ok).expect("reachable")
}

/// The first answer to a leader that renews its lease.
fn renew(leadership: &mut dyn Leadership, epoch: Epoch) -> Result<LeadershipLease, LeadershipError> {
    let mut answers = (0..50).map(|_| leadership.renew(epoch));
    answers.find(|answer| !matches!(answer, Err(LeadershipError::Unavailable(_)))).expect("reachable")
}

fn leads(leadership: &mut dyn Leadership, number: u128) -> LeadershipLease {
    match acquire(leadership, number) {
        Acquired::Leads(term) => term,
        held @ Acquired::Held { .. } => panic!("{held:?}"),
    }
}

/// Asks until it leads, as a follower does.
fn wait_to_lead(leadership: &mut dyn Leadership, harness: &dyn SharedHarness, number: u128) -> LeadershipLease {
    for _ in 0..200 {
        match acquire(leadership, number) {
            Acquired::Leads(term) => return term,
            Acquired::Held { .. } => harness.pass(LEASE / 8),
        }
    }
    panic!("the lease never expired");
}

fn leader(shared: &dyn Shared, epoch: Epoch) -> Store {
    Store::start(shared.lead(epoch).expect("it leads"), KEEP_ALL).expect("a thread")
}

fn follower(shared: &dyn Shared) -> Store {
    Store::follow(shared.follow().expect("reachable"), KEEP_ALL).expect("a thread")
}

pub fn one_member_leads_at_a_time_and_each_takeover_is_an_epoch(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let (mut first, mut second) = (one.leadership(), two.leadership());
    let term = leads(&mut *first, 1);
    assert!(term.lasts <= LEASE && term.lasts > LEASE / 2, "{term:?}");
    harness.move_lease(1);
    match acquire(&mut *second, 2) {
        Acquired::Held { by, epoch, expires_in } => {
            assert_eq!((by, epoch), (Uuid::from_u128(1), term.epoch));
            assert!(expires_in <= LEASE, "{expires_in:?}");
        }
        leads @ Acquired::Leads(_) => panic!("{leads:?}"),
    }
    let renewed = renew(&mut *first, term.epoch).expect("it leads");
    assert!(renewed.epoch == term.epoch && renewed.lasts <= LEASE, "{renewed:?}");
    let next = wait_to_lead(&mut *second, harness, 2);
    assert!(next.epoch > term.epoch, "{next:?} after {term:?}");
    let lost = Err(LeadershipError::Lost { epoch: term.epoch, current: next.epoch });
    harness.move_lease(1);
    assert_eq!(renew(&mut *first, term.epoch), lost);
    assert!(renew(&mut *second, next.epoch).is_ok());
}

pub fn a_lease_that_has_expired_is_not_renewed(harness: &dyn SharedHarness) {
    let shared = harness.shared();
    let mut leadership = shared.leadership();
    let term = leads(&mut *leadership, 1);
    harness.pass(LEASE + LEASE / 8);
    assert!(matches!(renew(&mut *leadership, term.epoch), Err(LeadershipError::Lost { .. })));
}

pub fn a_holder_that_acquires_again_begins_another_epoch(harness: &dyn SharedHarness) {
    let shared = harness.shared();
    let mut leadership = shared.leadership();
    let term = leads(&mut *leadership, 1);
    let again = leads(&mut *leadership, 1);
    assert!(again.epoch > term.epoch, "{again:?} after {term:?}");
    assert!(matches!(shared.lead(term.epoch), Err(LeadershipError::Lost { .. })));
}

pub fn a_leader_that_resigns_is_followed_at_once_by_a_higher_epoch(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let (mut first, mut second) = (one.leadership(), two.leadership());
    let term = leads(&mut *first, 1);
    harness.move_lease(1);
    first.resign(Epoch(term.epoch.0 - 1)).expect("without effect");
    assert!(renew(&mut *first, term.epoch).is_ok());
    first.resign(term.epoch).expect("reachable");
    let next = leads(&mut *second, 2);
    assert!(next.epoch > term.epoch, "{next:?} after {term:?}");
    harness.move_lease(1);
    first.resign(term.epoch).expect("without effect");
    assert!(renew(&mut *second, next.epoch).is_ok());
}

pub async fn members_are_listed_with_their_last_contact_and_who_leads(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let (mut first, mut second) = (one.leadership(), two.leadership());
    assert_eq!(one.members().await, Ok(Vec::new()));
    first.announce(&member(2)).expect("reachable");
    second.announce(&member(1)).expect("reachable");
    let term = leads(&mut *first, 2);
    harness.move_lease(1);
    harness.pass(LEASE / 2);
    second.announce(&member(1)).expect("reachable");
    let listed = two.members().await.expect("readable");
    let members: Vec<_> = listed.iter().map(|status| (status.member.clone(), status.leads)).collect();
    assert_eq!(members, [(member(1), None), (member(2), Some(term.epoch))]);
    assert!(listed[0].last_contact < listed[1].last_contact, "{listed:?}");
    assert!(listed[1].last_contact >= LEASE / 2, "{listed:?}");
    harness.move_lease(-1);
    harness.pass(LEASE);
    let listed = two.members().await.expect("readable");
    assert!(listed.iter().all(|status| status.leads.is_none()), "{listed:?}");
    second.leave(member(1).id).expect("reachable");
    let listed = one.members().await.expect("readable");
    assert_eq!(listed.iter().map(|status| status.member.clone()).collect::<Vec<_>>(), [member(2)]);
}

pub async fn a_leader_that_was_followed_writes_prunes_and_deletes_nothing(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let (mut first, mut second) = (one.leadership(), two.leadership());
    let old = leads(&mut *first, 1);
    let mut parts = one.lead(old.epoch).expect("it leads");
    let submission = |number| Entry::Submission(Arc::new(range_job(number, 10)));
    let batch = Batch { id: 1, epoch: old.epoch, entries: vec![submission(1)] };
    parts.backend.apply(&batch).expect("it leads");
    parts.last_batch = 1;
    let keep_none = crate::Retention { max_age: Duration::ZERO, max_bytes: 0 };
    let store = Store::start(parts, keep_none).expect("a thread");
    store.commit(change(id(1), at(2), ChangeKind::Canceled)).await.expect("it leads");

    let new = wait_to_lead(&mut *second, harness, 2);
    let superseded = WriteError::Superseded { current: new.epoch, own: old.epoch };
    assert_eq!(store.prune().await, Err(superseded.clone().into()));
    assert_eq!(store.commit(change(id(1), at(3), ChangeKind::Retried)).await, Err(superseded.clone()));
    assert_eq!(store.submit(range_job(2, 10)).await, Err(SubmitError::Write(superseded)));
    let mut late = two.lead(new.epoch).expect("it leads");
    let batch = Batch { id: 2, epoch: old.epoch, entries: vec![submission(3)] };
    assert_eq!(late.backend.apply(&batch), Err(BatchError::Superseded { current: new.epoch }));
    let found = late.reads.jobs(crate::JobFilter::default(), None, 10).await.expect("readable");
    assert_eq!(found.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(id(1), JobState::Canceled)]);
}

pub async fn a_leader_that_opens_the_store_again_goes_on_after_its_last_batch(harness: &dyn SharedHarness) {
    let shared = harness.shared();
    let term = leads(&mut *shared.leadership(), 1);
    let store = leader(&*shared, term.epoch);
    store.submit(range_job(1, 10)).await.expect("it leads");
    store.close().expect("all is committed");
    let store = leader(&*shared, term.epoch);
    assert_eq!(store.submit(range_job(2, 10)).await, Ok(Submission::New));
    assert_eq!(store.unfinished().await.expect("readable").len(), 2);
}

pub async fn a_follower_reads_and_submits_and_makes_no_change(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let term = leads(&mut *one.leadership(), 1);
    let (leader, follower) = (leader(&*one, term.epoch), follower(&*two));
    assert!(leader.leads() && !follower.leads());
    assert_eq!(follower.submit(tasks_job(1, numbers(700))).await, Ok(Submission::New));
    assert!(matches!(follower.submit(tasks_job(1, numbers(700))).await, Ok(Submission::Existing(_))));
    let mut other = range_job(1, 5);
    other.fingerprint = [9; 32];
    assert_eq!(follower.submit(other).await, Err(SubmitError::Mismatch { existing: id(1) }));

    let found = leader.unfinished_job(id(1)).await.expect("readable").expect("there");
    assert_eq!(found.record.tasks, 700);
    assert_eq!(leader.payloads(id(1), 600..601).await.expect("there")[0].get(), "600");
    leader.record(answered(id(1), 0..1, vec![raw("17")]));
    leader.flush().await.expect("it leads");
    assert_eq!(record_of(&follower, id(1)).await.tasks_done, 1);
    assert_eq!(follower.outcomes(id(1), 0, 1).await.map(|found| found.len()), Ok(1));

    let following = WriteError::Following;
    follower.record(completed(id(1), 1..2, 1));
    assert_eq!(follower.commit(completed(id(1), 1..2, 1)).await, Err(following.clone()));
    assert_eq!(follower.prune().await, Err(following.clone().into()));
    assert_eq!(follower.put_result(id(1), raw("1")).await.err(), Some(following.clone()));
    assert_eq!(follower.compose_result(id(1)).await.err(), Some(following.into()));
    follower.flush().await.expect("nothing waits");
    assert_eq!(record_of(&leader, id(1)).await.tasks_done, 1);
    let mut parts = two.follow().expect("reachable");
    let change = Entry::Change(completed(id(1), 2..3, 1));
    let batch = Batch { id: 1, epoch: term.epoch, entries: vec![change, Entry::Nothing] };
    let answers = parts.submitter.apply(&batch).expect("reachable").answers;
    assert!(matches!(&answers[..], [crate::Answer::Refused(_), crate::Answer::Done]), "{answers:?}");
}

pub async fn a_follower_reads_the_payloads_of_the_job_that_has_taken_an_id_over(harness: &dyn SharedHarness) {
    let (one, two) = (harness.shared(), harness.shared());
    let mut leadership = one.leadership();
    let term = leads(&mut *leadership, 1);
    let keep_none = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    let leader = Store::start(one.lead(term.epoch).expect("it leads"), keep_none).expect("a thread");
    let reader = follower(&*two);
    leader.submit(tasks_job(1, vec![raw("\"old\"")])).await.expect("room");
    assert_eq!(reader.payloads(id(1), 0..1).await.expect("there")[0].get(), "\"old\"");
    leader.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(leader.prune().await.map(|pruned| pruned.jobs), Ok(1));
    leader.submit(tasks_job(1, vec![raw("\"new\"")])).await.expect("room");
    assert_eq!(reader.payloads(id(1), 0..1).await.expect("there")[0].get(), "\"new\"");
}

pub async fn all_hear_of_the_events_of_all_without_a_gap(harness: &dyn SharedHarness) {
    const EACH: u128 = 40;
    let shared: Vec<_> = (0..3).map(|_| harness.shared()).collect();
    let term = leads(&mut *shared[0].leadership(), 1);
    let mut stores = vec![Arc::new(leader(&*shared[0], term.epoch))];
    stores.extend(shared[1..].iter().map(|shared| Arc::new(follower(&**shared))));
    let submitting = stores.iter().zip(1..).map(|(store, place)| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                assert_eq!(store.submit(range_job(place * 1000 + number, 10)).await, Ok(Submission::New));
            }
        })
    });
    let following = stores.iter().map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut latest, mut next) = (store.latest_event(), 0);
            while next < 3 * EACH as u64 {
                let events = store.events(next, None, 1000).await.expect("readable");
                assert!(events.iter().map(|event| event.seq).eq(next + 1..=next + events.len() as u64), "{events:?}");
                next += events.len() as u64;
                if next < 3 * EACH as u64 {
                    let told = tokio::time::timeout(Duration::from_secs(60), latest.changed()).await;
                    told.expect("it is told of events").expect("the store is open");
                }
            }
        })
    });
    let tasks: Vec<_> = submitting.chain(following).collect();
    for task in tasks {
        task.await.expect("all is well");
    }
}
