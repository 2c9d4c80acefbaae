//! The shell around the engine: owns its lock, its clock and its timers, and performs its effects. It contains no policy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use dashmap::DashMap;
use engine::{ClaimId, Effect, Engine, JobFailure, LeaseFailure, LeaseOrder, Now, PulledLease};
use model::{AttemptId, JobId, JobKind, JobOptions};
use scheduler::{RandomState, WorkerKey};
use store::Store;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};
use workloads::Workload;

use crate::clock::now;
use crate::failures::Failures;
use crate::lease_sender::LeaseSender;
use crate::outcomes::{OutcomePermit, Undurable};
use crate::serving_threads;

/// Time after which an outcome that has waited for room says nothing about others: workers send several heartbeats meanwhile.
const WAIT_MEMORY: Duration = Duration::from_secs(5);

type Answer = Result<u128, JobFailure>;

/// A message to a worker. The leases of all slots bound the number of messages.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A lease, with the signal that it was revoked.
    Lease(Box<LeaseOrder>, oneshot::Receiver<()>),
    /// An order to stop an attempt that would outlive its connection.
    Stop { attempt: AttemptId, worker: WorkerKey },
}

/// The ends of the queues that the driver fills.
#[derive(Debug)]
pub(crate) struct Queues {
    /// The queue of the lease sender.
    pub(crate) outgoing: Receiver<Outgoing>,
    /// Jobs whose results are to be composed.
    pub(crate) compositions: Receiver<JobId>,
}

#[derive(Debug)]
pub(crate) struct Driver {
    engine: Mutex<Locked>,
    store: Arc<Store>,
    /// Leases and stops of threads that serve no requests, such as timers'.
    outgoing: Sender<Outgoing>,
    /// The lease sender, which lives as long as the term.
    sender: OnceLock<Weak<LeaseSender>>,
    compositions: Sender<JobId>,
    /// Clients that wait for the answer of a job.
    answers: DashMap<JobId, oneshot::Sender<Answer>, RandomState>,
    /// Claims that wait for tasks.
    claims: DashMap<ClaimId, oneshot::Sender<PulledLease>, RandomState>,
    /// Leases that are to be sent or are being sent.
    sent: DashMap<AttemptId, RevocationChannel, RandomState>,
    last_claim: AtomicU64,
    /// Memory of outcomes that are not durable.
    undurable: Undurable,
    /// The last time at which an outcome waited for room.
    last_wait: Mutex<Option<Instant>>,
    /// Whether the term is over: waiting clients and claims get no more answers.
    is_over: AtomicBool,
    /// Wakes the timer when a deadline came nearer.
    deadline: Notify,
}

/// Both ends of the channel that revokes a lease.
#[derive(Debug)]
struct RevocationChannel {
    revoke: oneshot::Sender<()>,
    /// Given to the sender together with the lease; none afterwards.
    revoked: Option<oneshot::Receiver<()>>,
}

#[derive(Debug)]
struct Locked {
    engine: Engine,
    failures: Failures,
    armed_for: Option<Instant>,
}

/// A job that a client waits for; dropping it abandons the job.
#[derive(Debug)]
pub(crate) struct WaitingJob {
    driver: Arc<Driver>,
    id: JobId,
    answer: oneshot::Receiver<Answer>,
}

/// A claim that waits; dropping it withdraws the claim.
#[derive(Debug)]
pub(crate) struct WaitingClaim {
    driver: Arc<Driver>,
    id: ClaimId,
    lease: oneshot::Receiver<PulledLease>,
}

impl Driver {
    pub(crate) fn new(engine: Engine, store: Arc<Store>) -> (Arc<Self>, Queues) {
        let (outgoing, to_send) = async_channel::unbounded();
        let (compositions, to_compose) = async_channel::unbounded();
        let driver = Self {
            engine: Mutex::new(Locked { engine, failures: Failures::default(), armed_for: None }),
            store,
            outgoing,
            sender: OnceLock::new(),
            compositions,
            answers: DashMap::default(),
            claims: DashMap::default(),
            sent: DashMap::default(),
            last_claim: AtomicU64::new(0),
            undurable: Undurable::default(),
            last_wait: Mutex::default(),
            is_over: AtomicBool::new(false),
            deadline: Notify::new(),
        };
        (Arc::new(driver), Queues { outgoing: to_send, compositions: to_compose })
    }

    /// Lets threads that serve requests send leases by themselves from now on.
    pub(crate) fn send_with(&self, sender: &Arc<LeaseSender>) {
        // A term has one sender.
        let _ = self.sender.set(Arc::downgrade(sender));
    }

