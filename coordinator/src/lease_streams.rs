//! Streams of leases: a thread that serves clients has a WebSocket to each worker (`GET /leases`), so that a lease needs no
//! request of its own. A worker that opens none, such as one of an earlier release, gets requests.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{LeaseRequest, MAX_STREAMED_BYTES, StreamedAnswer, StreamedOrder};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use model::AttemptId;
use reqwest::RequestBuilder;
use scheduler::WorkerKey;
use service::web_socket::{self, ReceiveError};
use thread_local::ThreadLocal;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::supervisor::Supervisor;

/// Longest time that a worker may take to open a stream. Leases go by requests meanwhile.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which a worker that has opened no stream is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// A stream that brings no lease for this long is closed, after twice this time at the latest.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The streams of all threads.
#[derive(Debug, Default)]
pub(crate) struct LeaseStreams(ThreadLocal<Places>);

/// The streams of one thread. A connection lives on the thread that opened it.
type Places = Arc<Mutex<HashMap<WorkerKey, Place>>>;

#[derive(Debug)]
enum Place {
    Opening,
    Open(Arc<LeaseStream>),
    /// The worker has opened none.
    Absent {
        until: Instant,
    },
}

/// The reason for which a lease has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The stream has ended before the lease was sent.
    Unsent,
    /// The worker has closed the stream, such as one that stops: it computes none of the leases that end with it.
    Closed,
    /// The connection broke.
    Broken,
}

/// An open stream to a worker.
#[derive(Debug, Default)]
pub(crate) struct LeaseStream {
    state: Mutex<State>,
    /// Wakes the writer.
    queued: Notify,
}

/// A message that the writer has not taken.
#[derive(Debug)]
struct Queued {
    message: String,
    /// The attempt, if the message is a lease.
    lease: Option<AttemptId>,
}

#[derive(Debug, Default)]
struct State {
    /// A worker that reads nothing does not make it long: a lease that is revoked leaves it again.
    queue: VecDeque<Queued>,
    unanswered: HashMap<AttemptId, oneshot::Sender<StreamedAnswer>>,
    /// Whether a lease came since the last look.
    is_used: bool,
    is_over: bool,
    /// Whether the worker has closed the stream.
    is_closed: bool,
}

impl State {
    /// Takes a lease back that the writer has not taken.
    fn take_back(&mut self, attempt: AttemptId) -> bool {
        let place = self.queue.iter().position(|queued| queued.lease == Some(attempt));
        place.and_then(|place| self.queue.remove(place)).is_some()
    }
}

impl LeaseStreams {
    /// The stream of this thread, which serves clients, to a worker. If there is none, one is opened for later leases.
    pub(crate) fn to(
        &self,
        worker: WorkerKey,
        supervisor: &Supervisor,
        request: impl FnOnce() -> RequestBuilder,
    ) -> Option<Arc<LeaseStream>> {
        let places = self.0.get_or_default();
        let mut known = lock(places);
        match known.get(&worker) {
            Some(Place::Open(stream)) => return Some(Arc::clone(stream)),
            Some(Place::Opening) => return None,
            Some(Place::Absent { until }) if Instant::now() < *until => return None,
            Some(Place::Absent { .. }) | None => (),
        }
        let now = Instant::now();
        known.retain(|_, place| !matches!(place, Place::Absent { until } if *until <= now));
        known.insert(worker, Place::Opening);
        drop(known);
        supervisor.spawn(run(Entry { places: Arc::clone(places), worker, stream: Arc::default() }, request()));
        None
    }
}

/// A stream among those of its thread. Dropped, also with the runtime of the thread, it ends the stream.
struct Entry {
    places: Places,
    worker: WorkerKey,
    stream: Arc<LeaseStream>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stream.end();
        let mut places = lock(&self.places);
        if !matches!(places.get(&self.worker), Some(Place::Absent { .. })) {
            places.remove(&self.worker);
        }
    }
}

