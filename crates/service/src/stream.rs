//! A client's connection as actix-web reads and writes it, in plain or through TLS. It notes for the connection's watch what
//! actix-web does with it, and gives the empty errors that actix-web writes by itself a problem as their body.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use api::{PROBLEM_JSON, Problem};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::connection::Link;

/// The longest target of a request that actix-web reads, in bytes.
const MAX_TARGET_BYTES: usize = 65_534;

/// The longest head of an error that actix-web writes by itself.
const MAX_ERROR_HEAD_BYTES: usize = 512;

pub(crate) struct Stream {
    io: Io,
    link: Rc<Link>,
    /// The answer in place of an error of actix-web that was discarded.
    problem: Bytes,
    line: RequestLine,
}

/// The received part of the next request's first line.
#[derive(Default)]
struct RequestLine {
    bytes: usize,
    has_ended: bool,
}

impl RequestLine {
    fn count(&mut self, bytes: &[u8]) {
        if !self.has_ended {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.bytes += end.unwrap_or(bytes.len());
            self.has_ended = end.is_some();
        }
    }
}

pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn new(io: Io, link: Rc<Link>) -> Self {
        Self { io, link, problem: Bytes::new(), line: RequestLine::default() }
    }

    pub(crate) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    fn poll_problem(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.problem.is_empty() {
            match self.io.as_dyn().poll_write(cx, &self.problem) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.problem.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Io {
    fn as_dyn(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = this.io.as_dyn().poll_read(cx, buffer);
        match &read {
            Poll::Pending => this.link.note_read(true),
            // Many clients close a connection without TLS's `close_notify`: a normal end.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => this.link.note_end(),
            Poll::Ready(Err(_)) => {
                this.link.note_failure();
                this.link.note_end();
            }
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                if this.link.owes_nothing() {
                    this.line.count(&buffer.filled()[before..]);
                }
                this.link.note_read(false);
            }
            Poll::Ready(_) => this.link.note_end(),
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.poll_problem(cx)?.is_pending() {
            return Poll::Pending;
        }
        if this.link.owes_nothing()
            && let Some(problem) = with_problem(bytes, this.line.bytes > MAX_TARGET_BYTES)
        {
            this.problem = problem;
            // The bytes are taken: those that cannot leave now leave with the flush.
            let _ = this.poll_problem(cx)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        this.line = RequestLine::default();
        let written = this.io.as_dyn().poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Err(_))) {
            this.link.note_failure();
        }
        this.link.note_write(matches!(written, Poll::Ready(Ok(written)) if written == bytes.len()));
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_problem(cx)? {
            Poll::Ready(()) => this.io.as_dyn().poll_flush(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_problem(cx)?.is_pending() {
            return Poll::Pending;
        }
        match &mut this.io {
            Io::Tls(stream) if this.link.would_answer_with_reset() => Pin::new(stream.get_mut().0).poll_shutdown(cx),
            io @ (Io::Plain(_) | Io::Tls(_)) => io.as_dyn().poll_shutdown(cx),
        }
    }
}

/// The answer with a problem as its body, if it is an error without a body. actix-web has no text of its own for a target that
/// is too long.
fn with_problem(answer: &[u8], is_target_too_long: bool) -> Option<Bytes> {
    if answer.len() > MAX_ERROR_HEAD_BYTES {
        return None;
    }
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let (status_line, fields) = head.split_once("\r\n")?;
    let code = status_line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    let status = StatusCode::from_bytes(code.as_bytes()).ok()?;
    let is = |field: &str, name: &str| field.split_once(':').is_some_and(|(own, _)| own.eq_ignore_ascii_case(name));
    if !(status.is_client_error() || status.is_server_error())
        || !fields.split("\r\n").any(|field| is(field, "content-length"))
    {
        return None;
    }
    let is_of_head = matches!(status, StatusCode::BAD_REQUEST | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let status = if is_target_too_long && is_of_head { StatusCode::URI_TOO_LONG } else { status };
    let title = status.canonical_reason().unwrap_or("Error").into();
    let problem = Problem { title, status: status.as_u16(), detail: detail(status).to_owned(), field: None };
    let body = serde_json::to_string(&problem).ok()?;
    let (length, of_status) = (body.len(), status.to_string());
    let mut whole = format!("HTTP/1.1 {of_status}\r\ncontent-length: {length}\r\ncontent-type: {PROBLEM_JSON}\r\n");
    for field in fields.split("\r\n").filter(|field| !is(field, "content-length") && !is(field, "connection")) {
        whole.extend([field, "\r\n"]);
    }
    // actix-web closes the connection after a request that it cannot read, and does not always announce that.
    whole.extend(["connection: close\r\n\r\n", &body]);
    Some(whole.into())
}

fn detail(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "the request is not valid HTTP/1.1",
        StatusCode::URI_TOO_LONG => "the target of the request is longer than 65534 bytes",
        StatusCode::REQUEST_TIMEOUT => "the head of the request did not arrive in time",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the head of the request is too long",
        _ => "the request cannot be answered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_body_gets_a_problem_and_nothing_else_is_touched() {
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        let problem = with_problem(answer, false).expect("an error without a body");
        let text = std::str::from_utf8(&problem).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with("date: x\r\nconnection: close"), "{head}");
        assert_eq!(head.matches("connection").count(), 1, "{head}");
        let silent = with_problem(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", false).expect("an error");
        assert!(std::str::from_utf8(&silent).expect("text").contains("\r\nconnection: close\r\n"), "{silent:?}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(body.contains("the request is not valid HTTP/1.1"), "{body}");
        let problem = with_problem(answer, true).expect("an error without a body");
        assert!(problem.starts_with(b"HTTP/1.1 414 URI Too Long\r\n"), "{problem:?}");
        for other in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\n",
            "4",
            "",
        ] {
            assert!(with_problem(other.as_bytes(), false).is_none(), "{other}");
        }
    }
}
