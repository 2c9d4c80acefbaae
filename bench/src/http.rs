//! HTTP over a blocking socket: a client that takes as little of the machine as it can.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// Longer than any computation here takes.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The longest body that is read: metrics are some ten thousand bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The longest line of a head that is read.
const MAX_LINE_BYTES: u64 = 8192;

/// A connection that stays open from request to request. Dropping it gives up what is in flight.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The body of a successful answer.
    pub(crate) fn get(&mut self, target: &str) -> anyhow::Result<Vec<u8>> {
        self.send(target)?;
        self.receive().with_context(|| format!("GET {target}"))
    }

    pub(crate) fn send(&mut self, target: &str) -> anyhow::Result<()> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: grid\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).context("send a request")
    }

    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let status = self.line()?;
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
        let length: usize = length.context("an answer without a length")?;
        ensure!(length <= MAX_BODY_BYTES, "the answer is longer than {MAX_BODY_BYTES} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("read the answer")?;
        if status.split(' ').nth(1) != Some("200") {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE_BYTES).read_line(&mut line).context("read the head of the answer")?;
        ensure!(line.ends_with('\n'), "the head of the answer is cut off");
        Ok(line.trim_end().to_owned())
    }
}
