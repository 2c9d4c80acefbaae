use model::EventKind;

use super::Harness;
use super::helpers::*;
use crate::ChangeKind;

pub async fn events_come_in_order_from_any_number_on_of_one_job_or_of_all(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..=3 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    for round in 0..10 {
        for number in 1..=3 {
            store.record(change(id(number), at(round), ChangeKind::Progress));
        }
    }
    store.flush().await.expect("room");
    assert_eq!(*store.latest_event().borrow(), 33);

    let all = store.events(0, None, 100).await.expect("readable");
    assert!(all.iter().map(|event| event.seq).eq(1..=33));
    assert_eq!(store.events(30, None, 2).await.expect("readable"), all[30..32]);
    let of_two: Vec<_> = all.iter().filter(|event| event.job == id(2)).cloned().collect();
    assert_eq!(store.events(0, Some(id(2)), 100).await.expect("readable"), of_two);
    assert_eq!(store.events(of_two[4].seq, Some(id(2)), 3).await.expect("readable"), of_two[5..8]);
    let last: Vec<_> = of_two.iter().rev().take(4).cloned().collect();
    assert_eq!(store.last_events(id(2), 4).await.expect("readable"), last);
    assert_eq!(store.last_events(id(2), 100).await.expect("readable").len(), of_two.len());
    assert!(store.last_events(id(9), 4).await.expect("readable").is_empty());
    assert!(store.events(33, None, 10).await.expect("readable").is_empty());
    assert!(store.events(0, Some(id(9)), 10).await.expect("readable").is_empty());

    store.close().expect("all is committed");
    let store = harness.open();
    assert_eq!(*store.latest_event().borrow(), 33);
    store.submit(range_job(4, 10)).await.expect("room");
    let newest = store.events(33, None, 10).await.expect("readable");
    assert_eq!((newest.len(), newest[0].seq, newest[0].kind), (1, 34, EventKind::Submitted));
}

pub async fn a_caller_that_is_told_of_an_event_finds_it(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    let mut latest = store.latest_event();
    for round in 0..50 {
        let before = *latest.borrow_and_update();
        store.record(change(id(1), at(round), ChangeKind::Progress));
        latest.changed().await.expect("the store is open");
        let found = store.events(before, None, 10).await.expect("readable");
        assert_eq!(found.last().map(|event| event.seq), Some(*latest.borrow()));
    }
}
