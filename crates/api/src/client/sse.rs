//! Parses Server-Sent Events from the bytes of a stream, by the HTML standard (section 9.2.6, "Interpreting an event stream").

use std::mem;

/// Longest line, and most data of one event, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A Server-Sent Event. Its id stays the last seen id until another one comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) data: String,
}

/// The stream has a line or an event of more than 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event stream has an event of more than 1 MiB")]
pub struct TooLong;

/// The received part of the present line and event.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    past_start: bool,
    has_data: bool,
    message: Message,
}

impl Parser {
    /// Adds the stream's next bytes; returns the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut complete = Vec::new();
        for &byte in bytes {
            let is_second_half = mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if is_second_half => (),
                b'\n' | b'\r' => complete.extend(self.end_line()?),
                _ if self.line.len() < MAX_MESSAGE_BYTES => self.line.push(byte),
                _ => return Err(TooLong),
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self) -> Result<Option<Message>, TooLong> {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let is_first = !mem::replace(&mut self.past_start, true);
        let line = if is_first { line.trim_start_matches('\u{feff}') } else { &line };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => value.clone_into(&mut self.message.id),
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if self.message.data.len() + value.len() > MAX_MESSAGE_BYTES {
                    return Err(TooLong);
                }
                if mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments keep the connection alive; the pause before a reconnection is the caller's own.
            _ => (),
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Message> {
        let next = Message { id: self.message.id.clone(), ..Message::default() };
        let message = mem::replace(&mut self.message, next);
        mem::take(&mut self.has_data).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, event: &str, data: &str) -> Message {
        Message { id: id.to_owned(), event: event.to_owned(), data: data.to_owned() }
    }

    fn parse(stream: &str) -> Vec<Message> {
        Parser::default().push(stream.as_bytes()).expect("short")
    }

    #[test]
    fn events_have_id_type_and_data_and_keep_the_last_id() {
        let stream = "id: 7\nevent: progress\ndata: {}\n\n:still here\n\ndata:a\ndata: b\ndata\n\n";
        assert_eq!(parse(stream), [message("7", "progress", "{}"), message("7", "", "a\nb\n")]);
    }

    #[test]
    fn events_without_data_are_none_and_unfinished_ones_wait() {
        assert_eq!(parse("event: x\n\nid: 3\n\ndata: half"), []);
        assert_eq!(parse("event: x\n\ndata: y\n\n"), [message("", "", "y")]);
    }

    #[test]
    fn every_line_end_and_every_cut_gives_the_same_events() {
        let expected = [message("1", "a", "ä  "), message("2", "b", "")];
        for end in ["\n", "\r\n", "\r"] {
            let stream = "\u{feff}id:1\nevent:a\ndata: ä  \nretry: 5\n\nid:2\nevent:b\ndata\n\n".replace('\n', end);
            for cut in 0..=stream.len() {
                let mut parser = Parser::default();
                let (head, tail) = stream.as_bytes().split_at(cut);
                let mut events = parser.push(head).expect("short");
                events.extend(parser.push(tail).expect("short"));
                assert_eq!(events, expected, "{end:?} {cut}");
            }
        }
    }

    #[test]
    fn endless_lines_and_endless_events_are_refused() {
        let half = vec![b'x'; MAX_MESSAGE_BYTES / 2 + 1];
        let mut parser = Parser::default();
        assert_eq!(parser.push(&half), Ok(Vec::new()));
        assert_eq!(parser.push(&half), Err(TooLong));
        let mut parser = Parser::default();
        for expected in [Ok(Vec::new()), Err(TooLong)] {
            let line = [b"data:", half.as_slice(), b"\n"].concat();
            assert_eq!(parser.push(&line), expected);
        }
    }
}
