//! Processes, coordinators and requests.

mod coordinator;
mod gate;
mod worker;

use std::time::Duration;

pub(crate) use coordinator::{FakeCoordinator, FakeState, own_address};
pub(crate) use gate::Gate;
pub(crate) use worker::{Lease, Worker};

/// Longest time that a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Polls for something that the worker shows only when it is asked.
pub(crate) async fn eventually<T>(what: &str, mut find: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("in time: {what}"))
}
