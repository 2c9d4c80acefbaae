//! One client's connection: the bytes sent so far are kept until the coordinator's first byte, to be sent once more.

use std::pin::pin;
use std::time::Duration;

use service::{Upstream, mind_unanswered};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// The longest beginning of a connection that is kept, in bytes.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Bytes of one read.
const PIECE_BYTES: usize = 16 * 1024;

/// The first bytes of a repeatable connection: idempotent methods, and TLS, whose handshake has not begun before the
/// coordinator's first byte.
const REPEATABLE: [&[u8]; 5] = [b"GET ", b"HEAD ", b"PUT ", b"OPTIONS ", TLS];

const TLS: &[u8] = b"\x16\x03";

#[derive(Debug)]
pub(super) struct Exchange {
    client: TcpStream,
    kept: Vec<u8>,
    /// Whether the client has sent more bytes than are kept.
    is_longer: bool,
    /// Whether the client sends nothing more.
    has_ended: bool,
}

/// The result of the beginning of an exchange.
#[derive(Debug)]
pub(super) enum Left {
    /// The coordinator has begun to answer.
    Answered(TcpStream),
    /// The coordinator closed the connection without an answer.
    Broken,
    /// The client is gone.
    Ended,
}

/// The first event of a connection.
enum Came {
    OfClient(usize),
    OfServer(usize),
    ClientIsGone,
    ServerIsGone,
}

impl Exchange {
    pub(super) fn new(client: TcpStream) -> Self {
        Self { client, kept: Vec::new(), is_longer: false, has_ended: false }
    }

    /// Whether all bytes of the client are kept and may be sent twice.
    pub(super) fn may_be_repeated(&self) -> bool {
        if prefers_a_job(&self.kept) {
            return false;
        }
        // A connection without bytes of the client had no request.
        let is_repeatable = self.kept.is_empty() || REPEATABLE.iter().any(|method| self.kept.starts_with(method));
        let is_tls = self.kept.starts_with(TLS);
        (is_repeatable || is_keyed_submission(&self.kept)) && !self.is_longer && (is_tls || is_one_request(&self.kept))
    }

    /// Resolves when the client has closed its connection without having sent anything that is unread.
    pub(super) async fn is_left(&self) {
        if !self.has_ended && matches!(self.client.peek(&mut [0]).await, Ok(0) | Err(_)) {
            return;
        }
        // Unread bytes hide the end of the connection, which shows after the coordinator has taken them.
        std::future::pending().await
    }

