//! Ids of attempts: never used twice, by no coordinator.

use model::AttemptId;
use uuid::Uuid;

/// Bits of an id for the number of the attempt within its coordinator, and for the coordinator's epoch. The store gives the
/// other bits that a version 8 UUID leaves free (RFC 9562), so that two stores with equal epochs share no ids.
const COUNTER_BITS: u32 = 40;
const EPOCH_BITS: u32 = 24;

/// Makes ids of ascending numbers.
#[derive(Debug)]
pub(crate) struct AttemptIds {
    prefix: u128,
    last: u64,
}

impl AttemptIds {
    /// `epoch` is the coordinator's, `instance` a random number of its process.
    pub(crate) fn new(epoch: u64, instance: u64) -> Self {
        let epoch = u128::from(epoch) & ((1 << EPOCH_BITS) - 1);
        let prefix = (epoch << 104) | (u128::from(instance) << COUNTER_BITS);
        Self { prefix, last: 0 }
    }

    pub(crate) fn next(&mut self) -> AttemptId {
        self.last += 1;
        let counter = u128::from(self.last) & ((1 << COUNTER_BITS) - 1);
        AttemptId(Uuid::new_v8((self.prefix | counter).to_be_bytes()))
    }

    /// Whether this generator has made the id.
    pub(crate) fn has_made(&self, attempt: AttemptId) -> bool {
        let first = Uuid::new_v8(self.prefix.to_be_bytes()).as_u128();
        attempt.0.as_u128() >> COUNTER_BITS == first >> COUNTER_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_coordinators_and_no_two_attempts_share_an_id() {
        let ids = |epoch, instance| {
            let mut ids = AttemptIds::new(epoch, instance);
            (0..1000).map(move |_| ids.next())
        };
        let all = [(1, 7), (2, 7), (1, 8), (3, u64::MAX), (1 << 20, 0)];
        let distinct: HashSet<_> = all.iter().flat_map(|(epoch, instance)| ids(*epoch, *instance)).collect();
        assert_eq!(distinct.len(), 5000);
        for (epoch, instance) in all {
            let own = AttemptIds::new(epoch, instance);
            let of_others = all.iter().filter(|other| **other != (epoch, instance));
            assert!(ids(epoch, instance).all(|id| own.has_made(id)));
            assert!(of_others.flat_map(|(epoch, instance)| ids(*epoch, *instance)).all(|id| !own.has_made(id)));
        }
    }
}
