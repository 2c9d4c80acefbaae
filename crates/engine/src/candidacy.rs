//! Decides whether one of several coordinators leads: when it asks for the lease of their store, what the answers mean, and
//! until when it may act as the leader. The store's clock decides when a lease expires; time here is this coordinator's own,
//! monotonic, and counted from before each question, so that the coordinator stops before another one can begin.

use std::time::{Duration, Instant};

/// Interval at which the leader renews its lease.
const RENEW_INTERVAL: Duration = Duration::from_millis(300);
/// Pause before the next attempt if the store did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Interval at which a coordinator checks the lease of another one.
const WATCH_INTERVAL: Duration = Duration::from_millis(150);

/// The leader stops this long before its lease expires: its calls end by then, and clocks differ in rate.
const MARGIN: Duration = Duration::from_millis(100);

/// Pause in which a coordinator that could not lead leaves the lease to the others.
const STAND_BACK: Duration = Duration::from_secs(1);

/// A question to the store about the lease of the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Asks for the lease.
    Acquire,
    /// Asks to renew the lease of this epoch.
    Renew(u64),
}

/// The store's answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The lease is this coordinator's, under a new epoch.
    Taken {
        /// The epoch.
        epoch: u64,
        /// Duration of the lease, counted from before the question.
        lasts: Duration,
    },
    /// Another coordinator has the lease.
    Held {
        /// The other coordinator's epoch.
        epoch: u64,
        /// Time from now until the lease expires unless it is renewed.
        expires_in: Duration,
    },
    /// The lease is renewed.
    Renewed {
        /// Duration of the lease, counted from before the question.
        lasts: Duration,
    },
    /// The lease has expired, or another coordinator has taken it over.
    Lost,
    /// No answer: the store cannot be reached, and may have carried the question out.
    Unavailable,
}

/// The change that an answer brings to the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This coordinator begins to lead.
    Begin {
        /// The epoch.
        epoch: u64,
        /// End of the trust, by this coordinator's clock.
        until: Instant,
    },
    /// This coordinator goes on leading.
    Extend {
        /// New end of the trust, by this coordinator's clock.
        until: Instant,
    },
    /// This coordinator leads no longer.
    End {
        /// The epoch that is over.
        epoch: u64,
    },
    /// Another coordinator leads than at the last check.
    Other,
}

/// Whether this coordinator leads, and until when.
#[derive(Debug)]
pub struct Candidacy {
    held: Option<HeldEpoch>,
    /// Instant of the next question.
    due: Instant,
    /// Whether the coordinator has stopped asking for the lease.
    is_retired: bool,
    /// The epoch of the other coordinator that led at the last check.
    other: Option<u64>,
}

/// The epoch that this coordinator leads in, and until when it may trust that.
#[derive(Clone, Copy, Debug)]
struct HeldEpoch {
    epoch: u64,
    until: Instant,
}

impl Candidacy {
    /// A coordinator that asks at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { held: None, due: now, is_retired: false, other: None }
    }

    /// The instant from which [`Self::question`] returns a question.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The question to ask now; `None` before it is due and for a retired coordinator without the lease.
    pub fn question(&mut self, now: Instant) -> Option<Question> {
        if now < self.due {
            return None;
        }
        let question = match &self.held {
            Some(held) => Some(Question::Renew(held.epoch)),
            None if self.is_retired => None,
            None => Some(Question::Acquire),
        };
        // The question is repeated then if no answer comes.
        self.due = now + WATCH_INTERVAL;
        question
    }

    /// Takes the answer to what was asked at `asked_at`.
    pub fn answer(&mut self, answer: LeaseAnswer, asked_at: Instant, now: Instant) -> Option<Turn> {
        match answer {
            LeaseAnswer::Taken { epoch, lasts } => self.taken(epoch, trusted_until(asked_at, lasts), now),
            LeaseAnswer::Held { epoch, expires_in } => {
                self.due = now + WATCH_INTERVAL.min(expires_in + Duration::from_millis(1));
                (self.other.replace(epoch) != Some(epoch)).then_some(Turn::Other)
            }
            LeaseAnswer::Renewed { lasts } => self.renewed(trusted_until(asked_at, lasts), now),
            LeaseAnswer::Lost => self.end(now),
            LeaseAnswer::Unavailable => match self.held {
                Some(held) if now < held.until => {
                    self.due = now + RETRY_PAUSE;
                    None
                }
                Some(_) => self.end(now),
                None => None,
            },
        }
    }

    fn taken(&mut self, epoch: u64, until: Instant, now: Instant) -> Option<Turn> {
        // The answer came too late: the coordinator asks for another epoch.
        if until <= now || self.is_retired {
            self.due = now;
            return None;
        }
        self.held = Some(HeldEpoch { epoch, until });
        self.other = None;
        self.due = now + RENEW_INTERVAL;
        Some(Turn::Begin { epoch, until })
    }

    fn renewed(&mut self, until: Instant, now: Instant) -> Option<Turn> {
        let held = self.held.as_mut()?;
        // The trust ended before the answer came, and the term with it: a term does not begin twice.
        if held.until <= now {
            return self.end(now);
        }
        held.until = held.until.max(until);
        self.due = now + RENEW_INTERVAL;
        Some(Turn::Extend { until: held.until })
    }

    fn end(&mut self, now: Instant) -> Option<Turn> {
        let HeldEpoch { epoch, .. } = self.held.take()?;
        self.due = now + WATCH_INTERVAL;
        Some(Turn::End { epoch })
    }

    /// Gives up the lease of an epoch that could not begin, and lets the other coordinators try.
    pub fn stand_back(&mut self, epoch: u64, now: Instant) -> Option<Turn> {
        let ended = self.held.is_some_and(|held| held.epoch == epoch).then(|| self.end(now)).flatten();
        // The lease of a later epoch is still renewed in time.
        if self.held.is_none() {
            self.due = now + STAND_BACK;
        }
        ended
    }

    /// Stops asking for the lease. Returns the epoch whose lease the coordinator still has, for the caller to give up.
    pub fn retire(&mut self) -> Option<u64> {
        self.is_retired = true;
        self.held.map(|held| held.epoch)
    }

    /// The epoch of the coordinator's lease.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.held.map(|held| held.epoch)
    }
}