    /// Sends the kept bytes and goes on until the coordinator's first byte.
    pub(super) async fn begin(&mut self, mut server: TcpStream) -> Left {
        let (mut from_server, mut to_server) = server.split();
        let mut sent = self.kept.len();
        let is_passed = self.kept.is_empty() || pass_up(&mut to_server, &self.kept, sent).await;
        if !is_passed || (self.has_ended && to_server.shutdown().await.is_err()) {
            return Left::Broken;
        }
        let (mut upward, mut downward) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        loop {
            let (mut from_client, mut to_client) = self.client.split();
            match next(&mut from_client, &mut upward, self.has_ended, &mut from_server, &mut downward).await {
                Came::ClientIsGone => return Left::Ended,
                Came::ServerIsGone => return Left::Broken,
                Came::OfServer(length) => {
                    return match to_client.write_all(&downward[..length]).await {
                        Ok(()) => Left::Answered(server),
                        Err(_) => Left::Ended,
                    };
                }
                Came::OfClient(length) => {
                    self.keep(&upward[..length]);
                    sent = sent.saturating_add(length);
                    if !pass_up(&mut to_server, &upward[..length], sent).await {
                        return self.last_words(server).await;
                    }
                }
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.has_ended = piece.is_empty();
        if self.kept.len() + piece.len() > MAX_KEPT_BYTES {
            self.is_longer = true;
        }
        if !self.is_longer {
            self.kept.extend_from_slice(piece);
        }
    }

    /// Reads the answer of a coordinator that takes no more bytes: it may have answered already, such as that a body is too
    /// long.
    async fn last_words(&mut self, mut server: TcpStream) -> Left {
        let mut piece = vec![0; PIECE_BYTES];
        match server.read(&mut piece).await {
            Ok(length) if length > 0 => match self.client.write_all(&piece[..length]).await {
                Ok(()) => Left::Answered(server),
                Err(_) => Left::Ended,
            },
            Ok(_) | Err(_) => Left::Broken,
        }
    }

    /// Passes all bytes on in both directions, to the end. After the coordinator's end the client has the time of `linger` for its
    /// own: a pool may keep a connection that has ended until it is wanted again, and would keep the place of another client.
    pub(super) async fn go_on(self, server: TcpStream, linger: Duration) {
        let Self { mut client, kept, .. } = self;
        // A connection lasts longer than its first request.
        drop(kept);
        let Ok(server) = Upstream::new(server) else { return };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = split(server);
        let up = async {
            copy(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await
        };
        let down = async {
            copy(&mut from_server, &mut to_client).await?;
            to_client.shutdown().await
        };
        let mut up = pin!(up);
        let mut down = pin!(down);
        // Both connections end here, after an error too.
        tokio::select! {
            sent = &mut up => {
                if sent.is_ok() {
                    let _ = down.await;
                }
            }
            answered = &mut down => {
                if answered.is_ok() {
                    let _ = timeout(linger, up).await;
                }
            }
        }
    }
}

/// Whether a client prefers a job to an answer, and gets another job with each request.
fn prefers_a_job(request: &[u8]) -> bool {
    let mut lines = request.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    lines.any(|line| line.to_ascii_lowercase().starts_with(b"prefer:"))
}

/// Whether a request is a submission with a key, by which the coordinator recognizes a repetition. It reads the keys of no other
/// requests: a simulation would begin twice.
fn is_keyed_submission(request: &[u8]) -> bool {
    const NAME: &[u8] = b"idempotency-key:";
    if !request.starts_with(b"POST /v1/jobs ") {
        return false;
    }
    let mut lines = request.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    lines.any(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))
}

/// Whether nothing follows the first request: a client may send its next request, of any method, before the answer.
fn is_one_request(sent: &[u8]) -> bool {
    let ends = [b"\n\r\n".as_slice(), b"\n\n"].map(|blank| {
        let place = sent.windows(blank.len()).position(|bytes| bytes == blank);
        place.map(|place| place + blank.len())
    });
    let Some(end) = ends.into_iter().flatten().min() else { return true };
    let (head, body) = sent.split_at(end);
    if value_of(head, b"transfer-encoding:").is_some() {
        return is_one_chunked(body);
    }
    let length =
        value_of(head, b"content-length:").and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
    body.len() <= length.unwrap_or(0)
}

/// Whether nothing follows a chunked body (RFC 9112, 7.1), which may have come in part. A body with a size that is none is
/// refused, whatever follows it.
fn is_one_chunked(mut body: &[u8]) -> bool {
    while let Some((line, rest)) = split_line(body) {
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Some(size) = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok()) else {
            return false;
        };
        if size == 0 {
            return has_only_trailers(rest);
        }
        let Some(after) = rest.get(size..) else { return true };
        let Some(next) = after.strip_prefix(b"\r\n") else { return after.len() < 2 };
        body = next;
    }
    true
}

/// Whether nothing follows the empty line after the fields behind the last chunk.
fn has_only_trailers(mut trailers: &[u8]) -> bool {
    while let Some((line, rest)) = split_line(trailers) {
        if line.trim_ascii().is_empty() {
            return rest.is_empty();
        }
        trailers = rest;
    }
    true
}

/// The first line, with its end, and what follows it; none where its end has not come.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    bytes.split_at_checked(end + 1)
}

