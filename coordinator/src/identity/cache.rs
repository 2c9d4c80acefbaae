//! The API server's verdicts on tokens, by the hash of the token, while they are valid. A state machine without I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The most accepted tokens: many more than a grid has workers. Beyond that the API server is asked each time.
const MAX_ACCEPTED: usize = 20_000;

/// The most refused tokens. Strangers can make up any number of them.
const MAX_REFUSED: usize = 1_000;

/// The most questions under way. Strangers can cause them, and they must not overload the API server.
const MAX_PENDING: usize = 64;

/// Time for which a refusal of the API server is valid: less than a new token needs that was refused too early.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// The SHA-256 of a token: the token itself is not kept.
pub(super) type Key = [u8; 32];

/// The verdict on a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The token belongs to a worker.
    Accepted,
    /// The token does not belong to a worker, with the reason.
    Refused(Arc<str>),
    /// The API server cannot be asked, with the reason.
    Unknown(Arc<str>),
}

/// The cache's answer about a token.
#[derive(Debug)]
pub(super) enum Look {
    /// The verdict is valid, and no question is needed.
    Known(Verdict),
    /// The verdict is valid for some time still; the caller asks in the background if it gets a sender.
    Aging(Option<Pending>),
    /// The token is unknown: the caller asks if it gets a sender, and waits for the verdict.
    Wait(Option<Pending>, watch::Receiver<Option<Verdict>>),
    /// Too many questions are under way.
    Full,
}

/// A question that the caller has to ask, and to end with [`Cache::end`].
pub(super) type Pending = watch::Sender<Option<Verdict>>;

#[derive(Debug)]
pub(super) struct Cache {
    /// Time for which an acceptance by the API server is valid.
    max_age: Duration,
    accepted: HashMap<Key, Accepted>,
    refused: HashMap<Key, (Arc<str>, Instant)>,
    pending: HashMap<Key, watch::Receiver<Option<Verdict>>>,
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    /// The time from which the question is asked again in the background.
    aging_at: Instant,
    until: Instant,
}

