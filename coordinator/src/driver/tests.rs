use std::thread;
use std::time::Duration;

use engine::{Delivery, WorkerAnnouncement};
use jiff::Timestamp;
use model::{BootId, DEFAULT_CHUNK_SIZE, Labels, Resources};
use serde_json::value::RawValue;
use store::memory::Memory;
use store::{Change, ChangeKind, Retention, WriteError};
use uuid::Uuid;
use workloads::Report;

use super::*;
use crate::config::Config;
use crate::outcomes::{OutcomeBudget, OutcomeSize};

fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

/// Asks for a sum of one task, without a client.
fn ask(driver: &Driver, id: JobId) {
    let params = RawValue::from_string(r#"{"a":0,"b":100,"algorithm":"sieve"}"#.to_owned()).expect("JSON");
    let kind = workloads::kind(JobKind::SUM_OF_PRIMES).expect("it is there");
    let work = kind.parse(&params, DEFAULT_CHUNK_SIZE).expect("valid").workload;
    driver.input(|engine, now| engine.ask(id, JobKind::SUM_OF_PRIMES, work, &JobOptions::default(), now));
}

/// The next lease that is to be sent.
fn next_lease(queues: &Queues) -> (Box<LeaseOrder>, oneshot::Receiver<()>) {
    match queues.outgoing.try_recv() {
        Ok(Outgoing::Lease(order, revoked)) => (order, revoked),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_that_another_thread_revokes_before_it_is_sent_is_not_sent() {
    let store = Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread"));
    let engine = Engine::new(Config::default().engine_settings(1), now());
    let (driver, queues) = Driver::new(engine, store);
    let announcement = WorkerAnnouncement {
        id: "one".parse().expect("a name"),
        delivery: Delivery::Pushed { boot_id: BootId(Uuid::nil()) },
        slots: 1,
        kinds: vec![JobKind::SUM_OF_PRIMES],
        labels: Labels::new(),
        resources: Resources::default(),
        is_reserved: false,
        leases_per_slot: 1,
    };
    driver.input(|engine, now| engine.join(announcement, &[], now));
    let (first, second) = (job(1), job(2));
    let (sender, _client) = oneshot::channel();
    driver.answers.insert(first, sender);
    ask(&driver, first);
    ask(&driver, second);
    let (order, _) = next_lease(&queues);
    let report = Report { value: Some(1060), results: Vec::new() };
    thread::scope(|scope| {
        // The effects of the outcome are the answer of the first job, then the lease of the second one.
        let answering = driver.answers.get(&first);
        let completing =
            scope.spawn(|| driver.input(|engine, now| engine.complete(order.attempt, report, Duration::ZERO, now)));
        while driver.view(|engine| engine.knows(first)) {
            thread::yield_now();
        }
        driver.input(|engine, now| engine.abandon(second, now));
        drop(answering);
        completing.join().expect("no panic").expect("it counts");
    });
    assert!(queues.outgoing.try_recv().is_err(), "the lease of a job that is over is sent");
    assert_eq!(driver.sent.len(), 1, "the first lease is still being sent");
}

#[tokio::test]
async fn an_outcome_takes_its_memory_until_the_store_has_committed_it() {
    let memory = Memory::new();
    let store = Arc::new(memory.store(Retention::KEEP_ALL).expect("a thread"));
    let engine = Engine::new(Config::default().engine_settings(1), now());
    let (driver, _queues) = Driver::new(engine, Arc::clone(&store));
    let following = tokio::spawn(Arc::clone(&driver).follow_store());
    memory.set_failing(Some(WriteError::Unavailable("it is away".to_owned())));
    // One outcome takes all of it.
    let budget = OutcomeBudget::new(1024);
    let mut next = std::pin::pin!(async {
        for _ in 0..2 {
            let permit = budget.reserve(OutcomeSize { bytes: 16 << 10, tasks: 1 }, || ()).await;
            store.record(Change { job: job(1), at: Timestamp::UNIX_EPOCH, kind: ChangeKind::Progress });
            driver.hold_until_durable(permit);
        }
    });
    tokio::select! {
        biased;
        () = &mut next => panic!("there is no room for a second one"),
        () = async {
            while !driver.is_store_failing() {
                tokio::task::yield_now().await;
            }
        } => (),
    }
    assert_eq!(store.recorded(), 1);
    memory.set_failing(None);
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("the commit makes room");
    following.abort();
}
