//! The contract's tests for the store in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Memory, lock};
use crate::shared::Shared;
use crate::store::Parts;
use crate::suite::{Harness, SharedHarness};

impl Harness for Memory {
    fn parts(&self) -> Parts {
        self.open()
    }

    fn crashed(&self) -> Box<dyn Harness> {
        Box::new(self.fork())
    }
}

crate::suite!(super::Memory::new());

/// A store whose time passes when a test says so.
#[derive(Default)]
struct Several {
    memory: Memory,
    time: Arc<Mutex<Duration>>,
}

impl SharedHarness for Several {
    fn shared(&self) -> Box<dyn Shared> {
        let time = self.time.clone();
        Box::new(self.memory.shared(Arc::new(move || *lock(&time))))
    }

    fn pass(&self, time: Duration) {
        *lock(&self.time) += time;
    }
}

mod sharing {
    crate::shared_suite!(super::Several::default());
}

#[tokio::test]
async fn a_coordinator_that_is_cut_off_reaches_nothing_until_it_is_not() {
    let several = Several::default();
    let shared = several.memory.shared(Arc::new(|| Duration::ZERO));
    let mut leadership = shared.leadership();
    shared.cut(true);
    assert!(leadership.acquire(uuid::Uuid::from_u128(1)).is_err());
    assert!(shared.follow().is_err() && shared.members().await.is_err());
    shared.cut(false);
    assert!(leadership.acquire(uuid::Uuid::from_u128(1)).is_ok());
    assert!(shared.follow().is_ok() && shared.members().await.is_ok());
}
