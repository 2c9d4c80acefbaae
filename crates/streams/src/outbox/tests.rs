use model::{EventKind, JobId};
use rdkafka::mocking::MockCluster;
use store::Retention;
use store::memory::Memory;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::*;

#[test]
fn an_event_that_is_late_again_and_again_ends_its_producer_where_each_partition_has_a_leader() {
    let cluster = MockCluster::new(1).expect("a broker");
    let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
    let topic = settings.topics().events();
    cluster.create_topic(&topic, 2, 1).expect("a topic");
    let store = Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread"));
    let runtime = Runtime::new().expect("a runtime");
    let outbox = Outbox { settings, store, figures: Arc::default(), runtime: runtime.handle().clone() };
    let mut session = outbox.begin(false, Patience::default(), None).expect("a producer");
    session.waits.0 = 7;
    session.late.0 = session.patience.reports(7) - 1;
    assert!(outbox.check(&mut session).is_ok(), "it may still come");
    session.late.0 += 1;
    cluster.partition_leader(&topic, 1, None).expect("a partition");
    assert!(outbox.check(&mut session).is_ok(), "a new producer does not find a leader either");
    assert_eq!(session.late.0, 0, "the leaders are asked for again after as many reports");
    cluster.partition_leader(&topic, 1, Some(1)).expect("a partition");
    // For a minute at most, while the broker does not answer.
    let is_stuck = (0..12).any(|_| {
        session.late.0 = session.patience.reports(7);
        matches!(outbox.check(&mut session), Err(OutboxError::Stuck(7)))
    });
    assert!(is_stuck);
}

#[test]
fn a_new_producer_sends_no_event_that_the_one_before_has_published_behind_the_late_one() {
    let cluster = MockCluster::new(1).expect("a broker");
    let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
    let store = Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread"));
    let runtime = Runtime::new().expect("a runtime");
    let outbox = Outbox { settings, store, figures: Arc::default(), runtime: runtime.handle().clone() };
    let event = |seq| JobEvent {
        seq,
        job: JobId(Uuid::nil()),
        kind: EventKind::Started,
        at: Default::default(),
        job_kind: None,
        task: None,
        tasks_done: None,
        tasks_total: None,
        error: None,
        source: None,
        counts: Box::default(),
    };
    let unacknowledged = |before: Option<Window>| {
        let mut session = outbox.begin(true, Patience::default(), before).expect("a producer");
        for seq in 1..=3 {
            assert!(outbox.send(&mut session, &event(seq), &Stop::new(|| true)).expect("room"));
        }
        assert_eq!(session.sent, 3);
        lock(&session.window).len()
    };
    let mut before = Window::new(1);
    for seq in 1..=3 {
        before.sent(seq);
    }
    before.acknowledged(2);
    assert_eq!(unacknowledged(Some(before.handed_on())), 2);
    before.acknowledged(1);
    assert_eq!(unacknowledged(Some(before.handed_on())), 3, "the store has another position");
    assert_eq!(unacknowledged(None), 3);
}