    /// Gives the engine an input and performs the effects on this thread.
    ///
    /// The registries of workers call this while they hold a worker's entry. So neither `input` nor the effects may use
    /// anything that takes a lock of theirs, not even to count them: a thread would wait for itself or for another one for
    /// ever.
    pub(crate) fn input<T>(&self, input: impl FnOnce(&mut Engine, Now) -> T) -> T {
        let mut locked = self.lock();
        let result = input(&mut locked.engine, now());
        let mut effects = locked.engine.take_effects();
        // Changes are queued and leases noted under the lock, so that the store gets changes in the engine's order, and
        // another thread that revokes a lease finds it.
        effects.retain(|effect| {
            if let Effect::Send(order) = effect {
                let (revoke, revoked) = oneshot::channel();
                self.sent.insert(order.attempt, RevocationChannel { revoke, revoked: Some(revoked) });
            }
            let Effect::Store(change) = effect else { return true };
            locked.failures.note(change);
            self.store.record(change.clone());
            false
        });
        self.rearm(&mut locked);
        drop(locked);
        for effect in effects {
            self.perform(effect);
        }
        result
    }

    /// Looks at the engine. What holds for the closure of [`Self::input`] holds for `view`, too.
    pub(crate) fn view<T>(&self, view: impl FnOnce(&Engine) -> T) -> T {
        view(&self.lock().engine)
    }

    /// Whether the store cannot store anything at the moment.
    pub(crate) fn is_store_failing(&self) -> bool {
        self.store.is_failing().is_some()
    }

    /// Whether outcomes wait at their workers because the store is slow or fails.
    pub(crate) fn lets_outcomes_wait(&self) -> bool {
        let last_wait = *self.last_wait.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_store_failing() || last_wait.is_some_and(|at| at.elapsed() < WAIT_MEMORY)
    }

    /// Keeps the lease of an attempt whose outcome waits for room: its worker has done its part.
    pub(crate) fn outcome_waits(&self, attempt: AttemptId) {
        *self.last_wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        // A lease that has ended meanwhile stays so.
        let _ = self.input(|engine, now| engine.outcome_waits(attempt, now));
    }

    /// Holds the memory of an outcome, whose changes are recorded, until they are committed.
    pub(crate) fn hold_until_durable(&self, permit: OutcomePermit) {
        self.undurable.hold(permit, &self.store);
    }

    /// The jobs that failed last in this term, the latest first.
    pub(crate) fn failed_lately(&self) -> Vec<JobId> {
        self.lock().failures.last_first()
    }

    /// Takes a job that lives as long as its client waits.
    pub(crate) fn ask(
        self: &Arc<Self>,
        id: JobId,
        kind: JobKind,
        work: Arc<dyn Workload>,
        options: &JobOptions,
    ) -> WaitingJob {
        let (sender, answer) = oneshot::channel();
        self.answers.insert(id, sender);
        let waiting = WaitingJob { driver: Arc::clone(self), id, answer };
        self.input(|engine, now| engine.ask(id, kind, work, options, now));
        self.dismiss_if_over();
        waiting
    }

    /// Answers every waiting client and claim: the engine works for them no longer.
    pub(crate) fn end(&self) {
        self.input(Engine::stop);
        self.is_over.store(true, Ordering::SeqCst);
        self.dismiss_if_over();
        self.undurable.end();
    }

    /// Dismisses the waiting clients once more if the term is over: a client may arrive while the end is made known to the
    /// others.
    fn dismiss_if_over(&self) {
        if self.is_over.load(Ordering::SeqCst) {
            self.answers.clear();
            self.claims.clear();
        }
    }

    /// Waits for tasks for a pulling worker.
    pub(crate) fn wait_for_tasks(self: &Arc<Self>, worker: WorkerKey, max_tasks: u64) -> WaitingClaim {
        let id = ClaimId(self.last_claim.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, lease) = oneshot::channel();
        self.claims.insert(id, sender);
        let waiting = WaitingClaim { driver: Arc::clone(self), id, lease };
        self.input(|engine, now| engine.wait_for_tasks(id, worker, max_tasks, now));
        self.dismiss_if_over();
        waiting
    }

    /// Notes that a lease is no longer being sent: it was answered, or its connection broke.
    pub(crate) fn sent(&self, attempt: AttemptId) {
        self.sent.remove(&attempt);
    }

