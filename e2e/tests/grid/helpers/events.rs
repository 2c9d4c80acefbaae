//! Follows the events of jobs as a browser does: again and again from the last event that was seen.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use model::JobEvent;

use super::PATIENCE;

/// A stream of events of a coordinator that may go away.
#[derive(Debug)]
pub(crate) struct Events {
    body: Chunks,
    read: String,
}

impl Events {
    /// Follows all jobs from after an event on; none where nobody is there.
    pub(crate) fn follow(coordinator: SocketAddr, after: u64) -> Option<Self> {
        let mut stream = TcpStream::connect(coordinator).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET /v1/events HTTP/1.1\r\nhost: {coordinator}\r\nlast-event-id: {after}\r\n\r\n").ok()?;
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if body.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_lowercase().contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        Some(Self { body: Chunks { body }, read: String::new() })
    }
}

impl Iterator for Events {
    type Item = JobEvent;

    /// The next event; none where the stream ends.
    fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
                let data: String = lines.map(str::trim_start).collect();
                let id = event.lines().find_map(|line| line.strip_prefix("id:")).map(|id| id.trim().to_owned());
                self.read = rest.to_owned();
                if !data.is_empty() {
                    let event: JobEvent = serde_json::from_str(&data).expect("an event");
                    assert_eq!(id, Some(event.seq.to_string()), "an event's id is its number");
                    return Some(event);
                }
                continue;
            }
            self.read += &self.body.next().ok()?;
        }
    }
}

/// A body in chunks, each of which holds whole characters.
#[derive(Debug)]
struct Chunks {
    body: BufReader<TcpStream>,
}

impl Chunks {
    fn next(&mut self) -> io::Result<String> {
        let mut size = String::new();
        self.body.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| ErrorKind::UnexpectedEof)?;
        let mut chunk = vec![0; size + 2];
        self.body.read_exact(&mut chunk)?;
        chunk.truncate(size);
        if size == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(String::from_utf8(chunk).expect("UTF-8")) }
    }
}
