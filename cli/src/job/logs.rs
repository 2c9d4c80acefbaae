//! `divvy job logs`.

use std::collections::HashMap;
use std::time::Duration;

use api::TaskLog;
use api::client::{Client, Query};
use model::AttemptId;

use crate::arguments::{Format, Logs};
use crate::failure::Failure;
use crate::print::{print_json, print_line};

/// From one look to the next: workers report twice a second.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn run(grid: &Client, format: Format, arguments: &Logs) -> Result<(), Failure> {
    // Bytes of each attempt that are printed.
    let mut printed: HashMap<(u64, AttemptId), u64> = HashMap::new();
    loop {
        // Before the logs: what is written until the end is printed.
        let is_over = !arguments.follow || grid.job(arguments.id).await?.state.is_over();
        let mut token = None;
        loop {
            let task = arguments.task.map(|task| ("task", task.to_string()));
            let query: Query = task.into_iter().chain(token.take().map(|token| ("page_token", token))).collect();
            let page = grid.logs(arguments.id, &query).await?;
            for log in &page.logs {
                print(format, log, &mut printed)?;
            }
            match page.next_page_token {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Prints what is new of a log: whole lines, each behind its task; of one that has ended also the rest.
fn print(format: Format, log: &TaskLog, printed: &mut HashMap<(u64, AttemptId), u64>) -> Result<(), Failure> {
    let seen = printed.entry((log.task, log.attempt)).or_default();
    let new = usize::try_from(seen.saturating_sub(log.omitted_bytes)).unwrap_or(usize::MAX);
    // What is no UTF-8 may have been replaced by more bytes than it had.
    let new = (new..=log.text.len()).find(|place| log.text.is_char_boundary(*place)).unwrap_or(log.text.len());
    let text = &log.text[new..];
    let end = if log.ended_at.is_some() { text.len() } else { text.rfind('\n').map_or(0, |place| place + 1) };
    if end == 0 {
        return Ok(());
    }
    *seen = log.omitted_bytes + (new + end) as u64;
    if format == Format::Json {
        return print_json(&TaskLog { text: text[..end].to_owned(), ..log.clone() });
    }
    text[..end].lines().try_for_each(|line| print_line(&format!("[task {}] {line}", log.task)))
}
