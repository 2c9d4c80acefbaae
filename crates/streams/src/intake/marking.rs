//! The marks that a session writes for the records that it has read, and their moves in the store.

use std::collections::BTreeMap;

use store::{Advance, Advanced, Position, SubmitError};

use super::{IntakeError, Session};
use crate::marks::MarkKey;
use crate::partitions::Partition;

impl Session {
    /// The marks that records leave, each with its place.
    pub(super) fn marks_left_by(
        &self,
        read: impl Iterator<Item = (Partition, Position)>,
    ) -> Vec<(Partition, MarkKey, Position)> {
        let mut by_partition: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (partition, position) in read {
            by_partition.entry(partition).or_default().push(position);
        }
        let marks = by_partition.into_iter().filter_map(|(partition, positions)| {
            let left = self.places.get(&partition)?.marks.left_by(positions.into_iter());
            Some(left.into_iter().map(move |(key, position)| (partition, key, position)))
        });
        marks.flatten().collect()
    }

    pub(super) fn mark_move(&self, partition: Partition, key: MarkKey, to: Position) -> Advance {
        let from = self.places.get(&partition).map_or(0, |place| place.marks.stands_at(key));
        Advance { stream: key.stream(&self.topics, partition), from, to, job: None }
    }

    pub(super) fn put_marks(
        &mut self,
        marks: Vec<(Partition, MarkKey, Position)>,
        answers: Vec<Result<Advanced, SubmitError>>,
    ) -> Result<(), IntakeError> {
        for ((partition, key, to), answer) in marks.into_iter().zip(answers) {
            if let Advanced::Elsewhere(position) = answer? {
                let stream = key.stream(&self.topics, partition);
                return Err(IntakeError::Overtaken { stream, position });
            }
            if let Some(place) = self.places.get_mut(&partition) {
                place.marks.put(key, to);
            }
        }
        Ok(())
    }
}
