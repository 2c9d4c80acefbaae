//! The number of workers in each state.

use engine::Standing;

use super::{Registration, Workers};

/// Numbers of workers by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerStates {
    pub(crate) ready: u64,
    pub(crate) suspended: u64,
    pub(crate) draining: u64,
    /// Slots of the ready workers.
    pub(crate) slots: u64,
}

impl WorkerStates {
    fn add(&mut self, standing: Option<Standing>, slots: u32) {
        match standing {
            Some(Standing::Ready) => {
                self.ready += 1;
                self.slots += u64::from(slots);
            }
            Some(Standing::Suspended) => self.suspended += 1,
            Some(Standing::Draining) => self.draining += 1,
            None => (),
        }
    }
}

impl Workers {
    /// Workers by state, and the slots of those that are ready. A standby knows which of them drain.
    pub(crate) fn states(&self) -> WorkerStates {
        let standing = |worker: &Registration| {
            if worker.heartbeat.is_draining { Standing::Draining } else { Standing::Ready }
        };
        let workers: Vec<_> = self
            .registrations
            .iter()
            .map(|worker| (worker.key, worker.heartbeat.slots, standing(worker.value())))
            .collect();
        let mut states = WorkerStates::default();
        match self.driver() {
            Some(driver) => driver.view(|engine| {
                for (key, slots, _) in workers {
                    let worker = key.and_then(|key| engine.worker(key));
                    states.add(worker.map(|worker| worker.standing), slots);
                }
            }),
            None => workers.into_iter().for_each(|(_, slots, standing)| states.add(Some(standing), slots)),
        }
        states
    }
}
