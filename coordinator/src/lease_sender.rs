//! Sends leases to workers, each as a message of a stream or as one HTTP request, and brings the answers to the engine.

mod answers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{LeaseRequest, MAX_STREAMED_BYTES};
use async_channel::Receiver;
use engine::{CompleteError, LeaseFailure, LeaseOrder};
use model::AttemptId;
use scheduler::{AttemptFailure, WorkerKey};
use service::{WorkerToken, trace};
use store::Store;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::answers::Sent;
use crate::driver::{Driver, Outgoing};
use crate::lease_log::{Begun, End, LeaseLog};
use crate::lease_streams::{LeaseStream, LeaseStreams, NoAnswer};
use crate::metrics::{CoordinatorMetrics, LeaseEnd};
use crate::outcomes::OutcomeBudget;
use crate::role::Trust;
use crate::serving_threads::{self, Clients, ServingThreads};
use crate::simulated_workers::SimulatedWorkers;
use crate::spans::{lease_span, order_ended};
use crate::supervisor::Supervisor;
use crate::workers::{Destination, Workers};

/// Bytes that a settled attempt adds to a lease.
const SETTLED_BYTES: usize = 40;

/// The engine ends a lease that expires; the request ends this much later, for a worker that is lost by then.
const GRACE: Duration = Duration::from_secs(1);

/// Longest time that a worker may take to accept an order to stop an attempt: the answer to its next heartbeat repeats the
/// order.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LeaseSender {
    pub(crate) driver: Arc<Driver>,
    pub(crate) supervisor: Supervisor,
    pub(crate) workers: Arc<Workers>,
    pub(crate) simulated: SimulatedWorkers,
    pub(crate) lease_log: Arc<LeaseLog>,
    pub(crate) threads: Arc<ServingThreads>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) streams: LeaseStreams,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) token: WorkerToken,
    pub(crate) metrics: CoordinatorMetrics,
    pub(crate) epoch: u64,
    /// Without this trust nothing is sent.
    pub(crate) trust: Trust,
    /// The longest results of one lease, in bytes.
    pub(crate) max_result_bytes: usize,
    pub(crate) outcomes: OutcomeBudget,
    pub(crate) store: Arc<Store>,
}

/// A lease that a thread is sending. Dropped before its end, it tells the engine that the lease did not arrive: at the stop of the
/// coordinator the runtime of a serving thread ends once the thread's own clients have their answers, and clients of other threads
/// may still wait for the lease.
struct Sending {
    sender: Arc<LeaseSender>,
    attempt: AttemptId,
    outlives_connection: bool,
    has_ended: bool,
}

impl Sending {
    fn new(sender: &Arc<LeaseSender>, order: &LeaseOrder) -> Self {
        let LeaseOrder { attempt, outlives_connection, .. } = *order;
        Self { sender: Arc::clone(sender), attempt, outlives_connection, has_ended: false }
    }

    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Self { sender, attempt, outlives_connection, has_ended } = self;
        if *has_ended || sender.supervisor.is_stopping() {
            return;
        }
        // The leases that follow go to other threads.
        serving_threads::unmark();
        sender.driver.sent(*attempt);
        sender.driver.input(|engine, now| {
            if *outlives_connection {
                engine.connection_broke(*attempt, now);
            } else {
                // No attempt: the task has not failed. The end of an attempt without a lease changes nothing.
                let _ = engine.fail(*attempt, LeaseFailure::Undeliverable, now);
            }
        });
    }
}

impl LeaseSender {
    /// Sends the leases and stops of the driver's queue, from threads that serve clients. Runs as long as the driver does.
    pub(crate) async fn run(self: Arc<Self>, outgoing: Receiver<Outgoing>) {
        while let Ok(next) = outgoing.recv().await {
            // An action that is never performed must not keep the store open.
            let sender = Arc::downgrade(&self);
            self.threads.perform(Box::new(move || {
                if let Some(sender) = sender.upgrade() {
                    sender.send(next);
                }
            }));
        }
    }

