//! `divvy job logs`.

use std::collections::HashMap;
use std::time::Duration;

use api::TaskLog;
use api::client::{Client, Query};
use model::AttemptId;
use tokio::time::{Instant, sleep};

use crate::arguments::{Format, Logs};
use crate::failure::Failure;
use crate::follow::Away;
use crate::patience::patiently;
use crate::print::{print_json, print_line};
use crate::printable::printable;

/// Longest wait of one request for new lines.
const WAIT: &str = "30s";

/// After something new, before more is asked for: programs side by side then share an answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Time after the end of a job for the last lines of the programs that it stopped: the coordinator waits no longer for them.
const LAST_LINES: Duration = Duration::from_secs(5);

pub(super) async fn run(grid: &Client, format: Format, arguments: &Logs) -> Result<(), Failure> {
    let task = arguments.task.map(|task| ("task", task.to_string()));
    let (mut printer, mut away) = (Printer::new(format), Away::default());
    let mut query: Query = task.clone().into_iter().collect();
    // The cursor of the first page: a line that is written while the other pages are read is newer than it.
    let mut first = None;
    let mut over_at: Option<Instant> = None;
    loop {
        let page = match patiently(async || grid.logs(arguments.id, &query).await).await {
            Ok(page) => page,
            Err(_) if over_at.is_some() => return printer.end(),
            Err(error) if arguments.follow => {
                away.begin();
                away.bear(error.into())?;
                away.pause().await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        away = Away::default();
        page.logs.iter().try_for_each(|log| printer.print(log))?;
        let (cursor, is_over) = first.take().unwrap_or((page.cursor, page.is_over));
        query = task.clone().into_iter().collect();
        if let Some(next) = page.next_page_token {
            query.push(("page_token", next));
            first = Some((cursor, is_over));
            continue;
        }
        over_at = is_over.then(|| over_at.unwrap_or_else(Instant::now));
        let is_at_end = over_at.is_some_and(|at| !printer.has_running() || at.elapsed() >= LAST_LINES);
        if is_at_end || !arguments.follow {
            return printer.end();
        }
        query.extend([("after", cursor), ("wait", WAIT.to_owned())]);
        if is_over || !page.logs.is_empty() {
            sleep(PAUSE).await;
        }
    }
}

/// Prints each log once, whatever comes again.
struct Printer {
    format: Format,
    printed: HashMap<(u64, AttemptId), Printed>,
}

#[derive(Default)]
struct Printed {
    /// Bytes of the stream.
    bytes: u64,
    is_running: bool,
    /// A line of a program that runs, as far as it goes.
    rest: Option<TaskLog>,
}

impl Printer {
    fn new(format: Format) -> Self {
        Self { format, printed: HashMap::new() }
    }

    /// Prints the new lines of a log, each behind its task, and the rest of a log that has ended.
    fn print(&mut self, log: &TaskLog) -> Result<(), Failure> {
        let printed = self.printed.entry((log.task, log.attempt)).or_default();
        printed.is_running = log.ended_at.is_none();
        let new = usize::try_from(printed.bytes.saturating_sub(log.omitted_bytes)).unwrap_or(usize::MAX);
        // Bytes that are no UTF-8 are replaced by a character that may be longer.
        let new = (new..=log.text.len()).find(|place| log.text.is_char_boundary(*place)).unwrap_or(log.text.len());
        let text = &log.text[new..];
        let end = if log.ended_at.is_some() { text.len() } else { text.rfind('\n').map_or(0, |place| place + 1) };
        let rest = &text[end..];
        printed.rest = (!rest.is_empty()).then(|| TaskLog { text: rest.to_owned(), ..log.clone() });
        if end == 0 {
            return Ok(());
        }
        printed.bytes = log.omitted_bytes + (new + end) as u64;
        show(self.format, TaskLog { text: text[..end].to_owned(), ..log.clone() })
    }

    /// Whether the end of a program was not told yet.
    fn has_running(&self) -> bool {
        self.printed.values().any(|printed| printed.is_running)
    }

    /// Prints the last lines of programs whose end was not told.
    fn end(self) -> Result<(), Failure> {
        let mut rests: Vec<_> = self.printed.into_values().filter_map(|printed| printed.rest).collect();
        rests.sort_unstable_by_key(|log| (log.task, log.attempt));
        rests.into_iter().try_for_each(|log| show(self.format, log))
    }
}

fn show(format: Format, log: TaskLog) -> Result<(), Failure> {
    if format == Format::Json {
        return print_json(&log);
    }
    log.text.lines().try_for_each(|line| print_line(&format!("[task {}] {}", log.task, shown(line))))
}

/// A line of a program as it may go to a terminal. Its tabs, which are harmless there, may be its indentation.
fn shown(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_indentation_and_none_of_its_control_sequences() {
        assert_eq!(shown("\t\tat  main\u{1b}[2J\u{7}\tend"), "\t\tat  main [2J\tend");
        assert_eq!(shown("10%\r20%"), "10% 20%");
    }
}