/// Opens a stream and runs it until one side ends it.
async fn run(entry: Entry, request: RequestBuilder) {
    let Entry { places, worker, stream } = &entry;
    let opened = timeout(OPEN_TIMEOUT, web_socket::open(request, MAX_STREAMED_BYTES)).await;
    let (sink, source) = match opened {
        Ok(Ok(socket)) => socket,
        failed => {
            let error = failed.ok().and_then(Result::err);
            debug!(?worker, ?error, "a worker opens no stream of leases: they go by requests");
            lock(places).insert(*worker, Place::Absent { until: Instant::now() + ASK_AGAIN_AFTER });
            return;
        }
    };
    lock(places).insert(*worker, Place::Open(Arc::clone(stream)));
    tokio::select! {
        () = stream.write(sink) => (),
        () = stream.read(source) => (),
        () = stream.until_idle() => (),
    }
}

fn lock(places: &Places) -> MutexGuard<'_, HashMap<WorkerKey, Place>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeaseStream {
    /// Gives a lease and waits for the answer. A lease that does not outlive its connection is revoked when this is dropped.
    pub(crate) async fn compute(&self, lease: LeaseRequest) -> Result<StreamedAnswer, NoAnswer> {
        let (attempt, outlives_connection) = (lease.attempt, lease.outlives_connection);
        let answer = self.queue(attempt, encoded(&StreamedOrder::Lease(lease))).ok_or(NoAnswer::Unsent)?;
        let _unanswered = Unanswered { stream: self, attempt, outlives_connection };
        if let Ok(answer) = answer.await {
            return Ok(answer);
        }
        let mut state = self.state();
        let is_unsent = state.take_back(attempt);
        Err(if is_unsent {
            NoAnswer::Unsent
        } else if state.is_closed {
            NoAnswer::Closed
        } else {
            NoAnswer::Broken
        })
    }

    fn queue(&self, attempt: AttemptId, message: String) -> Option<oneshot::Receiver<StreamedAnswer>> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        if state.is_over {
            return None;
        }
        state.is_used = true;
        state.unanswered.insert(attempt, sender);
        state.queue.push_back(Queued { message, lease: Some(attempt) });
        drop(state);
        self.queued.notify_one();
        Some(answer)
    }

    async fn write(&self, mut sink: impl Sink<String> + Unpin) {
        loop {
            self.queued.notified().await;
            while let Some(message) = self.next_message() {
                if sink.feed(message).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    }

    fn next_message(&self) -> Option<String> {
        self.state().queue.pop_front().map(|queued| queued.message)
    }

    async fn read<B: AsRef<[u8]>>(&self, mut source: impl Stream<Item = Result<B, ReceiveError>> + Unpin) {
        while let Some(message) = source.next().await {
            let answer = match message {
                Ok(message) => {
                    serde_json::from_slice::<StreamedAnswer>(message.as_ref()).map_err(|error| error.to_string())
                }
                Err(ReceiveError::Ended(error)) => return debug!(%error, "the connection of a stream of leases broke"),
                Err(error @ (ReceiveError::Invalid(_) | ReceiveError::NoText)) => Err(error.to_string()),
            };
            match answer {
                Ok(answer) => {
                    let waiting = self.state().unanswered.remove(&answer.attempt());
                    // The lease may have been revoked meanwhile.
                    let _ = waiting.map(|waiting| waiting.send(answer));
                }
                Err(error) => return warn!(error, "a stream of leases ends: its worker's message cannot be read"),
            }
        }
        self.state().is_closed = true;
    }

    async fn until_idle(&self) {
        loop {
            sleep(IDLE_LIMIT).await;
            let mut state = self.state();
            if !mem::take(&mut state.is_used) && state.unanswered.is_empty() {
                state.is_over = true;
                return;
            }
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.unanswered.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease without an answer.
struct Unanswered<'a> {
    stream: &'a LeaseStream,
    attempt: AttemptId,
    outlives_connection: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut state = self.stream.state();
        let was_unanswered = state.unanswered.remove(&self.attempt).is_some();
        if was_unanswered && !state.take_back(self.attempt) && !self.outlives_connection {
            let message = encoded(&StreamedOrder::Revoke(self.attempt));
            state.queue.push_back(Queued { message, lease: None });
            drop(state);
            self.stream.queued.notify_one();
        }
    }
}

fn encoded(order: &StreamedOrder) -> String {
    serde_json::to_string(order).expect("ids, numbers and JSON are JSON")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream::{iter, pending};
    use model::{BootId, JobId, JobKind};
    use serde_json::json;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    fn lease(attempt: u128, outlives_connection: bool) -> LeaseRequest {
        LeaseRequest {
            job: JobId(Uuid::nil()),
            attempt: AttemptId(Uuid::from_u128(attempt)),
            boot_id: BootId(Uuid::nil()),
            slot: 0,
            kind: JobKind::SUM_OF_PRIMES,
            work: RawValue::from_string("{}".to_owned()).expect("JSON"),
            epoch: 1,
            first: 0,
            beyond: 1,
            outlives_connection,
            settled: Vec::new(),
        }
    }

    /// The attempts of the messages that the writer sends now, each with the name of its message.
    fn written(stream: &LeaseStream) -> Vec<(String, u128)> {
        let mut messages = Vec::<String>::new();
        assert!(stream.write(&mut messages).now_or_never().is_none(), "it waits for more");
        let orders = messages.iter().map(|message| serde_json::from_str::<StreamedOrder>(message).expect("an order"));
        let attempts = orders.map(|order| match order {
            StreamedOrder::Lease(lease) => ("lease".to_owned(), lease.attempt.0.as_u128()),
            StreamedOrder::Revoke(attempt) => ("revoke".to_owned(), attempt.0.as_u128()),
        });
        attempts.collect()
    }

    fn outcome(attempt: u128) -> String {
        let outcome = json!({ "attempt": Uuid::from_u128(attempt), "value": "5", "compute_us": 1 });
        json!({ "outcome": outcome }).to_string()
    }

    #[tokio::test]
    async fn a_lease_that_is_dropped_before_it_is_sent_is_not_sent_and_leaves_nothing_behind() {
        let stream = LeaseStream::default();
        for (attempt, outlives_connection) in [(1, false), (2, true)] {
            let mut dropped = Box::pin(stream.compute(lease(attempt, outlives_connection)));
            assert!(dropped.as_mut().now_or_never().is_none());
            drop(dropped);
        }
        let state = stream.state();
        assert!(state.queue.is_empty() && state.unanswered.is_empty(), "{state:?}");
    }

    #[tokio::test]
    async fn a_sent_lease_that_is_dropped_is_revoked_unless_it_outlives_the_connection_or_is_answered() {
        let stream = LeaseStream::default();
        let [mut bound, mut held, mut answered] = [(1, false), (2, true), (3, false)]
            .map(|(attempt, outlives)| Box::pin(stream.compute(lease(attempt, outlives))));
        for sending in [&mut bound, &mut held, &mut answered] {
            assert!(sending.as_mut().now_or_never().is_none());
        }
        assert_eq!(written(&stream), [1, 2, 3].map(|attempt| ("lease".to_owned(), attempt)));
        // An outcome of an attempt that is unknown, and one that comes twice.
        let answers = iter([9, 3, 3].map(|attempt| Ok(outcome(attempt)))).chain(pending());
        assert!(stream.read(answers).now_or_never().is_none(), "it waits for more");
        let answer = answered.await.expect("an answer");
        assert_eq!(answer.attempt(), AttemptId(Uuid::from_u128(3)));
        drop((bound, held));
        assert_eq!(written(&stream), [("revoke".to_owned(), 1)]);
        assert!(stream.state().unanswered.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_stream_tells_whether_its_worker_can_have_a_lease() {
        let broken = || ReceiveError::Ended(std::io::ErrorKind::ConnectionReset.into());
        let garbage = || Ok("garbage".to_owned());
        for (end, expected) in [
            (None, NoAnswer::Closed),
            (Some(Err(broken())), NoAnswer::Broken),
            (Some(garbage()), NoAnswer::Broken),
            (Some(Err(ReceiveError::NoText)), NoAnswer::Broken),
        ] {
            let stream = LeaseStream::default();
            let mut sent = Box::pin(stream.compute(lease(1, false)));
            assert!(sent.as_mut().now_or_never().is_none());
            assert_eq!(written(&stream).len(), 1);
            let mut queued = Box::pin(stream.compute(lease(2, true)));
            assert!(queued.as_mut().now_or_never().is_none());
            stream.read(iter(end)).await;
            stream.end();
            assert_eq!(sent.await.expect_err("no answer"), expected);
            assert_eq!(queued.await.expect_err("no answer"), NoAnswer::Unsent);
            assert_eq!(stream.compute(lease(3, false)).await.expect_err("no answer"), NoAnswer::Unsent);
        }
    }
}
