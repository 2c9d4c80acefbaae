//! Work and errors of the parts, for statistics, metrics and the log.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::KafkaStats;
use store::{OUTBOX, OUTBOX_LOST, OUTBOX_LOST_TOLD, Position};
use tracing::{info, warn};

/// A part of the bridge to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Publishes events.
    Outbox,
    /// Publishes the workers' state.
    Roster,
    /// Takes jobs in.
    Intake,
}

impl Part {
    const ALL: [Self; 3] = [Self::Outbox, Self::Roster, Self::Intake];

    /// The name in the log and the statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbox => "events",
            Self::Roster => "workers",
            Self::Intake => "intake",
        }
    }
}

/// The outbox by the store's positions; 0 where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredOutbox {
    /// The first unpublished event.
    pub(crate) next: u64,
    /// Number of lost events, and of those among them that a coordinator has told of.
    pub(crate) lost: u64,
    pub(crate) told: u64,
}

impl StoredOutbox {
    pub(crate) fn of(positions: &[(String, Position)]) -> Self {
        let next = |stream: &str| positions.iter().find(|(name, _)| name == stream).map_or(0, |(_, place)| place.next);
        Self { next: next(OUTBOX), lost: next(OUTBOX_LOST), told: next(OUTBOX_LOST_TOLD) }
    }
}

/// Counts, and the error of each part.
#[derive(Debug, Default)]
pub struct Figures {
    /// Number of running relays: one while this coordinator leads.
    relays: AtomicUsize,
    published: AtomicU64,
    lost: AtomicU64,
    /// Lost events that this process was the first to tell of.
    newly_lost: AtomicU64,
    taken: AtomicU64,
    dead: AtomicU64,
    refused: AtomicU64,
    missed: AtomicU64,
    anew: AtomicU64,
    truncated: AtomicU64,
    errors: Mutex<[Option<PartFailure>; Part::ALL.len()]>,
}

/// The reason why a part cannot go on.
#[derive(Clone, Debug)]
struct PartFailure {
    error: String,
    /// Instant of its last report.
    at: Instant,
}

impl Figures {
    pub(crate) fn set_published(&self, next: u64) {
        self.published.store(next.saturating_sub(1), Ordering::Relaxed);
    }

    /// Notes the number of lost events; `told` is the number that any coordinator has told of.
    pub(crate) fn set_lost(&self, lost: u64, told: u64) {
        let before = self.lost.swap(lost, Ordering::Relaxed).max(told);
        if lost > before {
            self.newly_lost.fetch_add(lost - before, Ordering::Relaxed);
            warn!(events = lost - before, "retention has deleted events before they were published");
        }
    }

