//! `divvy job events`.

use api::client::Client;
use model::JobEvent;

use crate::arguments::{Events, Format};
use crate::failure::Failure;
use crate::follow::{EventStream, Step};
use crate::print::{print_json, print_line, tell};
use crate::printable::printable;
use crate::words::instant;

pub(super) async fn run(grid: &Client, format: Format, arguments: &Events) -> Result<(), Failure> {
    let (id, after) = (arguments.id, arguments.after);
    let mut stream = if arguments.follow {
        // A job's events start with its submission, the events of all jobs with the next one.
        EventStream::new(grid, id, after.or(id.map(|_| 0)))
    } else {
        EventStream::stored(grid, id, after.unwrap_or(0))
    };
    loop {
        match stream.next().await? {
            Step::Opened => (),
            Step::Reset(reset) => tell(&format!("warning: {reset}")),
            Step::Over => return Ok(()),
            Step::Event(event) => print_event(format, &event)?,
        }
    }
}

fn print_event(format: Format, event: &JobEvent) -> Result<(), Failure> {
    match format {
        Format::Table => print_line(&describe(event)),
        Format::Json => print_json(event),
        Format::Quiet => print_line(&event.seq.to_string()),
    }
}

/// One line of fixed columns, since later events are not known yet.
pub(crate) fn describe(event: &JobEvent) -> String {
    let mut line = format!("{:>8}  {}  {}  {:<11}", event.seq, instant(event.at), event.job, event.kind.as_str());
    if let (Some(done), Some(total)) = (event.tasks_done, event.tasks_total) {
        line.push_str(&format!("  {done}/{total}"));
    }
    if let Some(error) = &event.error {
        line.push_str("  ");
        line.push_str(&printable(error));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_of_fixed_columns() {
        let event = |json: &str| serde_json::from_str::<JobEvent>(json).map(|event| describe(&event)).expect(json);
        let id = "0190a5b0-0000-7000-8000-000000000001";
        let at = "2026-03-21T10:00:00.25Z";
        assert_eq!(
            event(&format!(r#"{{"seq":7,"job":"{id}","type":"submitted","at":"{at}"}}"#)),
            format!("       7  2026-03-21T10:00:00Z  {id}  submitted")
        );
        assert_eq!(
            event(&format!(
                r#"{{"seq":8,"job":"{id}","type":"failed","at":"{at}","tasks_done":3,"tasks_total":9,"error":"a\nb"}}"#
            )),
            format!("       8  2026-03-21T10:00:00Z  {id}  failed       3/9  a b")
        );
    }
}
