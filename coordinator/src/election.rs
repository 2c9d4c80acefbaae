//! Takes and keeps the lease of a shared store, on a thread of its own: nothing that the coordinator does delays a
//! renewal, and nothing that the store delays holds the coordinator up.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Candidacy, LeaseAnswer, Question, Turn};
use store::shared::{Acquired, LeadershipLease, Member};
use store::{Epoch, Leadership, LeadershipError};
use tokio::sync::{mpsc as signals, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::role::Trust;

/// Interval at which this member announces itself.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time that the store may take to answer a coordinator that gives the leadership up: about the duration of the usual
/// lease.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// Signals that wait for the coordinator: a term begins and ends.
const MAX_SIGNALS: usize = 16;

/// The messages of the thread to the coordinator.
#[derive(Debug)]
pub(crate) enum Signal {
    /// This member leads, for as long as the trust holds.
    Begin { epoch: Epoch, trust: Trust },
    /// The term is over.
    End { epoch: Epoch },
}

/// The messages of the coordinator to the thread.
#[derive(Debug)]
enum Order {
    /// Give the lease of this epoch up and let others try.
    StandBack(Epoch),
    /// Give any lease up, take none any more, leave the list of members, and drop the sender.
    Retire(oneshot::Sender<()>),
}

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Election {
    orders: mpsc::Sender<Order>,
    signals: signals::Receiver<Signal>,
}

impl Election {
    /// Starts the thread. `noticed` is called when another member leads than before.
    pub(crate) fn start(
        leadership: Box<dyn Leadership>,
        member: Member,
        noticed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, taken) = mpsc::channel();
        let (sender, signals) = signals::channel(MAX_SIGNALS);
        let mut candidate = Candidate {
            candidacy: Candidacy::new(Instant::now()),
            leadership,
            member,
            orders: taken,
            signals: sender,
            noticed: Box::new(noticed),
            trust: None,
            announced_at: None,
            has_left: false,
            is_failing: false,
        };
        thread::Builder::new().name("leadership".to_owned()).spawn(move || candidate.run())?;
        Ok(Self { orders, signals })
    }

    /// The next signal; `None` when the thread is gone.
    pub(crate) async fn next(&mut self) -> Option<Signal> {
        self.signals.recv().await
    }

    /// Gives up a term that could not begin or has failed.
    pub(crate) fn stand_back(&self, epoch: Epoch) {
        // The thread may be gone: then its lease expires.
        let _ = self.orders.send(Order::StandBack(epoch));
    }

    /// Gives the lease up, takes none any more and leaves the list of members. Resolves when the store has noted this, or does
    /// not answer in time: a process that ends before would keep the others waiting until the lease expires.
    pub(crate) async fn retire(&self) {
        let (sender, has_resigned) = oneshot::channel();
        // The thread may be gone, and the sender with it.
        let _ = self.orders.send(Order::Retire(sender));
        if timeout(RESIGN_TIMEOUT, has_resigned).await.is_err() {
            warn!("the store does not answer a coordinator that stops: the others find it silent");
        }
    }
}

struct Candidate {
    candidacy: Candidacy,
    leadership: Box<dyn Leadership>,
    member: Member,
    orders: mpsc::Receiver<Order>,
    signals: signals::Sender<Signal>,
    noticed: Box<dyn Fn() + Send>,
    /// The trust of the present term.
    trust: Option<Trust>,
    announced_at: Option<Instant>,
    has_left: bool,
    is_failing: bool,
}

impl Candidate {
    fn run(&mut self) {
        loop {
            let asked_at = Instant::now();
            if let Some(question) = self.candidacy.question(asked_at) {
                let answer = self.ask(question);
                let turn = self.candidacy.answer(answer, asked_at, Instant::now());
                self.turn(turn);
            }
            self.announce_if_due();
            let pause = self.candidacy.due().saturating_duration_since(Instant::now());
            match self.orders.recv_timeout(pause) {
                Ok(Order::StandBack(epoch)) => self.resign(epoch.0),
                Ok(Order::Retire(_has_resigned)) => self.retire(),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return self.retire(),
            }
        }
    }

    fn ask(&mut self, question: Question) -> LeaseAnswer {
        let answer = match question {
            Question::Acquire => self.leadership.acquire(self.member.id).map(|acquired| match acquired {
                Acquired::Leads(LeadershipLease { epoch, lasts }) => LeaseAnswer::Taken { epoch: epoch.0, lasts },
                Acquired::Held { epoch, expires_in, .. } => LeaseAnswer::Held { epoch: epoch.0, expires_in },
            }),
            Question::Renew(epoch) => {
                let renewed = self.leadership.renew(Epoch(epoch));
                renewed.map(|LeadershipLease { lasts, .. }| LeaseAnswer::Renewed { lasts })
            }
        };
        match answer {
            Ok(answer) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("the store answers again");
                }
                answer
            }
            Err(LeadershipError::Lost { .. }) => LeaseAnswer::Lost,
            Err(error @ LeadershipError::Unavailable(_)) => {
                self.note_failure(&error);
                LeaseAnswer::Unavailable
            }
        }
    }

    fn turn(&mut self, turn: Option<Turn>) {
        match turn {
            None => (),
            Some(Turn::Begin { epoch, until }) => {
                let (epoch, trust) = (Epoch(epoch), Trust::until(Epoch(epoch), until));
                self.trust = Some(trust.clone());
                self.signal(Signal::Begin { epoch, trust });
            }
            Some(Turn::Extend { until }) => {
                if let Some(trust) = &self.trust {
                    trust.renew(until);
                }
            }
            Some(Turn::End { epoch }) => {
                if let Some(trust) = self.trust.take() {
                    trust.end();
                }
                self.signal(Signal::End { epoch: Epoch(epoch) });
                (self.noticed)();
            }
            Some(Turn::Other) => (self.noticed)(),
        }
    }

    fn resign(&mut self, epoch: u64) {
        let turn = self.candidacy.stand_back(epoch, Instant::now());
        self.turn(turn);
        match self.leadership.resign(Epoch(epoch)) {
            Ok(()) => info!(epoch, "gave the leadership up"),
            Err(error) => debug!(%error, epoch, "could not give the leadership up: it expires"),
        }
        (self.noticed)();
    }

    fn retire(&mut self) {
        if let Some(epoch) = self.candidacy.retire() {
            self.resign(epoch);
        }
        if !std::mem::replace(&mut self.has_left, true)
            && let Err(error) = self.leadership.leave(self.member.id)
        {
            debug!(%error, "could not leave the list of members: the others find this one silent");
        }
    }

    fn announce_if_due(&mut self) {
        if self.has_left || self.announced_at.is_some_and(|at| at.elapsed() < ANNOUNCE_INTERVAL) {
            return;
        }
        self.announced_at = Some(Instant::now());
        if let Err(error) = self.leadership.announce(&self.member) {
            self.note_failure(&error);
        }
    }

    fn signal(&self, signal: Signal) {
        // The coordinator may have stopped: the closed channel of orders tells it.
        let _ = self.signals.blocking_send(signal);
    }

    fn note_failure(&mut self, error: &LeadershipError) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(%error, "the store does not answer");
        }
    }
}
