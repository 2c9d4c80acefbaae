//! Events that were sent and not all acknowledged.

use std::collections::BTreeSet;

/// Tracks up to which event all events are acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Window {
    outstanding: BTreeSet<u64>,
    /// The number after the last event that was sent.
    beyond: u64,
    /// The number after the last number without an event.
    passed: u64,
    /// The number after the last event that earlier producers have sent.
    sent_before: u64,
    /// Those of their events that are not acknowledged.
    unacknowledged_before: BTreeSet<u64>,
    /// Whether any event is acknowledged.
    is_proved: bool,
    failed: Option<String>,
    /// Last message of the client about its brokers.
    warning: Option<String>,
    /// Last message of the client about a single broker.
    broker: Option<String>,
}

impl Window {
    /// A window before anything from `next` on is sent.
    pub(crate) fn new(next: u64) -> Self {
        Self { beyond: next, ..Self::default() }
    }

    pub(crate) fn sent(&mut self, seq: u64) {
        self.outstanding.insert(seq);
        self.beyond = seq + 1;
    }

    /// Notes that there are no events up to this number beside those that were sent.
    pub(crate) fn passed(&mut self, seq: u64) {
        self.passed = self.passed.max(seq + 1);
    }

    /// Whether an earlier producer has published this event, the next one. It counts as sent and acknowledged then.
    pub(crate) fn skips(&mut self, seq: u64) -> bool {
        let is_published = seq < self.sent_before && !self.unacknowledged_before.contains(&seq);
        if is_published {
            self.beyond = seq + 1;
        }
        is_published
    }

    /// The window of a new producer, which sends the events that are not acknowledged and no others again.
    pub(crate) fn handed_on(&self) -> Self {
        let (beyond, sent_before) = (self.next(), self.beyond.max(self.sent_before));
        let unsent = self.unacknowledged_before.range(self.beyond..);
        let unacknowledged_before = self.outstanding.iter().chain(unsent).copied().collect();
        Self { beyond, sent_before, unacknowledged_before, ..Self::default() }
    }

    pub(crate) fn acknowledged(&mut self, seq: u64) {
        self.outstanding.remove(&seq);
        self.is_proved = true;
    }

    /// Whether the brokers have acknowledged any event.
    pub(crate) fn is_proved(&self) -> bool {
        self.is_proved
    }

    /// Keeps the first failure: later ones do not show the cause.
    pub(crate) fn fail(&mut self, error: String) {
        self.failed.get_or_insert(error);
    }

    /// Notes a trouble of the client with its brokers, which the client survives.
    pub(crate) fn warn(&mut self, warning: String) {
        self.warning = Some(warning);
    }

    /// Notes that a broker cannot be reached, which says nothing of the others.
    pub(crate) fn note_broker(&mut self, message: String) {
        self.broker = Some(message);
    }

    /// The last broker that could not be reached.
    pub(crate) fn broker(&self) -> Option<&str> {
        self.broker.as_deref()
    }

    /// The last trouble since the last call.
    pub(crate) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Events that are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// The number of the first event that is not acknowledged, else the number after the last event.
    pub(crate) fn next(&self) -> u64 {
        self.outstanding.first().copied().unwrap_or(self.beyond)
    }

    /// Like [`Self::next`], but also after numbers without an event.
    pub(crate) fn settled(&self) -> u64 {
        self.outstanding.first().copied().unwrap_or(self.beyond.max(self.passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_acknowledged_without_a_gap_counts() {
        let mut window = Window::new(5);
        assert_eq!((window.next(), window.is_proved()), (5, false));
        for seq in [5, 6, 9] {
            window.sent(seq);
        }
        window.acknowledged(6);
        assert_eq!((window.next(), window.len(), window.is_proved()), (5, 2, true));
        window.acknowledged(5);
        assert_eq!(window.next(), 9);
        window.acknowledged(9);
        assert_eq!((window.next(), window.len()), (10, 0));
        // Events of these numbers may come all the same, where the database has lost some.
        window.passed(12);
        assert_eq!((window.next(), window.settled()), (10, 13));
        window.sent(14);
        assert_eq!((window.next(), window.settled()), (14, 14));
        window.acknowledged(14);
        assert_eq!((window.next(), window.settled()), (15, 15));
        window.fail("first".to_owned());
        window.fail("second".to_owned());
        assert_eq!(window.failure(), Some("first"));
    }

    #[test]
    fn producers_one_after_the_other_publish_each_event_once() {
        let mut first = Window::new(5);
        for seq in 5..=9 {
            first.sent(seq);
        }
        for seq in [6, 7, 9] {
            first.acknowledged(seq);
        }
        let mut second = first.handed_on();
        assert_eq!((second.next(), second.len(), second.is_proved(), second.skips(5)), (5, 0, false, false));
        second.sent(5);
        assert!(second.skips(6));
        assert_eq!(second.next(), 5);
        // It ends before it comes to the rest.
        second.acknowledged(5);
        assert_eq!(second.next(), 7);
        let mut third = second.handed_on();
        assert_eq!([7, 8, 9, 10].map(|seq| third.skips(seq)), [true, false, true, false]);
    }
}
