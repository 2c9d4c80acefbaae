//! The connections that only read: a small pool. A read that is dropped is canceled at the server.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use store::ReadError;
use store::backend::Reading;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::error::{DbError, read_error};
use crate::io::Io;
use crate::link::{Link, Purpose};
use crate::target::Target;

/// Time for which a read waits for a connection that another read uses.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a full server is asked for a connection again.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// Bound on the whole time of a read; the server ends it some seconds earlier, and a database that is silent ends it soon.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// Bound on the time of the reads that a leader cannot do without. Their statements have no bound of their own.
const LONG_READ_DEADLINE: Duration = Duration::from_mins(10);
/// Bound on the time to tell the server to cancel.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that take turns.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    io: Arc<Io>,
    target: Arc<Target>,
    idle: Mutex<Vec<Link>>,
    permits: Arc<Semaphore>,
    size: usize,
    /// Number of connections that reads have, or that are being closed after reads whose callers have left.
    lent: AtomicUsize,
    given_back: Notify,
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_link(&self) -> Option<Link> {
        loop {
            let link = self.idle().pop()?;
            if !link.client.is_closed() {
                return Some(link);
            }
        }
    }

    /// An idle connection, else a new one, and whether it was idle. If the server allows no more connections, the read waits for
    /// one that another read has.
    async fn link(&self) -> Result<(Link, bool), DbError> {
        let since = Instant::now();
        loop {
            if let Some(link) = self.idle_link() {
                return Ok((link, true));
            }
            let error = match Link::connect(&self.target, Purpose::Reading).await {
                Ok(link) => return Ok((link, false)),
                Err(error) if error.is_full() => error,
                Err(error) => return Err(error),
            };
            // Read before the look: a connection is idle before it counts as given back.
            let is_any_lent = self.lent.load(Ordering::SeqCst) > 0;
            if let Some(link) = self.idle_link() {
                return Ok((link, true));
            }
            if !is_any_lent || since.elapsed() > TURN_TIMEOUT {
                return Err(error);
            }
            // The server may also have a connection again.
            let _ = timeout(FULL_PAUSE, self.given_back.notified()).await;
        }
    }

    fn note_given_back(&self) {
        self.lent.fetch_sub(1, Ordering::SeqCst);
        self.given_back.notify_one();
    }
}

impl Pool {
    pub(crate) fn new(io: &Arc<Io>, target: &Arc<Target>, size: usize) -> Self {
        Self(Arc::new(Inner {
            io: io.clone(),
            target: target.clone(),
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(size)),
            size,
            lent: AtomicUsize::new(0),
            given_back: Notify::new(),
        }))
    }

    /// Reads with a connection. The closure is called again if an idle connection turns out to be broken, and once if a new
    /// connection is ended meanwhile.
    pub(crate) fn read<T, R, F>(&self, read: R) -> Reading<'static, T>
    where
        T: Send + 'static,
        R: Fn(Arc<Link>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, DbError>> + Send + 'static,
    {
        self.read_within(READ_DEADLINE, read)
    }

    /// Like [`Self::read`], for a read whose time grows with the data.
    pub(crate) fn read_long<T, R, F>(&self, read: R) -> Reading<'static, T>
    where
        T: Send + 'static,
        R: Fn(Arc<Link>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, DbError>> + Send + 'static,
    {
        self.read_within(LONG_READ_DEADLINE, read)
    }

    fn read_within<T, R, F>(&self, deadline: Duration, read: R) -> Reading<'static, T>
    where
        T: Send + 'static,
        R: Fn(Arc<Link>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, DbError>> + Send + 'static,
    {
        let inner = self.0.clone();
        Box::pin(async move {
            let task = inner.io.handle().spawn(run(inner.clone(), deadline, read));
            match EndOnDrop(task).await {
                Ok(found) => found.map_err(|error| read_error(&error)),
                Err(error) => Err(ReadError::Unavailable(error.to_string())),
            }
        })
    }
}

async fn run<T, R, F>(inner: Arc<Inner>, deadline: Duration, read: R) -> Result<T, DbError>
where
    R: Fn(Arc<Link>) -> F,
    F: Future<Output = Result<T, DbError>>,
{
    let pulse = inner.target.pulse.clone();
    let turn = timeout(TURN_TIMEOUT, inner.permits.clone().acquire_owned());
    let Some(turn) = pulse.unless_silent(turn).await else { return Err(DbError::NoAnswer) };
    let Ok(Ok(permit)) = turn else { return Err(DbError::Busy(inner.size)) };
    let mut lent = Lent { inner: inner.clone(), link: None, permit: Some(permit) };
    let reading = async {
        let mut was_ended = false;
        loop {
            let (link, was_idle) = match inner.link().await {
                Err(error) if error.is_of_the_session() && !was_ended => {
                    was_ended = true;
                    continue;
                }
                found => found?,
            };
            let link = lent.lend(link);
            let found = read(link.clone()).await;
            pulse.note(&found);
            if let Err(error) = &found
                && (error.is_of_the_session() || link.client.is_closed())
                && (was_idle || !was_ended)
            {
                // Reading twice does no harm, and the end of a session does not mean that the next one fails.
                was_ended |= !was_idle;
                lent.end();
                continue;
            }
            drop(link);
            return found;
        }
    };
    let Some(found) = pulse.unless_silent(timeout(deadline, reading)).await else {
        // Nothing at the server hears of a cancellation.
        lent.end();
        return Err(DbError::NoAnswer);
    };
    let found = found.unwrap_or(Err(DbError::NoAnswer));
    if !matches!(found, Err(DbError::NoAnswer)) {
        lent.give_back();
    }
    found
}

/// A connection that is lent to a read. Dropped before the read is over, it cancels the read and closes the connection.
struct Lent {
    inner: Arc<Inner>,
    link: Option<Arc<Link>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lent {
    fn lend(&mut self, link: Link) -> Arc<Link> {
        self.inner.lent.fetch_add(1, Ordering::SeqCst);
        self.link.insert(Arc::new(link)).clone()
    }

    /// Closes the connection.
    fn end(&mut self) {
        if self.link.take().is_some() {
            self.inner.note_given_back();
        }
    }

    fn give_back(&mut self) {
        let Some(link) = self.link.take() else { return };
        if let Some(link) = Arc::into_inner(link).filter(|link| !link.client.is_closed()) {
            self.inner.idle().push(link);
        }
        self.inner.note_given_back();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if link.client.is_closed() {
            self.inner.note_given_back();
            return;
        }
        // The place in the pool is free once the server has the cancellation.
        let (inner, permit) = (self.inner.clone(), self.permit.take());
        self.inner.io.handle().spawn(async move {
            let tls = inner.target.tls.clone();
            // The server may have ended the read already, or be gone.
            let _ = timeout(CANCEL_TIMEOUT, link.client.cancel_token().cancel_query(tls)).await;
            drop((link, permit));
            // The server frees the connection a moment later: until then reads wait for it.
            sleep(FULL_PAUSE).await;
            inner.note_given_back();
        });
    }
}

/// A read whose caller may leave.
struct EndOnDrop<T>(JoinHandle<T>);

impl<T> Future for EndOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for EndOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
