//! The task stream: a row for each slot, a bar for each lease.

use maud::{Markup, html};
use serde::Serialize;

use crate::assets::STREAM;
use crate::columns::{bar, worker_name};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::words::{count, counted, percent, span};

/// The windows of time that the stream shows, in seconds.
pub const WINDOWS: [u32; 6] = [30, 60, 300, 900, 1_800, 3_600];

/// A window of the stream. Times are milliseconds from its start.
#[derive(Debug, Default, Serialize)]
pub struct TaskStream {
    /// Length of the window in seconds.
    pub seconds: u32,
    /// End of the window, in milliseconds since 1970.
    pub ends_at_ms: i64,
    /// The slots with a lease in it, by name.
    pub rows: Vec<StreamRow>,
    /// Slots that had one too and for which there is no room.
    pub hidden_rows: usize,
    /// Leases that are in no row, since there were too many to keep the slot of each.
    pub uncounted_leases: u64,
    /// The jobs that bars refer to by their place: id and kind.
    pub jobs: Vec<(String, String)>,
    /// The bars, in the order of their start.
    pub bars: Vec<StreamBar>,
    /// Whether a bar stands for several leases.
    pub is_aggregated: bool,
}

/// The leases of one slot in the window.
#[derive(Debug, Default, Serialize)]
pub struct StreamRow {
    /// The worker.
    pub worker: String,
    /// Index of the slot, from 0.
    pub slot: u32,
    /// Time with a lease, in milliseconds.
    pub busy_ms: u64,
    /// Leases that ended.
    pub leases: u64,
    /// Failed leases.
    pub failed: u64,
    /// Leases whose tasks had another lease at their start, or one before that failed.
    pub seconds: u64,
}

/// A lease, or several of them. As JSON it is a list, since there are thousands.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(into = "[u64; 9]")]
pub struct StreamBar {
    /// Index of the row.
    pub row: usize,
    /// Start of the bar, in milliseconds.
    pub start_ms: u64,
    /// Length of the bar, in milliseconds.
    pub length_ms: u64,
    /// Index of the job.
    pub job: usize,
    /// Leases that it stands for.
    pub leases: u64,
    /// Failed leases.
    pub failed: u64,
    /// Second attempts among them.
    pub seconds: u64,
    /// Share of its length in which the slot was busy, in percent.
    pub busy: u64,
    /// Tasks of a single lease; 0 where it stands for several.
    pub tasks: u64,
}

impl From<StreamBar> for [u64; 9] {
    fn from(bar: StreamBar) -> Self {
        let StreamBar { row, start_ms, length_ms, job, leases, failed, seconds, busy, tasks } = bar;
        [row as u64, start_ms, length_ms, job as u64, leases, failed, seconds, busy, tasks]
    }
}

/// The page at `/task-stream`.
#[must_use]
pub fn task_stream_page(viewer: &Viewer, stream: &TaskStream) -> Markup {
    let seconds = stream.seconds;
    let content = html! {
        div.title {
            h1 { "Task stream" }
            nav.choices aria-label="Window of time" {
                @for window in WINDOWS {
                    a href=(format!("/task-stream?seconds={window}")) aria-current=[(window == seconds).then_some("true")] {
                        (span(std::time::Duration::from_secs(window.into())))
                    }
                }
            }
        }
        section #stream data-keep="" data-seconds=(seconds) data-slow=[(seconds > LONG).then_some("")] hidden {
            div.keys {
                span.quiet { "A row is a slot, a bar a lease, a color a job. Times in UTC." }
                (sign("failed", &html! { rect.fails width="20" height="12" {} path d="M3 9 9 3M11 9 17 3" {} }))
                (sign("second attempt", &html! { rect.seconds x="1" y="1" width="18" height="10" {} }))
                (sign("stopped", &html! { rect.stops width="20" height="12" {} }))
                span.zoom role="group" aria-label="Zoom" {
                    button type="button" data-zoom="in" aria-label="Zoom in" { "+" }
                    button type="button" data-zoom="out" aria-label="Zoom out" { "−" }
                    button type="button" data-zoom="all" { "All" }
                }
            }
            canvas tabindex="0" role="img" aria-label=(CANVAS) {}
            p.lease {
                output aria-live="polite" { "Point at a bar, click to keep it, or walk through them with the arrow keys. Ctrl or Shift and the wheel zoom." }
                " " a #lease-job hidden { "Its job" }
            }
            p.quiet #stream-jobs {}
            p.quiet #stream-note {}
        }
        section {
            h2 { "Slots in this window" }
            (table(stream))
        }
        script src=(STREAM.path) defer {}
    };
    page(&Page { title: "Task stream", place: NavigationPage::Stream, is_live: true, viewer }, &content)
}