    /// Gives the engine its timeouts. Runs for ever.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.lock().armed_for;
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.lock().armed_for = None;
                    self.input(Engine::handle_timeout);
                }
                () = self.deadline.notified() => (),
            }
        }
    }

    /// Tells the engine which changes the store has committed. Runs for ever.
    pub(crate) async fn follow_store(self: Arc<Self>) {
        let mut durable = self.store.durable();
        loop {
            // The receiver does not report commits from before it was made: the engine is told of them here.
            let number = *durable.borrow_and_update();
            self.undurable.release(number);
            self.input(|engine, now| engine.stored(number, now));
            if durable.changed().await.is_err() {
                // The writer has stopped, and the store says so to all that ask.
                self.undurable.end();
                return std::future::pending().await;
            }
        }
    }

    fn perform(&self, effect: Effect) {
        match effect {
            // Recorded under the lock.
            Effect::Store(_) => (),
            Effect::Send(order) => {
                let revoked = self.sent.get_mut(&order.attempt).and_then(|mut sent| sent.revoked.take());
                // `None`: the lease was revoked meanwhile.
                if let Some(revoked) = revoked {
                    self.send(Outgoing::Lease(order, revoked));
                }
            }
            Effect::Revoke { attempt, worker, outlives_connection, .. } => {
                if let Some((_, RevocationChannel { revoke, .. })) = self.sent.remove(&attempt) {
                    // The request may just have ended.
                    let _ = revoke.send(());
                }
                if outlives_connection {
                    self.send(Outgoing::Stop { attempt, worker });
                }
            }
            Effect::Answer { job, answer } => {
                if let Some((_, client)) = self.answers.remove(&job) {
                    // The client may just have left.
                    let _ = client.send(answer);
                }
            }
            Effect::Deliver { claim, lease } => self.deliver(claim, lease),
            Effect::Suspended { worker, reason } => {
                info!(worker_id = %worker, %reason, "a worker gets nothing for a while");
            }
            Effect::Lacks { worker, kind } => {
                warn!(worker_id = %worker, %kind, "a worker does not run a kind that it named: it gets no more of it");
            }
            Effect::Compose { job } => {
                let _ = self.compositions.try_send(job);
            }
        }
    }

    fn send(&self, outgoing: Outgoing) {
        let here = self.sender.get().filter(|_| serving_threads::is_marked()).and_then(Weak::upgrade);
        match here {
            Some(sender) => sender.send(outgoing),
            // The sender lives as long as the term.
            None => drop(self.outgoing.try_send(outgoing)),
        }
    }

    /// Delivers a lease to a claim. A claim that was withdrawn meanwhile gives its tasks back: no worker got them.
    fn deliver(&self, claim: ClaimId, lease: PulledLease) {
        let undelivered = match self.claims.remove(&claim) {
            Some((_, client)) => client.send(lease).err(),
            None => Some(lease),
        };
        if let Some(lease) = undelivered {
            self.give_back(lease.attempt);
        }
    }

    /// Gives back a lease that no worker got: its tasks were not tried.
    fn give_back(&self, attempt: AttemptId) {
        // The attempt was leased a moment ago.
        let _ = self.input(|engine, now| engine.fail(attempt, LeaseFailure::Undeliverable, now));
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.engine.lock().expect("an engine that panicked has no state to go on with")
    }

    /// A timer that is armed too early does no harm, and most leases end long before they expire.
    fn rearm(&self, locked: &mut Locked) {
        let next = locked.engine.poll_timeout();
        if next.is_some_and(|next| locked.armed_for.is_none_or(|armed_for| next < armed_for)) {
            locked.armed_for = next;
            self.deadline.notify_one();
        }
    }
}

impl WaitingJob {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(JobFailure::Stopping))
    }
}

impl Drop for WaitingJob {
    fn drop(&mut self) {
        if self.driver.answers.remove(&self.id).is_some() {
            self.driver.input(|engine, now| engine.abandon(self.id, now));
        }
    }
}

impl WaitingClaim {
    /// Waits for tasks. `None` means that there will be none: the worker is gone.
    pub(crate) async fn lease(&mut self) -> Option<PulledLease> {
        (&mut self.lease).await.ok()
    }
}

impl Drop for WaitingClaim {
    fn drop(&mut self) {
        self.driver.claims.remove(&self.id);
        self.driver.input(|engine, _| engine.forget_claim(self.id));
        // A delivery that comes later fails, and gives its tasks back.
        self.lease.close();
        // The lease was delivered before, and nobody has taken it.
        if let Ok(lease) = self.lease.try_recv() {
            self.driver.give_back(lease.attempt);
        }
    }
}

#[cfg(test)]
mod tests;
