//! A connection to another service, which ends when that service's host is gone, also while bytes are under way to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Probes without an answer after which the host of a service is gone, and the time between them.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;

/// Longest time that the host of a service may leave bytes unacknowledged: as long as it may leave the probes unanswered.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest time that the host of a service may leave more bytes unacknowledged: longer than a service leaves a body unread
/// ([`Limits::unread_body_timeout`](crate::Limits)).
const UNREAD_TIMEOUT: Duration = Duration::from_secs(70);

/// Bytes that the system of a service takes in while the service reads nothing: half of the usual size of its buffer.
const BUFFERED_BYTES: usize = 32 * 1024;

/// Lets the system detect that the host of a service is gone, however long that service computes, and send written bytes at
/// once.
///
/// # Errors
/// The system refuses the options.
pub fn mind_service(stream: &net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes.with_retries(PROBES))?;
    mind_unanswered(stream, 0)
}

/// Bounds the time without an acknowledgement of the bytes that were sent since the last bytes of the service: without a bound
/// the system sends them again for a quarter of an hour, and probes nothing meanwhile. More bytes than a host takes in unread
/// have more time: to the system a service that reads slowly looks like one whose host is gone. Linux gives an idle connection
/// the same bound, whatever the number of probes: after many bytes a vanished host is noticed later, too.
///
/// # Errors
/// The system refuses the option.
pub fn mind_unanswered(stream: &net::TcpStream, bytes: usize) -> io::Result<()> {
    let bound = if bytes <= BUFFERED_BYTES { UNACKNOWLEDGED_TIMEOUT } else { UNREAD_TIMEOUT };
    SockRef::from(stream).set_tcp_user_timeout(Some(bound))
}

/// A connection to a service that keeps the bound of [`mind_unanswered`] over all requests that pass over it.
#[derive(Debug)]
pub struct Upstream {
    stream: net::TcpStream,
    /// Bytes that were sent since the last bytes of the service.
    unanswered: usize,
}

impl Upstream {
    /// A connection over which the service has just sent bytes.
    ///
    /// # Errors
    /// The system refuses the option.
    pub fn new(stream: net::TcpStream) -> io::Result<Self> {
        mind_unanswered(&stream, 0)?;
        Ok(Self { stream, unanswered: 0 })
    }

    fn note_unanswered(&mut self, bytes: usize) -> io::Result<()> {
        self.unanswered = bytes;
        mind_unanswered(&self.stream, bytes)
    }
}

impl AsyncRead for Upstream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before && this.unanswered > 0 {
            // The read bytes are passed on, whatever the system says to the option.
            let _ = this.note_unanswered(0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.note_unanswered(this.unanswered.saturating_add(written))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[actix_web::test]
    async fn unacknowledged_bytes_have_a_bound_and_a_service_that_may_read_slowly_a_longer_one() {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let stream = net::TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connect");
        mind_service(&stream).expect("the options are known");
        let mut upstream = Upstream::new(stream).expect("the option is known");
        let (mut service, _) = listener.accept().await.expect("accept");
        let bound = |upstream: &Upstream| SockRef::from(&upstream.stream).tcp_user_timeout().expect("a number");
        assert_eq!(bound(&upstream), Some(UNACKNOWLEDGED_TIMEOUT));

        upstream.write_all(&vec![0; BUFFERED_BYTES]).await.expect("send");
        assert_eq!(bound(&upstream), Some(UNACKNOWLEDGED_TIMEOUT));
        upstream.write_all(b"1").await.expect("send");
        assert_eq!(bound(&upstream), Some(UNREAD_TIMEOUT), "the service may be reading slowly");
        assert!(UNREAD_TIMEOUT > crate::Limits::default().unread_body_timeout);

        // The answer to that request, and the next request.
        service.write_all(b"2").await.expect("answer");
        assert_eq!(upstream.read_u8().await.expect("an answer"), b'2');
        assert_eq!(bound(&upstream), Some(UNACKNOWLEDGED_TIMEOUT));
        upstream.write_all(b"3").await.expect("send");
        assert_eq!(bound(&upstream), Some(UNACKNOWLEDGED_TIMEOUT));
    }
}