/// Windows that are longer, in seconds, are slow to gather.
const LONG: u32 = 300;

/// The text alternative of the canvas.
const CANVAS: &str = "Leases of each slot over time. Arrow keys walk through the leases, + and − zoom, 0 shows all, Enter opens the lease's job, Escape \
                      leaves it. The table below has the figures.";

fn sign(name: &str, shape: &Markup) -> Markup {
    html! { span { svg.sign viewBox="0 0 20 12" aria-hidden="true" { (shape) } " " (name) } }
}

fn table(stream: &TaskStream) -> Markup {
    let whole = u64::from(stream.seconds) * 1_000;
    html! {
        @if stream.rows.is_empty() { p.empty #slots-none { "No slot had a lease in this window." } } @else {
            table.slots #slots {
                thead { tr { th { "Slot" } th { "Busy" } th.num { "Leases" } th.num { "Failed" } th.num.wide { "Second attempts" } } }
                tbody data-rows="" {
                    @for row in &stream.rows {
                        tr id=(format!("slot-{}-{}", row.worker, row.slot)) {
                            td.worker { (worker_name(&row.worker)) " " span.quiet { "slot " (row.slot) } }
                            td { (busy(row.busy_ms.min(whole), whole)) }
                            td.num { (count(row.leases)) }
                            td.num { @if row.failed > 0 { span.bad { (count(row.failed)) } } @else { "0" } }
                            td.num.wide { (count(row.seconds)) }
                        }
                    }
                }
            }
            @if stream.hidden_rows > 0 {
                p.quiet { (counted(stream.hidden_rows as u64, "more slot", "more slots")) " had leases; the busiest " (stream.rows.len()) " are shown." }
            }
            @if stream.uncounted_leases > 0 {
                p.quiet #slots-uncounted { (counted(stream.uncounted_leases, "lease is", "leases are")) " not in these figures: there were more slots than are kept." }
            }
        }
    }
}

fn busy(part_ms: u64, whole_ms: u64) -> Markup {
    html! {
        div.progress {
            (bar(&[(part_ms, "running")], whole_ms))
            span.figures { (percent(part_ms, whole_ms)) " %" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn long_windows_are_slow_to_gather() {
        let shown = |seconds| {
            let stream = TaskStream { seconds, ..TaskStream::default() };
            task_stream_page(&samples::viewer(), &stream).0.contains("data-slow")
        };
        assert_eq!(WINDOWS.map(shown), [false, false, false, true, true, true]);
    }

    #[test]
    fn leases_that_are_in_no_row_are_told_of() {
        let shown = |uncounted_leases| {
            let row = StreamRow { worker: "one".to_owned(), ..StreamRow::default() };
            let stream = TaskStream { seconds: 60, rows: vec![row], uncounted_leases, ..TaskStream::default() };
            task_stream_page(&samples::viewer(), &stream).0
        };
        assert!(shown(1_200).contains("1,200 leases are not in these figures"));
        assert!(!shown(0).contains("slots-uncounted"));
    }
}
