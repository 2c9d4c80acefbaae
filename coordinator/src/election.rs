//! Takes and keeps the lease of a shared store, on a thread of its own: nothing that the coordinator does delays a
//! renewal, and nothing that the store delays holds the coordinator up.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use store::shared::{Acquired, Member, RENEW_INTERVAL, Term, WATCH_INTERVAL};
use store::{Epoch, Leadership, LeadershipError};
use tokio::sync::mpsc as signals;
use tracing::{debug, info, warn};

use crate::role::Trust;

/// How often this member says that it is there.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Between attempts to renew a lease that the store did not answer to.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The leader stops so much before its lease may be trusted no longer: what it has under way ends by then.
const MARGIN: Duration = Duration::from_millis(100);

/// How long a member that could not lead lets the others try.
const STAND_BACK: Duration = Duration::from_secs(1);

/// Signals that wait for the coordinator: a term begins and ends.
const MAX_SIGNALS: usize = 16;

/// What the thread tells the coordinator.
#[derive(Debug)]
pub(crate) enum Signal {
    /// This member leads, for as long as the trust holds.
    Begin { epoch: Epoch, trust: Trust },
    /// The term is over.
    End { epoch: Epoch },
}

/// What the coordinator tells the thread.
#[derive(Debug)]
enum Order {
    /// Give the lease of this epoch up and let others try.
    StandBack(Epoch),
    /// Give any lease up and take none any more.
    Retire,
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
            leadership,
            member,
            orders: taken,
            signals: sender,
            noticed: Box::new(noticed),
            held: None,
            seen: None,
            announced_at: None,
            stand_back_until: Instant::now(),
            is_failing: false,
        };
        thread::Builder::new().name("leadership".to_owned()).spawn(move || candidate.run())?;
        Ok(Self { orders, signals })
    }

    /// The next signal; none when the thread is gone.
    pub(crate) async fn next(&mut self) -> Option<Signal> {
        self.signals.recv().await
    }

    /// Gives a term up that could not begin or has failed.
    pub(crate) fn stand_back(&self, epoch: Epoch) {
        // The thread may be gone, and its lease expires.
        let _ = self.orders.send(Order::StandBack(epoch));
    }

    /// Gives the lease up and takes none any more.
    pub(crate) fn retire(&self) {
        let _ = self.orders.send(Order::Retire);
    }
}

struct Candidate {
    leadership: Box<dyn Leadership>,
    member: Member,
    orders: mpsc::Receiver<Order>,
    signals: signals::Sender<Signal>,
    noticed: Box<dyn Fn() + Send>,
    held: Option<(Epoch, Trust)>,
    /// The epoch of the other member that led when it was last looked.
    seen: Option<Epoch>,
    announced_at: Option<Instant>,
    stand_back_until: Instant,
    is_failing: bool,
}

impl Candidate {
    fn run(&mut self) {
        let mut is_candidate = true;
        loop {
            let pause = match &self.held {
                Some((epoch, trust)) => self.renew(*epoch, trust.clone()),
                None if is_candidate && Instant::now() >= self.stand_back_until => self.acquire(),
                None => WATCH_INTERVAL,
            };
            self.announce_if_due();
            match self.orders.recv_timeout(pause) {
                Ok(Order::StandBack(epoch)) => self.stand_back(epoch),
                Ok(Order::Retire) => {
                    is_candidate = false;
                    if let Some((epoch, _)) = &self.held {
                        self.stand_back(*epoch);
                    }
                }
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => {
                    return if let Some((epoch, _)) = &self.held {
                        self.stand_back(*epoch);
                    };
                }
            }
        }
    }

    /// Returns how long to wait before the next look.
    fn acquire(&mut self) -> Duration {
        let asked_at = Instant::now();
        match self.leadership.acquire(self.member.id) {
            Ok(Acquired::Leads(Term { epoch, lasts })) => {
                self.note_answer();
                let trust = Trust::until(epoch, asked_at + lasts.saturating_sub(MARGIN));
                self.held = Some((epoch, trust.clone()));
                self.seen = None;
                self.signal(Signal::Begin { epoch, trust });
                RENEW_INTERVAL
            }
            Ok(Acquired::Held { epoch, expires_in, .. }) => {
                self.note_answer();
                if self.seen.replace(epoch) != Some(epoch) {
                    (self.noticed)();
                }
                WATCH_INTERVAL.min(expires_in + Duration::from_millis(1))
            }
            Err(error) => self.note_failure(&error),
        }
    }

    fn renew(&mut self, epoch: Epoch, trust: Trust) -> Duration {
        let asked_at = Instant::now();
        match self.leadership.renew(epoch) {
            Ok(Term { lasts, .. }) => {
                self.note_answer();
                trust.renew(asked_at + lasts.saturating_sub(MARGIN));
                // It may have ended while the answer was on its way, and has been acted upon.
                if !trust.holds() {
                    self.lose(epoch, &trust);
                    return Duration::ZERO;
                }
                RENEW_INTERVAL
            }
            Err(error @ LeadershipError::Lost { .. }) => {
                warn!(%error, "this coordinator does not lead any more");
                self.lose(epoch, &trust);
                WATCH_INTERVAL
            }
            Err(error @ LeadershipError::Unavailable(_)) => {
                self.note_failure(&error);
                if trust.holds() {
                    return RETRY_PAUSE;
                }
                warn!(%epoch, "the lease could not be renewed: this coordinator does not lead any more");
                self.lose(epoch, &trust);
                WATCH_INTERVAL
            }
        }
    }

    fn lose(&mut self, epoch: Epoch, trust: &Trust) {
        trust.end();
        self.held = None;
        self.signal(Signal::End { epoch });
        (self.noticed)();
    }

    fn stand_back(&mut self, epoch: Epoch) {
        self.stand_back_until = Instant::now() + STAND_BACK;
        if let Some((_, trust)) = self.held.take_if(|(held, _)| *held == epoch) {
            trust.end();
            self.signal(Signal::End { epoch });
        }
        match self.leadership.resign(epoch) {
            Ok(()) => info!(%epoch, "gave the leadership up"),
            Err(error) => debug!(%error, %epoch, "could not give the leadership up: it expires"),
        }
        (self.noticed)();
    }

    fn announce_if_due(&mut self) {
        if self.announced_at.is_some_and(|at| at.elapsed() < ANNOUNCE_INTERVAL) {
            return;
        }
        self.announced_at = Some(Instant::now());
        if let Err(error) = self.leadership.announce(&self.member) {
            self.note_failure(&error);
        }
    }

    fn signal(&self, signal: Signal) {
        // The coordinator may have stopped: the orders' end says so.
        let _ = self.signals.blocking_send(signal);
    }

    fn note_answer(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            info!("the store answers again");
        }
    }

    fn note_failure(&mut self, error: &LeadershipError) -> Duration {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(%error, "the store does not answer");
        }
        WATCH_INTERVAL
    }
}