/// The value of the first header of a name, which is in lower case and ends with the colon.
fn value_of<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (own, value) = line.split_at_checked(name.len())?;
        own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// Sends a piece to the coordinator; with it, `sent` bytes of the first request are sent. An empty piece is the end of the
/// client's bytes.
async fn pass_up(server: &mut WriteHalf<'_>, piece: &[u8], sent: usize) -> bool {
    let stream: &TcpStream = server.as_ref();
    if mind_unanswered(stream, sent).is_err() {
        return false;
    }
    let passed = if piece.is_empty() { server.shutdown().await } else { server.write_all(piece).await };
    passed.is_ok()
}

async fn next(
    client: &mut ReadHalf<'_>,
    upward: &mut [u8],
    has_ended: bool,
    server: &mut ReadHalf<'_>,
    downward: &mut [u8],
) -> Came {
    tokio::select! {
        read = client.read(upward), if !has_ended => read.map_or(Came::ClientIsGone, Came::OfClient),
        read = server.read(downward) => match read {
            Ok(length) if length > 0 => Came::OfServer(length),
            Ok(_) | Err(_) => Came::ServerIsGone,
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_keeps_its_end_open_keeps_no_place_after_the_end_of_the_coordinator() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let connected = async || {
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            (near.expect("connect"), far.expect("accept").0)
        };
        let ((mut client, of_client), (to_coordinator, mut coordinator)) = (connected().await, connected().await);
        let passing = tokio::spawn(Exchange::new(of_client).go_on(to_coordinator, Duration::from_millis(50)));
        client.write_all(b"question").await.expect("send");
        let mut question = [0; 8];
        coordinator.read_exact(&mut question).await.expect("a question");
        coordinator.write_all(b"answer").await.expect("answer");
        drop(coordinator);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer and its end");
        assert_eq!((&question, answer.as_slice()), (b"question", &b"answer"[..]));
        // The client's own end is open until here.
        timeout(Duration::from_secs(60), passing).await.expect("its place is free").expect("no panic");
        drop(client);
    }

    #[test]
    fn a_request_behind_the_first_one_is_seen() {
        for alone in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a",
            "PUT /x HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n\nab",
            "PUT /x HTTP/1.1\r\ncontent-length:4\r\n\r\nab",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;b=c\r\n0\r\n\r\n56789\r\n0\r\nTrailer: a\r\n\r\n",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
            "",
        ] {
            assert!(is_one_request(alone.as_bytes()), "{alone:?}");
        }
        for followed in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /v1/jobs HTTP/1.1\r\n",
            "GET / HTTP/1.1\nHost: a\n\nPOST",
            "PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nabPOST",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nPOST /v1/jobs HTTP/1.1\r\n",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nTrailer: a\r\n\r\nP",
            "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nPOST /v1/jobs HTTP/1.1\r\n",
        ] {
            assert!(!is_one_request(followed.as_bytes()), "{followed:?}");
        }
    }

    #[test]
    fn a_key_is_a_header_and_nothing_in_a_body() {
        assert!(is_keyed_submission(b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\n\r\n"));
        assert!(!is_keyed_submission(b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\nidempotency-key: 7\r\n"));
        assert!(!is_keyed_submission(b""));
    }

    #[test]
    fn a_key_counts_only_where_the_coordinator_reads_it() {
        for path in ["/v1/simulate", "/v1/jobs/all/retry?state=failed", "/submit", "/v1/jobs/../simulate"] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\n\r\n");
            assert!(!is_keyed_submission(request.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_sum_that_is_to_become_a_job_is_known_by_its_header() {
        assert!(prefers_a_job(b"GET /sum-of-primes?a=1&b=2 HTTP/1.1\r\nHost: a\r\nPREFER: respond-async\r\n\r\n"));
        assert!(!prefers_a_job(b"GET /sum-of-primes?a=1&b=2 HTTP/1.1\r\nHost: a\r\n\r\nprefer: wait=1"));
        assert!(!prefers_a_job(b"\x16\x03\x01 of TLS"));
    }
}
