//! A coordinator: its process, its clock, and whether it leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::{Candidacy, LeaseAnswer, Question, Turn};
use rand::RngExt;
use store::memory::MemoryShared;
use store::shared::Acquired;
use store::{Epoch, Leadership, LeadershipError};
use uuid::Uuid;

use super::leader::Term;
use super::{Event, Sharing};
use crate::plan::{MS, Micros, SECOND};

/// Time after which an unanswered question to the store is given up.
const STORE_TIMEOUT: Micros = 1_200 * MS;

/// Largest difference between the rates of two clocks.
const DRIFT: f64 = 0.002;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Up,
    /// Halted, as by SIGSTOP.
    Hangs,
    Down,
}

pub(crate) struct Member {
    id: Uuid,
    pub(crate) way: MemoryShared,
    pub(crate) power: Power,
    pub(crate) boot: u64,
    /// Its clock: what it showed at the beginning, and its rate.
    offset: Duration,
    rate: f64,
    candidacy: Candidacy,
    pub(crate) term: Option<Term>,
    /// Start of the process, after which it learns which workers there are.
    pub(crate) started_at: Micros,
    pub(crate) is_cut_from_workers: bool,
    /// Events that arrived while the member hung.
    pub(crate) inbox: Vec<Event>,
}

impl Member {
    pub(crate) fn is_trusted(&self, local: Instant) -> bool {
        self.power == Power::Up && self.term.as_ref().is_some_and(|term| local < term.until)
    }
}

impl Sharing {
    pub(crate) fn add_member(&mut self) {
        let store_clock = Arc::clone(&self.store_clock);
        let clock = Arc::new(move || Duration::from_micros(store_clock.load(Ordering::Relaxed)));
        let number = self.members.len();
        let member = Member {
            id: Uuid::from_u128(number as u128 + 1),
            way: self.memory.shared(clock),
            power: Power::Down,
            boot: 0,
            offset: Duration::from_secs(self.rng.random_range(0..7_200)),
            rate: self.rng.random_range(1.0 - DRIFT / 2.0..1.0 + DRIFT / 2.0),
            candidacy: Candidacy::new(Instant::now()),
            term: None,
            started_at: 0,
            is_cut_from_workers: false,
            inbox: Vec::new(),
        };
        self.members.push(member);
        self.start_member(number);
    }

    /// The reading of a member's clock at a real time.
    pub(crate) fn local(&self, member: usize, at: Micros) -> Instant {
        let member = &self.members[member];
        self.start + member.offset + Duration::from_micros(at).mul_f64(member.rate)
    }

    /// The real time at which a member's clock has this reading.
    pub(crate) fn real(&self, member: usize, local: Instant) -> Micros {
        let member = &self.members[member];
        let shown = local.saturating_duration_since(self.start + member.offset);
        u64::try_from(shown.div_f64(member.rate).as_micros()).unwrap_or(u64::MAX) + 1
    }

    pub(crate) fn local_now(&self, member: usize) -> Instant {
        self.local(member, self.now)
    }

    /// Whether the process that an event is meant for is there.
    pub(crate) fn is_up(&self, member: usize, boot: u64) -> bool {
        self.members[member].power == Power::Up && self.members[member].boot == boot
    }

    pub(crate) fn start_member(&mut self, member: usize) {
        if self.members[member].power != Power::Down {
            return;
        }
        let (local, now) = (self.local_now(member), self.now);
        let found = &mut self.members[member];
        (found.power, found.candidacy, found.started_at) = (Power::Up, Candidacy::new(local), now);
        found.boot += 1;
        let boot = found.boot;
        self.note(format_args!("member {member} starts"));
        self.after(0, Event::CandidacyDue { member, boot });
    }

    pub(crate) fn kill(&mut self, member: usize, pause: Micros) {
        if self.members[member].power != Power::Up {
            return;
        }
        self.note(format_args!("member {member} is killed"));
        self.members[member].power = Power::Down;
        self.members[member].term = None;
        self.after(pause, Event::Starts { member });
    }

    pub(crate) fn hang(&mut self, member: usize, pause: Micros) {
        if self.members[member].power == Power::Up {
            self.note(format_args!("member {member} hangs"));
            self.members[member].power = Power::Hangs;
            self.after(pause, Event::Wakes { member });
        }
    }