impl Cache {
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, accepted: HashMap::new(), refused: HashMap::new(), pending: HashMap::new() }
    }

    pub(super) fn look(&mut self, key: Key, now: Instant) -> Look {
        if let Some(accepted) = self.accepted.get(&key).copied().filter(|accepted| now < accepted.until) {
            if now < accepted.aging_at {
                return Look::Known(Verdict::Accepted);
            }
            return Look::Aging(self.begin(key).and_then(|(pending, _)| pending));
        }
        if let Some((why, until)) = self.refused.get(&key)
            && now < *until
        {
            return Look::Known(Verdict::Refused(Arc::clone(why)));
        }
        match self.begin(key) {
            Some((pending, answer)) => Look::Wait(pending, answer),
            None => Look::Full,
        }
    }

    /// The channel of the answer, with its sender where no question is under way yet; `None` where there are too many.
    fn begin(&mut self, key: Key) -> Option<(Option<Pending>, watch::Receiver<Option<Verdict>>)> {
        // A question whose sender is gone was given up, such as by a thread that ended.
        if let Some(answer) = self.pending.get(&key).filter(|answer| answer.has_changed().is_ok()) {
            return Some((None, answer.clone()));
        }
        self.pending.remove(&key);
        if self.pending.len() >= MAX_PENDING {
            self.pending.retain(|_, answer| answer.has_changed().is_ok());
            if self.pending.len() >= MAX_PENDING {
                return None;
            }
        }
        let (pending, answer) = watch::channel(None);
        self.pending.insert(key, answer.clone());
        Some((Some(pending), answer))
    }

    /// Takes an answer. An acceptance is valid until `expires_at` at the latest.
    pub(super) fn end(&mut self, key: Key, verdict: &Verdict, expires_at: Option<Instant>, now: Instant) {
        self.pending.remove(&key);
        match verdict {
            Verdict::Accepted => {
                let until = expires_at.map_or(now + self.max_age, |end| end.min(now + self.max_age));
                let aging_at = now + self.max_age.mul_f64(0.4);
                if self.accepted.len() >= MAX_ACCEPTED {
                    self.accepted.retain(|_, accepted| now < accepted.until);
                }
                if self.accepted.len() < MAX_ACCEPTED {
                    self.accepted.insert(key, Accepted { aging_at, until });
                }
                self.refused.remove(&key);
            }
            Verdict::Refused(why) => {
                self.accepted.remove(&key);
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                self.refused.insert(key, (Arc::clone(why), now + REFUSED_FOR));
            }
            // The earlier verdict stays valid until its age is reached.
            Verdict::Unknown(_) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [1; 32];
    const MAX_AGE: Duration = Duration::from_secs(50);

    fn unknown() -> Verdict {
        Verdict::Unknown("away".into())
    }

    fn refused() -> Verdict {
        Verdict::Refused("no".into())
    }

    /// A number as the key of a token.
    fn key(number: u32) -> Key {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// The question that the caller has to ask.
    fn asked(look: Look) -> Pending {
        match look {
            Look::Aging(Some(pending)) | Look::Wait(Some(pending), _) => pending,
            other @ (Look::Known(_) | Look::Aging(None) | Look::Wait(None, _) | Look::Full) => panic!("{other:?}"),
        }
    }

    fn is_known(look: &Look, verdict: &Verdict) -> bool {
        matches!(look, Look::Known(known) if known == verdict)
    }

    #[test]
    fn a_yes_is_good_without_a_question_then_with_one_aside_and_never_longer_than_its_age() {
        let (mut cache, start) = (Cache::new(MAX_AGE), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        drop(asked(cache.look(KEY, start)));
        cache.end(KEY, &Verdict::Accepted, None, start);
        assert!(is_known(&cache.look(KEY, at(19)), &Verdict::Accepted));
        let pending = asked(cache.look(KEY, at(20)));
        // Only one question is under way, and the earlier verdict is valid meanwhile.
        assert!(matches!(cache.look(KEY, at(21)), Look::Aging(None)));
        cache.end(KEY, &unknown(), None, at(22));
        drop(pending);
        assert!(matches!(cache.look(KEY, at(49)), Look::Aging(Some(_))));
        assert!(matches!(cache.look(KEY, at(50)), Look::Wait(Some(_), _)));
    }

    #[test]
    fn a_yes_ends_with_the_token_and_a_no_takes_it_back() {
        let (mut cache, start) = (Cache::new(MAX_AGE), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.end(KEY, &Verdict::Accepted, Some(at(3)), start);
        assert!(is_known(&cache.look(KEY, at(2)), &Verdict::Accepted));
        assert!(matches!(cache.look(KEY, at(3)), Look::Wait(Some(_), _)));
        cache.end(KEY, &Verdict::Accepted, None, at(4));
        cache.end(KEY, &refused(), None, at(5));
        assert!(is_known(&cache.look(KEY, at(6)), &refused()));
        assert!(matches!(cache.look(KEY, at(10)), Look::Wait(Some(_), _)));
    }

    #[test]
    fn those_who_ask_about_one_token_share_a_question_and_one_that_was_given_up_is_asked_again() {
        let (mut cache, now) = (Cache::new(MAX_AGE), Instant::now());
        let pending = asked(cache.look(KEY, now));
        let Look::Wait(None, answer) = cache.look(KEY, now) else { panic!("a second question") };
        pending.send_replace(Some(refused()));
        assert_eq!(*answer.borrow(), Some(refused()));
        drop(pending);
        assert!(matches!(cache.look(KEY, now), Look::Wait(Some(_), _)));
    }

    #[test]
    fn strangers_fill_neither_the_memory_nor_take_the_place_of_workers() {
        let (mut cache, now) = (Cache::new(MAX_AGE), Instant::now());
        cache.end(KEY, &Verdict::Accepted, None, now);
        for number in 0..5_000 {
            cache.end(key(number), &refused(), None, now);
        }
        assert!(cache.refused.len() <= MAX_REFUSED);
        let questions: Vec<_> = (0..64).map(|number| asked(cache.look(key(10_000 + number), now))).collect();
        assert!(matches!(cache.look(key(99_999), now), Look::Full));
        assert!(is_known(&cache.look(KEY, now), &Verdict::Accepted));
        drop(questions);
        assert!(matches!(cache.look(key(99_999), now), Look::Wait(Some(_), _)));
        for number in 0..20_100 {
            cache.end(key(number), &Verdict::Accepted, None, now);
        }
        assert_eq!(cache.accepted.len(), MAX_ACCEPTED);
        cache.end(key(40_000), &Verdict::Accepted, None, now + MAX_AGE);
        assert_eq!(cache.accepted.len(), 1);
    }
}
