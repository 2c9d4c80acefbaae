use model::{BootId, WorkerId};
use uuid::Uuid;

use super::Harness;
use super::helpers::*;
use crate::{Drain, DrainedWorker};

fn drain(name: &str, boot: Option<u128>, seconds: i64) -> Drain {
    let worker = WorkerId::try_from(name.to_owned()).expect("a name");
    let boot = boot.map(|boot| BootId(Uuid::from_u128(boot)));
    Drain { drained: DrainedWorker { worker, boot }, at: at(seconds) }
}

pub async fn drained_workers_are_there_after_a_restart_until_they_are_forgotten(harness: &dyn Harness) {
    let store = harness.open();
    assert_eq!(store.drains().await, Ok(Vec::new()));
    let (pulls, first, second) = (drain("one", None, 3), drain("one", Some(1), 2), drain("one", Some(2), 1));
    for drain in [&second, &first, &pulls] {
        store.drain(drain.clone()).await.expect("room");
    }
    store.drain(Drain { at: at(9), ..first.clone() }).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    assert_eq!(store.drains().await, Ok(vec![pulls.clone(), first.clone(), second.clone()]));
    store.forget_drain(first.drained.clone()).await.expect("room");
    store.forget_drain(first.drained).await.expect("room");
    assert_eq!(store.drains().await, Ok(vec![pulls, second]));
}