    pub(crate) fn wake(&mut self, member: usize) {
        if self.members[member].power != Power::Hangs {
            return;
        }
        self.note(format_args!("member {member} wakes up"));
        self.members[member].power = Power::Up;
        for event in std::mem::take(&mut self.members[member].inbox) {
            self.after(0, event);
        }
    }

    pub(crate) fn cut_from_store(&mut self, member: usize, is_cut: bool) {
        self.members[member].way.cut(is_cut);
        self.note(format_args!("member {member} {} the store", if is_cut { "cannot reach" } else { "reaches" }));
    }

    /// Stops as on SIGTERM: recorded changes are committed, then the lease is given up.
    pub(crate) fn stop_in_order(&mut self, member: usize) {
        if self.members[member].power != Power::Up {
            return;
        }
        self.note(format_args!("member {member} stops"));
        let is_flushed = self.flush_at_once(member);
        self.members[member].term = None;
        if let Some(epoch) = self.members[member].candidacy.retire().filter(|_| is_flushed) {
            // The message may not reach the store.
            let _ = self.members[member].way.resign(Epoch(epoch));
        }
        self.members[member].power = Power::Down;
        let pause = self.rng.random_range(100 * MS..2 * SECOND);
        self.after(pause, Event::Starts { member });
    }

    pub(crate) fn stand_back(&mut self, member: usize, epoch: u64) {
        let now = self.local_now(member);
        let member = &mut self.members[member];
        member.candidacy.stand_back(epoch, now);
        // The message may not reach the store.
        let _ = member.way.resign(Epoch(epoch));
    }

    pub(crate) fn candidacy_due(&mut self, member: usize, boot: u64) {
        if !self.is_up(member, boot) {
            return;
        }
        let asked_at = self.local_now(member);
        let question = self.members[member].candidacy.question(asked_at);
        match question {
            Some(question) => {
                let delay = self.delay();
                self.after(delay, Event::StoreAsked { member, boot, question, asked_at });
            }
            None => self.wait_for_candidacy(member),
        }
    }

    fn wait_for_candidacy(&mut self, member: usize) {
        let due = self.real(member, self.members[member].candidacy.due());
        let (boot, delay) = (self.members[member].boot, due.saturating_sub(self.now).max(1));
        self.after(delay, Event::CandidacyDue { member, boot });
    }

    /// The question comes to the store, also when its sender is gone or hangs.
    pub(crate) fn store_asked(&mut self, member: usize, boot: u64, question: Question, asked_at: Instant) {
        let (id, way) = (self.members[member].id, &mut self.members[member].way);
        let answer = match question {
            Question::Acquire => way.acquire(id).map(|acquired| match acquired {
                Acquired::Leads(taken) => LeaseAnswer::Taken { epoch: taken.epoch.0, lasts: taken.lasts },
                Acquired::Held { epoch, expires_in, .. } => LeaseAnswer::Held { epoch: epoch.0, expires_in },
            }),
            Question::Renew(epoch) => {
                way.renew(Epoch(epoch)).map(|renewed| LeaseAnswer::Renewed { lasts: renewed.lasts })
            }
        };
        let is_lost = self.rng.random_bool(self.lost_answers);
        let (answer, delay) = match answer {
            Ok(answer) if !is_lost => (answer, self.delay()),
            Err(LeadershipError::Lost { .. }) if !is_lost => (LeaseAnswer::Lost, self.delay()),
            Ok(_) | Err(_) => (LeaseAnswer::Unavailable, self.rng.random_range(MS..STORE_TIMEOUT)),
        };
        self.after(delay, Event::StoreAnswered { member, boot, answer, asked_at });
    }

    pub(crate) fn store_answered(&mut self, member: usize, boot: u64, answer: LeaseAnswer, asked_at: Instant) {
        if !self.is_up(member, boot) {
            return;
        }
        let now = self.local_now(member);
        match self.members[member].candidacy.answer(answer, asked_at, now) {
            Some(Turn::Begin { epoch, until }) => self.begin(member, epoch, until),
            Some(Turn::Extend { until }) => {
                if let Some(term) = &mut self.members[member].term {
                    term.until = until;
                }
            }
            Some(Turn::End { epoch }) => {
                self.note(format_args!("member {member} leads no longer in epoch {epoch}"));
                self.members[member].term = None;
            }
            Some(Turn::Other) | None => (),
        }
        self.wait_for_candidacy(member);
    }
}