    pub(crate) fn add_taken(&self, records: u64) {
        self.taken.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn add_dead(&self, records: u64) {
        self.dead.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn add_refused(&self, records: u64) {
        self.refused.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn add_missed(&self, records: u64) {
        self.missed.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn add_anew(&self) {
        self.anew.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_truncated(&self) {
        self.truncated.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a part cannot go on. Logs the beginning of such a time.
    pub(crate) fn failed(&self, part: Part, error: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut errors[part as usize];
        if place.is_none() {
            warn!(part = part.as_str(), error, "Kafka cannot be used");
        }
        *place = Some(PartFailure { error: error.to_owned(), at: Instant::now() });
    }

    /// Whether a part cannot go on at the moment.
    pub(crate) fn is_failing(&self, part: Part) -> bool {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)[part as usize].is_some()
    }

    /// Notes that a relay is about to start, at the store's positions: the events behind them wait from now on.
    pub fn relay_starts(&self, positions: &[(String, Position)]) {
        let StoredOutbox { next, lost, told } = StoredOutbox::of(positions);
        // Events count from 1.
        self.set_published(next.max(1));
        self.set_lost(lost, told);
        self.relays.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a part has ended, for another coordinator to go on.
    pub fn ended(&self, part: Part) {
        if part == Part::Outbox {
            self.relays.fetch_sub(1, Ordering::Relaxed);
        }
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)[part as usize] = None;
    }

    /// Notes that a part goes on.
    pub(crate) fn recovered(&self, part: Part) {
        self.recovered_after(part, Duration::ZERO);
    }

    /// Notes that some of a part's work succeeds: the part goes on if no work has failed for this time.
    pub(crate) fn recovered_after(&self, part: Part, quiet: Duration) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors[part as usize].take_if(|failure| failure.at.elapsed() >= quiet).is_some() {
            info!(part = part.as_str(), "Kafka can be used again");
        }
    }

    /// Lost events that this process was the first to tell of.
    #[must_use]
    pub fn newly_lost(&self) -> u64 {
        self.newly_lost.load(Ordering::Relaxed)
    }

    /// All figures; `latest_event` is the number of the newest event.
    #[must_use]
    pub fn stats(&self, latest_event: u64) -> KafkaStats {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = Part::ALL.into_iter().zip(errors);
        let published = self.published.load(Ordering::Relaxed);
        let is_publishing = self.relays.load(Ordering::Relaxed) > 0;
        KafkaStats {
            published_event: published,
            unpublished_events: if is_publishing { latest_event.saturating_sub(published) } else { 0 },
            lost_events: self.lost.load(Ordering::Relaxed),
            records_taken: self.taken.load(Ordering::Relaxed),
            records_dead: self.dead.load(Ordering::Relaxed),
            dead_letters_refused: self.refused.load(Ordering::Relaxed),
            records_missed: self.missed.load(Ordering::Relaxed),
            partitions_made_anew: self.anew.load(Ordering::Relaxed),
            partitions_truncated: self.truncated.load(Ordering::Relaxed),
            errors: named.filter_map(|(part, error)| Some((part.as_str().to_owned(), error?.error))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_beside_failures_does_not_end_them() {
        let figures = Figures::default();
        let errors = || figures.stats(0).errors.len();
        figures.failed(Part::Roster, "a partition has no leader");
        figures.recovered_after(Part::Roster, Duration::from_secs(3600));
        assert_eq!(errors(), 1);
        figures.recovered(Part::Roster);
        assert_eq!(errors(), 0);
    }

    #[test]
    fn from_its_first_moment_a_relay_counts_only_the_events_that_the_relays_before_it_have_left() {
        let figures = Figures::default();
        let position = |stream: &str, next| (stream.to_owned(), Position { next, mark: 0 });
        let unpublished = |latest_event| {
            let stats = figures.stats(latest_event);
            (stats.published_event, stats.unpublished_events, stats.lost_events)
        };
        assert_eq!(unpublished(50), (0, 0, 0), "another coordinator publishes");
        figures.relay_starts(&[position("submit.1", 7), position(OUTBOX, 41), position(OUTBOX_LOST, 3)]);
        assert_eq!(unpublished(50), (40, 10, 3));
        figures.ended(Part::Outbox);
        assert_eq!(unpublished(90), (40, 0, 3));
        figures.relay_starts(&[position(OUTBOX, 88), position(OUTBOX_LOST, 3)]);
        assert_eq!(unpublished(90), (87, 3, 3));
        figures.ended(Part::Outbox);
        // A store whose events were never published.
        figures.relay_starts(&[]);
        assert_eq!(unpublished(5), (0, 5, 0));
    }

    #[test]
    fn a_loss_is_new_to_the_first_coordinator_that_tells_of_it() {
        let positions = |lost, told| {
            let position = |stream: &str, next| (stream.to_owned(), Position { next, mark: 0 });
            [position(OUTBOX_LOST, lost), position(OUTBOX_LOST_TOLD, told)]
        };
        let (first, second) = (Figures::default(), Figures::default());
        first.relay_starts(&positions(3, 0));
        first.set_lost(5, 3);
        assert_eq!((first.newly_lost(), first.stats(0).lost_events), (5, 5));
        second.relay_starts(&positions(5, 5));
        assert_eq!((second.newly_lost(), second.stats(0).lost_events), (0, 5));
        second.set_lost(6, 5);
        assert_eq!(second.newly_lost(), 1);
        // It leads again, and what it has told of could not be stored.
        second.relay_starts(&positions(6, 5));
        assert_eq!(second.newly_lost(), 1);
    }
}
