//! HTTP over a plain socket, so that a test decides what arrives when, and when its client goes away.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header lines, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A request that was sent; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct InFlight(TcpStream);

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
    stream
}

pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], "")
}

pub(crate) fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    send(address, method, target, headers, body).answer()
}

pub(crate) fn send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> InFlight {
    let mut stream = connect(address);
    stream.write_all(to_text(address, method, target, headers, body).as_bytes()).expect("send a request");
    InFlight(stream)
}

/// The answer; none where nobody is there, or the connection ends before all of it came.
pub(crate) fn try_request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    try_within(PATIENCE, address, method, target, headers, body)
}

/// The immediate answer to `GET` of a process that may hang.
pub(crate) fn try_get_now(address: SocketAddr, target: &str) -> Option<Answer> {
    try_within(Duration::from_secs(1), address, "GET", target, &[], "")
}

fn try_within(
    patience: Duration,
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(to_text(address, method, target, headers, body).as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let answer = text.contains("\r\n\r\n").then(|| Answer::parse(&text))?;
    let mut lines = answer.head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_none_or(|length: usize| length == answer.body.len()).then_some(answer)
}

fn to_text(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    format!("{head}\r\n{body}")
}

impl InFlight {
    pub(crate) fn is_answered(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(1))).expect("set a timeout");
        let peeked = self.0.peek(&mut [0]);
        self.0.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        match peeked {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    pub(crate) fn answer(mut self) -> Answer {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("an answer in time");
        Answer::parse(&String::from_utf8(bytes).expect("UTF-8"))
    }
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The sum in the answer, which must be a success.
    pub(crate) fn sum(&self) -> u128 {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["sum"].as_str().expect("a string").parse().expect("a number")
    }

    /// The message of the answer, which must be a problem document with this status.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("\r\ncontent-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        problem["detail"].as_str().expect("a message").to_owned()
    }
}
