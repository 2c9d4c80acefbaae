//! Marks of records that were read, by which a partition that has lost its last records is told from one made anew.
//!
//! A broker that loses power, or an election that is not clean, takes a partition's last records away. The record before
//! the position is then gone or another one, as in a partition that was made anew. Marks of earlier records tell the two
//! apart and say where the records begin that are not known. Of the records whose number is 2^k times an odd number the last
//! four are kept for each k: so few for a partition of any length, and so close that after the loss of n records at most
//! about n/3 are read again that are still there.

use std::collections::BTreeMap;

use store::Position;

use crate::partitions::{Partition, stream};
use crate::topics::Topics;

/// Marks that are kept of each power of two.
const TURNS: u64 = 4;

/// The key of a record's mark, which later records take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MarkKey {
    power: u32,
    turn: u64,
}

impl MarkKey {
    /// The mark of the record before `next`, which is not 0.
    fn of(next: u64) -> Self {
        let power = next.trailing_zeros();
        Self { power, turn: (next.checked_shr(power + 1).unwrap_or(0)) % TURNS }
    }

    /// The name of the key's position in the store.
    pub(crate) fn stream(self, topics: &Topics, partition: Partition) -> String {
        format!("{}/{}.{}", stream(topics, partition), self.power, self.turn)
    }

    fn parse(text: &str) -> Option<Self> {
        let (power, turn) = text.split_once('.')?;
        Some(Self { power: power.parse().ok()?, turn: turn.parse().ok()? })
    }
}

/// The marks of a partition. A position's record is the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(BTreeMap<MarkKey, Position>);

impl Marks {
    /// The marks of a partition in the store.
    pub(crate) fn of(topics: &Topics, partition: Partition, positions: &[(String, Position)]) -> Self {
        let stream = stream(topics, partition);
        let key = |name: &str| MarkKey::parse(name.strip_prefix(&stream)?.strip_prefix('/')?);
        Self(positions.iter().filter_map(|(name, position)| Some((key(name)?, *position))).collect())
    }

    /// The key's position in the store.
    pub(crate) fn stands_at(&self, key: MarkKey) -> u64 {
        self.0.get(&key).map_or(0, |position| position.next)
    }

    pub(crate) fn put(&mut self, key: MarkKey, position: Position) {
        self.0.insert(key, position);
    }

    /// The new marks of the records: those that are not kept already.
    pub(crate) fn left_by(&self, records: impl Iterator<Item = Position>) -> BTreeMap<MarkKey, Position> {
        let mut left: BTreeMap<_, _> = records
            .filter(|position| position.next > 0)
            .map(|position| (MarkKey::of(position.next), position))
            .collect();
        left.retain(|key, position| self.0.get(key) != Some(position));
        left
    }

    /// Records before the last one that was read, the latest in front. A mark at or behind `next` is of records that no longer
    /// exist.
    pub(crate) fn before(&self, next: u64) -> Vec<Position> {
        let mut earlier: Vec<_> = self.0.values().filter(|mark| mark.next > 0 && mark.next < next).copied().collect();
        earlier.sort_unstable_by_key(|mark| std::cmp::Reverse(mark.next));
        earlier
    }
}

#[cfg(test)]
mod tests {
    use model::Priority;

    use super::*;

    fn at(next: u64) -> Position {
        Position { next, mark: next * 7 }
    }

    fn after(records: u64) -> Marks {
        let mut marks = Marks::default();
        for number in 1..=records {
            for (key, position) in marks.left_by(std::iter::once(at(number))) {
                marks.put(key, position);
            }
        }
        marks
    }

    #[test]
    fn after_the_loss_of_records_few_of_those_that_are_left_lie_behind_the_last_mark() {
        for records in [1, 2, 7, 64, 1000, 4096, 5001] {
            let marks = after(records);
            assert!(marks.0.len() as u64 <= TURNS * (1 + u64::from(records.ilog2())), "{} marks", marks.0.len());
            for lost in 1..records {
                let left = records - lost;
                let before = marks.before(records);
                let last = before.iter().find(|mark| mark.next <= left).map_or(0, |mark| mark.next);
                assert!(left - last <= lost / 3 + 1, "{records} records, {lost} lost: {} read again", left - last);
            }
        }
    }

    #[test]
    fn records_that_come_at_once_leave_the_marks_that_they_leave_one_by_one() {
        let mut at_once = Marks::default();
        for (key, position) in at_once.left_by((1..=3000).map(at)) {
            at_once.put(key, position);
        }
        assert_eq!(at_once, after(3000));
        assert!(at_once.left_by((2990..=3000).map(at)).is_empty(), "they are kept already");
    }

    #[test]
    fn marks_are_found_by_the_names_of_their_positions() {
        let five = Priority::try_from(5).expect("a priority");
        let (topics, mine, other) = (Topics::default(), (five, 1), (five, 11));
        let marks = after(40);
        let mut positions: Vec<_> = marks.0.iter().map(|(key, at)| (key.stream(&topics, mine), *at)).collect();
        positions.extend(after(9).0.iter().map(|(key, at)| (key.stream(&topics, other), *at)));
        positions.extend([(stream(&topics, mine), at(40)), ("outbox".to_owned(), at(3))]);
        assert_eq!(Marks::of(&topics, mine, &positions), marks);
        assert_eq!(Marks::of(&topics, (five, 2), &positions), Marks::default());
    }
}
