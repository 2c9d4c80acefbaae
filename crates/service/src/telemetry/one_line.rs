//! The fields of a line of the log as text. A value may be what a worker, a client or another service wrote: its control characters
//! are escaped, so that it cannot begin a line of its own or control the terminal.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats fields as [`DefaultFields`] does, in one line. `DefaultFields` leaves the values of fields that are logged by their
/// `Display` as they are.
///
/// [`DefaultFields`]: tracing_subscriber::fmt::format::DefaultFields
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, written: Ok(()) };
        fields.record(&mut line);
        line.written
    }
}

struct Line<'a> {
    writer: Writer<'a>,
    is_empty: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if name != "message" {
            let name = name.strip_prefix("r#").unwrap_or(name);
            let [italic, dimmed, plain] =
                if self.writer.has_ansi_escapes() { ["\u{1b}[3m", "\u{1b}[2m", "\u{1b}[0m"] } else { [""; 3] };
            write!(self.writer, "{italic}{name}{plain}{dimmed}={plain}")?;
        }
        write!(Escaped(&mut self.writer), "{value:?}")
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The place in the source of an event of the crate `log` stands before the fields.
        if self.written.is_ok() && !field.name().starts_with("log.") {
            self.written = self.write(field.name(), value);
        }
    }
}

/// Escapes control characters.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let plain = piece.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", piece[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing::{info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged, as text.
    fn logged(is_coloured: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let logs = tracing_subscriber::fmt().fmt_fields(OneLine).with_ansi(is_coloured).without_time();
        let logs = logs.with_target(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(logs, log);
        String::from_utf8(lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("UTF-8")
    }

    #[test]
    fn a_value_that_others_wrote_begins_no_line_and_controls_no_terminal() {
        let cause = "500: no\r\n2026-03-21T10:00:00Z ERROR forged\u{1b}[2J\u{9b}31m\u{7f}";
        let escaped = r"500: no\r\n2026-03-21T10:00:00Z ERROR forged\u{1b}[2J\u{9b}31m\u{7f}";
        let lines = logged(false, || warn!(attempt = 7, %cause, r#type = "a", "attempt failed: {cause}"));
        assert_eq!(lines, format!(" WARN attempt failed: {escaped} attempt=7 cause={escaped} type=\"a\"\n"));
        let coloured = logged(true, || warn!(%cause, "attempt failed"));
        assert!(coloured.contains(escaped) && coloured.lines().count() == 1, "{coloured:?}");
    }

    #[test]
    fn other_values_look_as_they_do_by_default() {
        let log = || {
            let error = io::Error::other("no \"room\" in /var/lib/é");
            info!(text = "two\nlines", count = 3_u64, share = 0.5, is_new = true, path = ?Some("x"), %error, "stored");
        };
        for is_coloured in [false, true] {
            let lines = Lines::default();
            let writer = lines.clone();
            let logs = tracing_subscriber::fmt().with_ansi(is_coloured).without_time().with_target(false);
            tracing::subscriber::with_default(logs.with_writer(move || writer.clone()).finish(), log);
            let default = String::from_utf8(lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
            assert_eq!(logged(is_coloured, log), default.expect("UTF-8"));
        }
    }
}
