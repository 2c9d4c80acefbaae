//! Shares of a batch. The store refuses one record of a partition at a time, and all records behind it are read and proposed
//! again: after a refusal fewer records are proposed at once.

use std::collections::VecDeque;

/// The smallest share: a refused record, which becomes a dead letter, and the one behind it.
const SMALLEST: usize = 2;

/// Gives all records to `take` in their order, the whole batch at first. `take` returns the records that it is to be given again:
/// the next share is half as large then, and else twice as large.
///
/// # Errors
/// The error of `take`.
pub(super) fn take_in_shares<T, E>(
    records: Vec<T>,
    mut take: impl FnMut(Vec<T>) -> Result<Vec<T>, E>,
) -> Result<(), E> {
    let (mut size, mut waiting) = (records.len(), VecDeque::from(records));
    while !waiting.is_empty() {
        let count = size.min(waiting.len());
        let again = take(waiting.drain(..count).collect())?;
        size = if again.is_empty() { count.saturating_mul(2) } else { (count / 2).max(SMALLEST) };
        for record in again.into_iter().rev() {
            waiting.push_front(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use super::*;

    /// Takes in the records of some partitions by turns, some of which the store refuses. Returns the number of proposed records.
    fn proposals(records: usize, partitions: usize, is_refused: impl Fn(usize) -> bool) -> usize {
        let (mut proposals, mut taken, mut dead) = (0, vec![Vec::new(); partitions], BTreeSet::new());
        let done = take_in_shares((0..records).collect::<Vec<usize>>(), |share| {
            proposals += share.len();
            let (mut blocked, mut again) = (BTreeSet::new(), Vec::new());
            for record in share {
                let partition = record % partitions;
                if blocked.contains(&partition) {
                    again.push(record);
                } else if is_refused(record) && dead.insert(record) {
                    blocked.insert(partition);
                    again.push(record);
                } else {
                    taken[partition].push(record);
                }
            }
            Ok::<_, Infallible>(again)
        });
        assert_eq!(done, Ok(()));
        for (partition, taken) in taken.iter().enumerate() {
            assert!(taken.iter().copied().eq((partition..records).step_by(partitions)), "each once, in their order");
        }
        proposals
    }

    #[test]
    fn a_batch_without_a_refused_record_is_proposed_at_once() {
        assert_eq!(proposals(4_000, 3, |_| false), 4_000);
    }

    #[test]
    fn records_behind_a_refused_one_are_proposed_again_once() {
        assert_eq!(proposals(4_000, 1, |record| record == 1_000), 4_000 + 3_000);
    }

    #[test]
    fn a_batch_of_refused_records_is_proposed_a_few_times_and_not_once_for_each() {
        for partitions in [1, 2, 7] {
            let proposals = proposals(4_000, partitions, |_| true);
            assert!(proposals <= 6 * 4_000, "{proposals} proposals with {partitions} partitions");
        }
    }
}
