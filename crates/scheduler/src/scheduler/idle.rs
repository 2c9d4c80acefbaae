//! Chooses the idle slot that gets the next lease.

use std::cmp::Reverse;
use std::time::Instant;

use super::Scheduler;
use crate::lease::Lane;
use crate::queue::ClassId;

impl Scheduler {
    /// Notes that a slot waits for work: a slot of a pushed worker that holds no lease, or a claim of a pulling worker. A slot
    /// of an unknown or retired worker is ignored; a slot of a suspended worker waits until the worker is resumed.
    ///
    /// A busy slot gets a lease ahead from [`Self::claim`]. As an idle slot it would find nothing because it is busy, and would
    /// not be offered again when its lease ends.
    pub fn slot_idle(&mut self, lane: Lane) {
        self.end_walk(lane);
        self.workers.slot_idle(lane);
    }

    /// Notes that a slot does not wait for work any more.
    pub fn slot_gone(&mut self, lane: Lane) {
        self.workers.slot_gone(lane);
    }

    /// Takes the idle slot that should claim next: for the best waiting work that an idle slot may run, the slot that has
    /// been idle for longest; `None` if no idle slot may run anything.
    ///
    /// The caller claims for it with [`crate::LeaseSize::Fitting`]. Where the claim finds nothing it calls
    /// [`Self::slot_idle`] again: the slot is not offered before something changes that concerns it, so a loop of offers
    /// ends.
    pub fn next_idle(&mut self, now: Instant) -> Option<Lane> {
        let runnable = self.queue.runnable_classes().iter().copied();
        let offers = runnable.filter_map(|class| Some((self.workers.next_idle(class)?, class)));
        let best = offers.max_by_key(|((turn, _), class)| (self.head_rank(*class, now), Reverse(*turn)));
        let second_attempts =
            || self.stragglers.ready_classes().filter_map(|class| self.workers.next_idle(class)).min();
        let (_, lane) = best.map(|(offer, _)| offer).or_else(second_attempts)?;
        self.workers.slot_gone(lane);
        self.offered = Some(lane);
        Some(lane)
    }

    /// The level and the turn of the best job that heads a line of the class.
    fn head_rank(&self, class: ClassId, now: Instant) -> Option<(u8, Reverse<u64>)> {
        let heads = self.queue.lines(class).filter_map(|(level, line)| {
            let (turn, id) = line.oldest()?;
            Some((self.jobs[&id].aged_level(level, self.policy.aging_interval, now), Reverse(turn)))
        });
        heads.max()
    }
}
