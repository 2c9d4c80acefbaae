//! HTTP over a blocking socket: a client that takes as little of the machine as it can.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// Longer than any computation here takes.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The longest body that is read: metrics are some ten thousand bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The longest line of a head that is read.
const MAX_LINE_BYTES: u64 = 8192;

/// A connection that stays open from request to request. Dropping it gives up the request in flight.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream), address })
    }

    /// The body of a successful answer.
    pub(crate) fn get(&mut self, target: &str) -> anyhow::Result<Vec<u8>> {
        self.send(target)?;
        self.receive().with_context(|| format!("GET {target}"))
    }

    /// Status and body of the answer to a JSON body.
    pub(crate) fn post(&mut self, target: &str, body: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        self.send_body(target, body)?;
        self.receive_any().with_context(|| format!("POST {target}"))
    }

    pub(crate) fn send_body(&mut self, target: &str, body: &str) -> anyhow::Result<()> {
        self.send_with_body("POST", target, body)
    }

    pub(crate) fn send_with_body(&mut self, method: &str, target: &str, body: &str) -> anyhow::Result<()> {
        let (host, length) = (self.address, body.len());
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).context("send a request")
    }

    pub(crate) fn send(&mut self, target: &str) -> anyhow::Result<()> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes()).context("send a request")
    }

    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let (status, body) = self.receive_any()?;
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Status and body of the next answer.
    pub(crate) fn receive_any(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status line")?;
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse().context("read the length of the answer")?);
            }
        }
        let length: usize = if status == 204 { 0 } else { length.context("an answer without a length")? };
        ensure!(length <= MAX_BODY_BYTES, "the answer is longer than {MAX_BODY_BYTES} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("read the answer")?;
        Ok((status, body))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE_BYTES).read_line(&mut line).context("read the head of the answer")?;
        ensure!(line.ends_with('\n'), "the head of the answer is cut off");
        Ok(line.trim_end().to_owned())
    }
}