    /// Sends on the runtime of this thread, once this thread is free: it may hold the lock of a worker's registration.
    pub(crate) fn send(self: Arc<Self>, outgoing: Outgoing) {
        if !self.trust.holds() {
            return;
        }
        let supervisor = self.supervisor.clone();
        match outgoing {
            Outgoing::Lease(order, revoked) => {
                let sending = Sending::new(&self, &order);
                supervisor.spawn(async move {
                    self.lease(order, revoked).await;
                    sending.end();
                });
            }
            Outgoing::Stop { attempt, worker } => supervisor.spawn(self.stop(attempt, worker)),
        }
    }

    async fn lease(self: Arc<Self>, order: Box<LeaseOrder>, revoked: oneshot::Receiver<()>) {
        let started_at = Instant::now();
        self.lease_log.began(begun(&order), started_at);
        if self.simulated.has(order.worker) {
            let attempt = order.attempt;
            let end = self.simulated.run(*order, revoked).await;
            return self.lease_log.ended(attempt, end, Instant::now());
        }
        let end = tokio::select! {
            // A lease that was revoked before it was sent is not sent.
            biased;
            // Dropping the request closes its connection, which stops a worker whose lease ends with it.
            Ok(()) = revoked => {
                debug!(attempt = %order.attempt, worker_id = %order.worker_id, "lease revoked");
                if Instant::now() < order.expires_at { LeaseEnd::Revoked } else { LeaseEnd::Expired }
            }
            sent = self.request(&order) => self.settle(&order, sent),
        };
        self.driver.sent(order.attempt);
        // A lease whose connection broke goes on at its worker, and its outcome comes as that of a pulling worker.
        if let Some(end) = End::of(end) {
            self.lease_log.ended(order.attempt, end, Instant::now());
        }
        if end != LeaseEnd::Disconnected {
            order_ended(&order, started_at, end);
        }
        self.metrics.lease_ended(end, started_at.elapsed());
    }

    async fn request(&self, order: &LeaseOrder) -> Sent {
        let Some(Destination { address, boot_id }) = self.workers.destination(&order.worker_id, order.worker) else {
            return Sent::Failed(LeaseFailure::Undeliverable);
        };
        let lease = LeaseRequest {
            job: order.job,
            attempt: order.attempt,
            boot_id,
            slot: order.slot,
            kind: order.kind,
            work: order.work.clone(),
            epoch: self.epoch,
            first: order.tasks.start,
            beyond: order.tasks.end,
            outlives_connection: order.outlives_connection,
            settled: order.settled.clone(),
        };
        let patience = order.expires_at.saturating_duration_since(Instant::now()) + GRACE;
        if !self.trust.holds() {
            return Sent::Failed(LeaseFailure::Undeliverable);
        }
        if let Some(stream) = self.stream_for(order, &lease, address) {
            return self.send_over(&stream, lease, order, patience).await;
        }
        let mut request =
            self.clients.here().post(format!("{}://{address}/lease", self.scheme)).timeout(patience).json(&lease);
        if let Some(parent) = order.trace.as_ref().filter(|_| trace::is_on()) {
            for (name, value) in trace::headers(&lease_span(parent, order.attempt)) {
                request = request.header(name, value);
            }
        }
        match self.token.sign(request).send().await {
            Ok(response) => self.judge(response, order).await,
            Err(error) if error.is_connect() => Sent::Failed(LeaseFailure::Undeliverable),
            // The engine has ended the lease, or the worker has it for longer than its first time limit.
            Err(_) if order.outlives_connection => Sent::Broken,
            Err(error) if error.is_timeout() => Sent::Failed(LeaseFailure::WorkerFailed(AttemptFailure::Expired)),
            Err(_) => Sent::Broken,
        }
    }

    /// The stream for a lease. Long results would hold the outcomes behind them up, and a traced lease needs headers.
    fn stream_for(&self, order: &LeaseOrder, lease: &LeaseRequest, address: SocketAddr) -> Option<Arc<LeaseStream>> {
        let is_traced = order.trace.is_some() && trace::is_on();
        let is_short = lease.work.get().len() + lease.settled.len() * SETTLED_BYTES <= MAX_STREAMED_BYTES / 2;
        if order.has_results || is_traced || !is_short || !serving_threads::is_marked() {
            return None;
        }
        let request = || self.token.sign(self.clients.here().get(format!("{}://{address}/leases", self.scheme)));
        self.streams.to(order.worker, &self.supervisor, request)
    }

