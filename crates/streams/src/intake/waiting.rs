//! Partitions that are not read because no broker leads them, or the leader does not answer: the others are read meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tracing::debug;

use super::{Acceptor, Intake, IntakeError, Next, Session};
use crate::client::{Context, is_of_one_broker, why_unreachable};
use crate::figures::Part;
use crate::partitions::{self, Found, Leaders, Partition, stream};
use crate::topics::Topics;

/// Time for which a leader that has not answered is left alone: all partitions wait while it is asked.
const SILENCE: Duration = Duration::from_secs(30);
/// The message about topics that may be described and not read: librdkafka's error does not name them.
const REFUSED: &str = "the brokers refuse to let a topic of jobs be read: the client needs the right Read on each";
/// Most partitions that a message names.
const MAX_NAMED: usize = 5;

/// The partitions that a session does not read.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    /// The waiting partitions, each with its leader that does not answer; `None` if there is no leader.
    partitions: Leaders,
    silent: BTreeSet<i32>,
    /// Whether the brokers have refused to let some topic be read.
    pub(super) is_refused: bool,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), partitions: Leaders::new(), silent: BTreeSet::new(), is_refused: false }
    }

    /// Whether this leader of a partition can be asked. Notes the partition as waiting if not.
    pub(super) fn can_ask(&mut self, partition: Partition, leader: Option<i32>) -> bool {
        let can_ask = leader.is_some_and(|leader| !self.silent.contains(&leader));
        if !can_ask {
            self.partitions.insert(partition, leader);
        }
        can_ask
    }

    /// Notes that the leader of a partition did not give its offsets.
    pub(super) fn refused(&mut self, partition: Partition, leader: Option<i32>, error: &KafkaError) {
        let silent = leader.filter(|_| is_of_one_broker(error));
        self.silent.extend(silent);
        self.partitions.insert(partition, silent);
    }

    /// Whether a partition may be readable by now.
    pub(super) fn may_end(&mut self, leaders: &Leaders) -> bool {
        let is_long_ago = self.since.elapsed() > SILENCE;
        let mut may_end = self.is_refused && is_long_ago;
        for (partition, silent) in &mut self.partitions {
            let leader = leaders.get(partition).copied().flatten();
            may_end |= leader.is_some() && (is_long_ago || leader != *silent);
            // The next leader is asked, even if it is the broker that did not answer.
            *silent = silent.filter(|_| leader.is_some());
        }
        may_end
    }

    /// Names the partitions that are not read; `None` if all are.
    pub(super) fn message(&self, topics: &Topics, leaders: &Leaders) -> Option<String> {
        let without = leaders.iter().filter(|(_, leader)| leader.is_none()).map(|(&partition, _)| partition);
        let waiting: BTreeSet<_> = self.partitions.keys().copied().chain(without).collect();
        if waiting.is_empty() {
            return None;
        }
        let named: Vec<_> = waiting.iter().take(MAX_NAMED).map(|&partition| stream(topics, partition)).collect();
        let (count, all, more) = (waiting.len(), leaders.len(), if waiting.len() > MAX_NAMED { ", …" } else { "" });
        Some(format!("{count} of {all} partitions have no leader that answers and wait: {}{more}", named.join(", ")))
    }
}

/// The error of a consumer that reads nothing yet and was not told of the topics.
pub(super) fn plainly(error: KafkaError, consumer: &BaseConsumer<Context>) -> IntakeError {
    if is_of_one_broker(&error) { IntakeError::Unreachable(why_unreachable(consumer)) } else { error.into() }
}

impl<A: Acceptor> Intake<A> {
    /// Looks for partitions that are new, gone or can be read again.
    pub(super) fn look(&self, session: &mut Session) -> Result<Next, IntakeError> {
        session.looked_at = Instant::now();
        let found = match partitions::find(session.consumer.client(), &session.topics) {
            Ok(found) => found,
            // Reading goes on with the other brokers, one of which is asked the next time. Without any, reading fails.
            Err(error) if is_of_one_broker(&error) => {
                debug!(%error, "a broker does not answer");
                return Ok(Next::GoOn);
            }
            Err(error) => return Err(error.into()),
        };
        if !session.places.keys().eq(found.leaders.keys()) || session.waiting.may_end(&found.leaders) {
            return Ok(Next::Look);
        }
        if !self.tell(&session.waiting, &session.topics, &found) {
            self.figures.recovered(Part::Intake);
        }
        Ok(Next::GoOn)
    }

    /// Reports the topics and partitions that cannot be read. Returns whether there are any.
    pub(super) fn tell(&self, waiting: &Waiting, topics: &Topics, found: &Found) -> bool {
        let refused = waiting.is_refused.then(|| REFUSED.to_owned());
        let troubles = [found.refusal(), refused, waiting.message(topics, &found.leaders)];
        let troubles: Vec<_> = troubles.into_iter().flatten().collect();
        if !troubles.is_empty() {
            self.figures.failed(Part::Intake, &troubles.join("; "));
        }
        !troubles.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use model::Priority;
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    fn leaders(leaders: [Option<i32>; 3]) -> Leaders {
        let five = Priority::try_from(5).expect("a priority");
        (0..).zip(leaders).map(|(partition, leader)| ((five, partition), leader)).collect()
    }

    #[test]
    fn a_partition_without_a_leader_waits_alone_until_there_is_one() {
        let (topics, found) = (Topics::default(), leaders([Some(1), None, Some(2)]));
        let mut waiting = Waiting::new();
        let asked: Vec<_> = found.iter().map(|(&partition, &leader)| waiting.can_ask(partition, leader)).collect();
        assert_eq!(asked, [true, false, true]);
        let message = "1 of 3 partitions have no leader that answers and wait: divvy.submit.5/1";
        assert_eq!(waiting.message(&topics, &found).as_deref(), Some(message));
        assert!(!waiting.may_end(&found));
        assert!(waiting.may_end(&leaders([Some(1), Some(1), Some(2)])));
    }

    #[test]
    fn a_leader_that_does_not_answer_is_asked_once_and_again_when_it_was_away() {
        let found = leaders([Some(1), Some(1), Some(2)]);
        let mut waiting = Waiting::new();
        let [first, second, third] = [0, 1, 2].map(|place| *found.keys().nth(place).expect("three"));
        assert!(waiting.can_ask(first, Some(1)));
        waiting.refused(first, Some(1), &KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        assert!(!waiting.can_ask(second, Some(1)) && waiting.can_ask(third, Some(2)));
        assert!(!waiting.may_end(&leaders([None, None, Some(2)])));
        assert!(waiting.may_end(&found));
    }
}
