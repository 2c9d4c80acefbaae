use model::EventKind;
use store::Change;

use crate::helpers::*;

#[tokio::test]
async fn events_come_in_order_from_any_number_on_of_one_job_or_of_all() {
    let (directory, store) = new_store();
    for number in 1..=3 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    for round in 0..10 {
        for number in 1..=3 {
            store.record(Change::Progress { job: id(number), at: at(round) });
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
    assert!(store.events(33, None, 10).await.expect("readable").is_empty());
    assert!(store.events(0, Some(id(9)), 10).await.expect("readable").is_empty());

    store.close().expect("all is committed");
    let store = open(directory.path());
    assert_eq!(*store.latest_event().borrow(), 33);
    store.submit(range_job(4, 10)).await.expect("room");
    let newest = store.events(33, None, 10).await.expect("readable");
    assert_eq!((newest.len(), newest[0].seq, newest[0].kind), (1, 34, EventKind::Submitted));
}

#[tokio::test]
async fn who_is_told_of_an_event_finds_it() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 10)).await.expect("room");
    let mut latest = store.latest_event();
    for round in 0..50 {
        let before = *latest.borrow_and_update();
        store.record(Change::Progress { job: id(1), at: at(round) });
        latest.changed().await.expect("the store is open");
        let found = store.events(before, None, 10).await.expect("readable");
        assert_eq!(found.last().map(|event| event.seq), Some(*latest.borrow()));
    }
}
