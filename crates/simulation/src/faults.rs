//! The faults of a run, and their times.

use rand::RngExt;

use crate::plan::{Faults, SECOND};
use crate::world::{Event, World};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let next = self.rng.random_range(0..2 * self.plan.fault_interval);
        self.after(next, Event::Fault);
        if std::mem::take(&mut self.disk_fails) {
            return self.note("disk", "writes again");
        }
        let kinds = if self.plan.faults == Faults::Restarts { 2 } else { 10 };
        let (worker, puller) =
            (self.rng.random_range(0..self.workers.len()), self.rng.random_range(0..=self.pullers.len()));
        match self.rng.random_range(0..kinds) {
            0 => self.kill_coordinator("is killed"),
            1 => self.stop_coordinator(),
            2 | 3 => {
                self.audit.is_lossy = true;
                self.kill_worker(worker, "is killed");
            }
            4 => self.drain_worker(worker),
            5 | 6 if !self.workers[worker].is_cut => self.cut(worker),
            7 if puller < self.pullers.len() => self.kill_puller(puller),
            8 => {
                self.note("disk", "fails");
                self.disk_fails = true;
                // The next fault ends it.
                let pause = self.rng.random_range(0..6 * SECOND);
                self.after(pause, Event::Fault);
            }
            _ => (),
        }
    }
}
