//! A guest's standard streams, each with a bound of its own.
//!
//! stdout has a limit that ends the guest: a write that merely failed could be ignored, and its result would be cut
//! off. stderr is handed over while the guest runs and waits when nobody takes it. stdin is read as it is asked for.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::failure::Reason;
use crate::output::{Output, Spool};

/// Largest number of bytes that a guest writes or reads at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// After so many bytes of stdout the guest waits for the host, which looks at its time and its stop flag: a guest writes all of
/// its memory in one call.
const TURN_BYTES: usize = 1 << 20;

/// stdout: all of it, up to a limit.
#[derive(Clone)]
pub(super) struct Stdout(Arc<Mutex<Written>>);

struct Written {
    output: Output,
    limit: u64,
    /// The reason why the guest was ended.
    refused: Option<Reason>,
    /// Bytes since the guest waited.
    in_turn: usize,
}

impl Stdout {
    pub(super) fn new(limit: u64, spool: Option<Spool>) -> Self {
        let output = Output::new(limit, spool);
        Self(Arc::new(Mutex::new(Written { output, limit, refused: None, in_turn: 0 })))
    }

    /// The written bytes, and the reason why they are not all, if some are missing.
    pub(super) fn take(&self) -> (Output, Option<Reason>) {
        let mut written = lock(&self.0);
        (std::mem::replace(&mut written.output, Output::new(0, None)), written.refused.take())
    }
}

impl Sink for Stdout {
    fn room(&self) -> usize {
        let mut written = lock(&self.0);
        if written.in_turn < TURN_BYTES {
            return CHUNK_BYTES;
        }
        // There is room again as soon as the guest has waited.
        written.in_turn = 0;
        0
    }

    fn push(&self, chunk: &[u8]) -> StreamResult<()> {
        let mut written = lock(&self.0);
        written.in_turn += chunk.len();
        if written.output.push(chunk) {
            return Ok(());
        }
        let reason = match written.output.failure() {
            Some(error) => Reason::sandbox("keep its stdout", error),
            None => Reason::OutputLimit { limit: written.limit },
        };
        written.refused.get_or_insert(reason);
        Err(StreamError::trap("its stdout takes no more"))
    }
}

/// The bytes of stderr that were not handed over yet.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Sink for Log {
    fn room(&self) -> usize {
        CHUNK_BYTES.saturating_sub(lock(&self.0).len())
    }

    fn push(&self, chunk: &[u8]) -> StreamResult<()> {
        let mut log = lock(&self.0);
        // A component can write without having asked how much is taken, over and over before the host takes anything.
        if log.len() + chunk.len() > CHUNK_BYTES {
            return Err(StreamError::trap("it writes more to stderr than is taken at a time"));
        }
        log.extend_from_slice(chunk);
        Ok(())
    }
}

/// The destination of a guest's bytes.
pub(super) trait Sink: Clone + Send + Sync + Unpin + 'static {
    /// The number of bytes that the sink takes now.
    fn room(&self) -> usize;
    fn push(&self, chunk: &[u8]) -> StreamResult<()>;
}

/// A sink as the engine's standard stream.
#[derive(Clone)]
pub(super) struct Stream<S>(pub(super) S);

impl<S> IsTerminal for Stream<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Stream<S> {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<S: Sink> Pollable for Stream<S> {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll_room(context).map(|_| ())).await;
    }
}

impl<S: Sink> Stream<S> {
    /// The host empties the sink each time the guest waits, and then polls again.
    fn poll_room(&self, context: &Context<'_>) -> Poll<usize> {
        match self.0.room() {
            0 => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }
}

impl<S: Sink> OutputStream for Stream<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.push(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.0.room())
    }
}

impl<S: Sink> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_room(context).map(|room| {
            let chunk = &bytes[..bytes.len().min(room)];
            self.0.push(chunk).map_err(io::Error::other)?;
            Ok(chunk.len())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// stdin from a file, read in pieces; all handles of a guest share where they are.
#[derive(Clone)]
pub(super) struct FileInput(Arc<File>);

impl FileInput {
    pub(super) fn new(file: File) -> Self {
        Self(Arc::new(file))
    }

    fn read_some(&self, most: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; most.min(CHUNK_BYTES)];
        let length = (&*self.0).read(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

impl IsTerminal for FileInput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for FileInput {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {}
}

impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.read_some(size) {
            Ok(bytes) if bytes.is_empty() => Err(StreamError::Closed),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        }
    }
}

impl AsyncRead for FileInput {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.read_some(buffer.remaining()).map(|bytes| buffer.put_slice(&bytes));
        Poll::Ready(read)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_guest_that_writes_much_to_stdout_waits_for_the_host_now_and_then() {
        let stream = Stream(Stdout::new(u64::MAX, None));
        let context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            for _ in 0..TURN_BYTES / CHUNK_BYTES {
                assert!(stream.poll_room(&context).is_ready());
                assert!(stream.0.push(&[0; CHUNK_BYTES]).is_ok());
            }
            assert!(stream.poll_room(&context).is_pending());
        }
    }

    #[test]
    fn a_guest_that_writes_more_to_stderr_than_is_taken_is_ended() {
        let log = Log::default();
        assert!(log.push(&vec![0_u8; CHUNK_BYTES]).is_ok());
        assert!(log.push(b"x").is_err());
        assert_eq!(log.take().len(), CHUNK_BYTES);
        assert!(log.push(b"x").is_ok());
    }
}