    async fn send_over(
        &self,
        stream: &LeaseStream,
        lease: LeaseRequest,
        order: &LeaseOrder,
        patience: Duration,
    ) -> Sent {
        match timeout(patience, stream.compute(lease)).await {
            Ok(Ok(answer)) => self.judge_streamed(answer, order).await,
            Ok(Err(NoAnswer::Unsent)) => Sent::Failed(LeaseFailure::Undeliverable),
            // The worker has not taken the lease, or has ended it with the stream.
            Ok(Err(NoAnswer::Closed)) if !order.outlives_connection => Sent::Failed(LeaseFailure::HandedBack),
            // As with a request.
            Err(_) if !order.outlives_connection => Sent::Failed(LeaseFailure::WorkerFailed(AttemptFailure::Expired)),
            Ok(Err(NoAnswer::Closed | NoAnswer::Broken)) | Err(_) => Sent::Broken,
        }
    }

    fn settle(&self, order: &LeaseOrder, sent: Sent) -> LeaseEnd {
        let (job_id, attempt, worker_id) = (order.job, order.attempt, &order.worker_id);
        match sent {
            Sent::Completed(report, busy, permit) => {
                let completed = self.driver.input(|engine, now| engine.complete(attempt, report, busy, now));
                self.driver.hold_until_durable(permit);
                match completed {
                    Ok(()) => LeaseEnd::Completed,
                    Err(CompleteError::Stale(_)) => {
                        warn!(%job_id, %attempt, %worker_id, "late outcome refused");
                        LeaseEnd::Refused
                    }
                    Err(CompleteError::Invalid(error)) => {
                        warn!(%job_id, %attempt, %worker_id, %error, "attempt failed");
                        LeaseEnd::Failed
                    }
                }
            }
            Sent::Broken => {
                debug!(%job_id, %attempt, %worker_id, "connection of a lease broke");
                self.driver.input(|engine, now| engine.connection_broke(attempt, now));
                LeaseEnd::Disconnected
            }
            Sent::KeptOut(cause) => {
                warn!(%job_id, %attempt, %worker_id, %cause, "a worker refuses this coordinator's token or certificate");
                // The end of an attempt without a lease changes nothing.
                let _ = self.driver.input(|engine, now| engine.fail(attempt, LeaseFailure::Undeliverable, now));
                LeaseEnd::Returned
            }
            Sent::Failed(failure) => {
                let end = match &failure {
                    LeaseFailure::HandedBack => {
                        debug!(%job_id, %attempt, %worker_id, "lease handed back");
                        LeaseEnd::Returned
                    }
                    LeaseFailure::Undeliverable => {
                        warn!(%job_id, %attempt, %worker_id, "a worker cannot be reached or refuses a lease");
                        LeaseEnd::Returned
                    }
                    LeaseFailure::Unsupported => {
                        debug!(%job_id, %attempt, %worker_id, "worker does not run this kind");
                        LeaseEnd::Returned
                    }
                    LeaseFailure::TaskFailed(cause) => {
                        debug!(%job_id, %attempt, %worker_id, %cause, "task failed");
                        LeaseEnd::Failed
                    }
                    LeaseFailure::WorkerFailed(cause) => {
                        warn!(%job_id, %attempt, %worker_id, %cause, "attempt failed");
                        LeaseEnd::Failed
                    }
                };
                // The failure of an attempt without a lease changes nothing.
                let _ = self.driver.input(|engine, now| engine.fail(attempt, failure, now));
                end
            }
        }
    }

    /// Tells a worker to stop an attempt, where a closed connection does not stop it.
    async fn stop(self: Arc<Self>, attempt: AttemptId, worker: WorkerKey) {
        let Some(Destination { address, .. }) = self.workers.destination_of(worker) else { return };
        let request = self
            .clients
            .here()
            .delete(format!("{}://{address}/lease/{attempt}?epoch={}", self.scheme, self.epoch))
            .timeout(STOP_TIMEOUT);
        if let Err(error) = self.token.sign(request).send().await {
            debug!(%attempt, %error, "a worker was not told to stop; its next heartbeat tells it");
        }
    }
}

fn begun(order: &LeaseOrder) -> Begun<'_> {
    let LeaseOrder { attempt, worker_id: worker, slot, job, kind, tasks, .. } = order;
    Begun { attempt: *attempt, worker, slot: Some(*slot), job: *job, kind: *kind, tasks }
}
