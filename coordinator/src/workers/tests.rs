use model::{DEFAULT_CHUNK_SIZE, JobId, Resources};
use store::memory::Memory;
use store::{Retention, WriteError};
use tokio::task::yield_now;
use uuid::Uuid;

use super::*;
use crate::accepting::{Proposal, Ready, submit_to};
use crate::clock::now;
use crate::config::Config;
use crate::driver::Outgoing;
use crate::submission;

fn heartbeat(held: Vec<api::HeldLease>) -> Heartbeat {
    Heartbeat {
        port: 1,
        boot_id: BootId(Uuid::nil()),
        slots: 1,
        running: 0,
        cpu_load: 0.0,
        free_memory_bytes: 0,
        labels: Labels::new(),
        resources: Resources::default(),
        kinds: vec![JobKind::SLEEP],
        abilities: Labels::new(),
        version: String::new(),
        is_draining: false,
        programs: api::ProgramAbilities::default(),
        held,
        epoch: 1,
    }
}

#[tokio::test]
async fn a_lease_whose_outcome_waits_for_a_store_that_fails_does_not_expire() {
    let memory = Memory::new();
    let retention = Retention { max_age: Duration::MAX, max_bytes: u64::MAX };
    let store = Arc::new(memory.store(retention).expect("a thread"));
    let engine = Engine::new(Config::default().engine_settings(1), now());
    let (driver, queues) = Driver::new(engine, Arc::clone(&store));
    let workers = Workers::new(Duration::from_secs(60), Instant::now());
    workers.begin_term(&driver);
    let worker_id: WorkerId = "one".parse().expect("a name");
    let origin = Origin { address: SocketAddr::from(([127, 0, 0, 1], 1)), connection: 1 };
    let beat = |held| workers.register(&worker_id, origin, heartbeat(held), Instant::now()).expect("taken").1;
    beat(Vec::new());
    let before_all = now();
    let body = br#"{"kind":"sleep","params":{"seconds":0.0}}"#;
    let (job, fingerprints) = submission::read(body, DEFAULT_CHUNK_SIZE, None).expect("a job");
    let id = Some(JobId(Uuid::from_u128(1)));
    let proposal = Proposal { id, idempotency_key: None, job, fingerprints, reservation: None };
    let accepting = driver.view(|engine| proposal.into_new(Ready::Engine(engine))).expect("valid");
    submit_to(&store, &accepting.new, accepting.body).await.expect("it is stored");
    driver.input(|engine, now| engine.take_up(accepting.new.accepted(), now)).expect("a job");
    let order = match queues.outgoing.try_recv() {
        Ok(Outgoing::Lease(order, _)) => order,
        other => panic!("{other:?}"),
    };
    // A renewal from before the lease does not prolong it.
    let expires_at = || driver.input(|engine, _| engine.renew(order.attempt, before_all)).expect("it is leased");
    let finished = || {
        vec![api::HeldLease {
            attempt: order.attempt,
            job: order.job,
            first: order.tasks.start,
            beyond: order.tasks.end,
            epoch: 1,
            slot: order.slot,
            elapsed_ms: 0,
            state: api::HeldState::Finished,
        }]
    };
    let at_first = expires_at();
    assert_eq!(beat(finished()).deliver, [order.attempt]);
    assert_eq!(expires_at(), at_first, "it is to be delivered in time");
    memory.set_failing(Some(WriteError::Unavailable("it is away".to_owned())));
    while !driver.is_store_failing() {
        yield_now().await;
    }
    assert_eq!(beat(finished()).deliver, [order.attempt]);
    assert!(expires_at() > at_first);
    memory.set_failing(None);
}
