//! The fate of a message: it arrives, once or twice, or it is lost and its connection breaks, at once or never.

use rand::RngExt;

use crate::plan::{Micros, SECOND};
use crate::world::{Event, World};

/// The fate of one message between the coordinator and a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// The message arrives after this time.
    Arrives(Micros),
    /// The message is lost, and its sender learns after this time that the connection broke.
    Broken(Micros),
    /// The message is lost without notice: the connection is half open.
    Silent,
}

impl World {
    pub(crate) fn delay(&mut self) -> Micros {
        // Mostly short, at times long: so messages overtake each other.
        let most = self.plan.max_delay;
        if self.rng.random_bool(0.8) {
            self.rng.random_range(50..=most / 4 + 60)
        } else {
            self.rng.random_range(50..=most + 60)
        }
    }

    pub(crate) fn fate(&mut self, is_cut: bool) -> Fate {
        let delay = self.delay();
        let is_lost = !self.is_calm && self.rng.random_bool(self.plan.loss);
        if !is_cut && !is_lost {
            return Fate::Arrives(delay);
        }
        if self.rng.random_bool(0.4) {
            Fate::Silent
        } else {
            Fate::Broken(delay + self.rng.random_range(0..SECOND / 4))
        }
    }

    /// Sends a message that may be lost or doubled without anyone learning of it.
    pub(crate) fn post(&mut self, is_cut: bool, event: Event) {
        if let Fate::Arrives(delay) = self.fate(is_cut) {
            if !self.is_calm && self.rng.random_bool(self.plan.duplication) {
                let later = self.delay();
                self.after(delay + later, event.clone());
            }
            self.after(delay, event);
        }
    }
}
