//! Streams of leases: a thread that serves clients has a WebSocket to each worker (`GET /leases`), so that a lease needs no
//! request of its own. A worker that opens none, such as one of an earlier release, gets requests.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{LeaseRequest, MAX_STREAMED_BYTES, StreamedAnswer, StreamedOrder};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use model::AttemptId;
use reqwest::RequestBuilder;
use scheduler::WorkerKey;
use service::web_socket;
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

/// An open stream to a worker.
#[derive(Debug, Default)]
pub(crate) struct LeaseStream {
    state: Mutex<State>,
    /// Wakes the writer.
    queued: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that the writer has not taken.
    queue: Vec<String>,
    unanswered: HashMap<AttemptId, oneshot::Sender<StreamedAnswer>>,
    /// Whether a lease came since the last look.
    is_used: bool,
    is_over: bool,
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
    /// Gives a lease and waits for the answer; `None` if the stream ends before. A lease that does not outlive its connection is
    /// revoked when this is dropped.
    pub(crate) async fn compute(&self, lease: LeaseRequest) -> Option<StreamedAnswer> {
        let (attempt, outlives_connection) = (lease.attempt, lease.outlives_connection);
        let answer = self.queue(attempt, encoded(&StreamedOrder::Lease(lease)))?;
        let _unanswered = Unanswered { stream: self, attempt, outlives_connection };
        answer.await.ok()
    }

    fn queue(&self, attempt: AttemptId, message: String) -> Option<oneshot::Receiver<StreamedAnswer>> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        if state.is_over {
            return None;
        }
        state.is_used = true;
        state.unanswered.insert(attempt, sender);
        state.queue.push(message);
        drop(state);
        self.queued.notify_one();
        Some(answer)
    }

    async fn write(&self, mut sink: impl Sink<String> + Unpin) {
        loop {
            self.queued.notified().await;
            let queue = mem::take(&mut self.state().queue);
            for message in queue {
                if sink.feed(message).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    }

    async fn read<B: AsRef<[u8]>, E: std::fmt::Display>(&self, mut source: impl Stream<Item = Result<B, E>> + Unpin) {
        while let Some(message) = source.next().await {
            let answer = match message {
                Ok(message) => {
                    serde_json::from_slice::<StreamedAnswer>(message.as_ref()).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
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
        if was_unanswered && !self.outlives_connection {
            state.queue.push(encoded(&StreamedOrder::Revoke(self.attempt)));
            drop(state);
            self.stream.queued.notify_one();
        }
    }
}

fn encoded(order: &StreamedOrder) -> String {
    serde_json::to_string(order).expect("ids, numbers and JSON are JSON")
}