fn trusted_until(asked_at: Instant, lasts: Duration) -> Instant {
    asked_at + lasts.saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_millis(1_200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A candidacy that leads in epoch 7 since `start`.
    fn leader(start: Instant) -> Candidacy {
        let mut candidacy = Candidacy::new(start);
        assert_eq!(candidacy.question(start), Some(Question::Acquire));
        let turn = candidacy.answer(LeaseAnswer::Taken { epoch: 7, lasts: LASTS }, start, start + ms(5));
        assert_eq!(turn, Some(Turn::Begin { epoch: 7, until: start + ms(1_100) }));
        candidacy
    }

    #[test]
    fn a_lease_is_trusted_from_when_it_was_asked_for() {
        let start = Instant::now();
        let mut leader = leader(start);
        assert_eq!(leader.due(), start + ms(305));
        assert_eq!(leader.question(start + ms(305)), Some(Question::Renew(7)));
        let renewed = LeaseAnswer::Renewed { lasts: LASTS };
        let turn = leader.answer(renewed, start + ms(305), start + ms(900));
        assert_eq!(turn, Some(Turn::Extend { until: start + ms(305 + 1_100) }));
        assert_eq!(leader.answer(renewed, start + ms(900), start + ms(1_405)), Some(Turn::End { epoch: 7 }));
        assert_eq!(leader.question(start + ms(1_555)), Some(Question::Acquire));
    }

    #[test]
    fn without_an_answer_a_term_goes_on_to_the_end_of_its_trust_and_no_longer() {
        let start = Instant::now();
        let mut leader = leader(start);
        assert_eq!(leader.answer(LeaseAnswer::Unavailable, start + ms(305), start + ms(1_099)), None);
        assert_eq!(leader.due(), start + ms(1_149));
        let turn = leader.answer(LeaseAnswer::Unavailable, start + ms(1_099), start + ms(1_100));
        assert_eq!(turn, Some(Turn::End { epoch: 7 }));
    }

    #[test]
    fn a_lease_that_was_taken_over_ends_the_term_at_once() {
        let start = Instant::now();
        let mut leader = leader(start);
        assert_eq!(leader.answer(LeaseAnswer::Lost, start + ms(305), start + ms(310)), Some(Turn::End { epoch: 7 }));
        assert_eq!(leader.answer(LeaseAnswer::Lost, start + ms(305), start + ms(310)), None);
    }

    #[test]
    fn an_answer_that_comes_after_its_lease_begins_nothing() {
        let start = Instant::now();
        let mut candidacy = Candidacy::new(start);
        let taken = LeaseAnswer::Taken { epoch: 1, lasts: LASTS };
        assert_eq!(candidacy.answer(taken, start, start + ms(1_100)), None);
        assert_eq!(candidacy.epoch(), None);
        assert_eq!(candidacy.question(start + ms(1_100)), Some(Question::Acquire));
    }

    #[test]
    fn a_follower_looks_again_when_the_lease_may_have_expired_and_tells_of_another_leader_once() {
        let start = Instant::now();
        let mut candidacy = Candidacy::new(start);
        let held = LeaseAnswer::Held { epoch: 3, expires_in: ms(20) };
        assert_eq!(candidacy.answer(held, start, start), Some(Turn::Other));
        assert_eq!(candidacy.due(), start + ms(21));
        assert_eq!(candidacy.answer(held, start, start), None);
    }

    #[test]
    fn a_coordinator_that_stands_back_or_retires_lets_others_lead() {
        let start = Instant::now();
        let mut leader = leader(start);
        assert_eq!(leader.stand_back(6, start), None, "an earlier term");
        assert_eq!((leader.epoch(), leader.due()), (Some(7), start + ms(305)));
        assert_eq!(leader.stand_back(7, start), Some(Turn::End { epoch: 7 }));
        assert_eq!(leader.question(start + ms(999)), None);
        assert_eq!(leader.question(start + ms(1_000)), Some(Question::Acquire));
        assert_eq!(leader.retire(), None);
        assert_eq!(leader.question(start + ms(5_000)), None);
        let taken = LeaseAnswer::Taken { epoch: 8, lasts: LASTS };
        assert_eq!(leader.answer(taken, start + ms(5_000), start + ms(5_001)), None);
    }
}
