//! The workers that are there now.

use api::{Delivery, WorkerState, WorkerSummary};
use maud::{Markup, html};

use crate::columns::bar;
use crate::layout::{Page, Place, Viewer, page};
use crate::marks;
use crate::words::{bytes, count, seen, short};

/// Rows of the table; the rest is counted.
const SHOWN: usize = 500;

/// The page at `/grid/workers`.
#[must_use]
pub fn workers_page(viewer: &Viewer, workers: &[WorkerSummary]) -> Markup {
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
    let content = html! {
        div.title { h1 { "Workers" } p.quiet { (count(workers.len() as u64)) " workers · " (count(slots)) " slots" } }
        @if workers.is_empty() {
            p.empty { "No worker is there. Start one with " code { "DIVVY_COORDINATOR=http://HOST:8081 divvy-worker" } "." }
        } @else {
            table.workers.stack {
                thead { tr {
                    th { "State" } th { "Worker" } th.num { "Slots" } th.wide { "Load" } th.num.wide { "Free memory" }
                    th.num.wide { "Speed" } th.num { "Tasks done" } th.num { "Seen" } @if viewer.may_administer { th { "Drain" } }
                } }
                tbody data-rows="" { @for worker in workers.iter().take(SHOWN) { (row(viewer, worker)) } }
            }
            @if workers.len() > SHOWN { p.quiet { (count((workers.len() - SHOWN) as u64)) " more workers are not shown." } }
        }
    };
    page(&Page { title: "Workers", place: Place::Workers, is_live: true, viewer }, &content)
}

fn row(viewer: &Viewer, worker: &WorkerSummary) -> Markup {
    let busy = u64::from(worker.running.max(worker.busy.min(worker.slots)));
    let is_pushed = worker.delivery == Delivery::Pushed;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 100")]
    let load = (worker.cpu_load.clamp(0.0, 1.0) * 100.0).round() as u64;
    html! {
        tr id=(format!("worker-{}", worker.id)) {
            td { (marks::worker_state(worker.state)) }
            td.worker {
                span.name { (worker.id) }
                div.sub {
                    @if is_pushed { @if !worker.version.is_empty() { span { "version " (worker.version) } } } @else { span { "pulls" } }
                    @if let Some(address) = worker.address { " " span { (address) } }
                    @for (key, value) in &worker.labels { " " span.tag { (key) "=" (value) } }
                }
            }
            td.num { (busy) " / " (worker.slots) }
            td.wide.load {
                @if is_pushed { div.progress { (bar(&[(load, "running")], 100)) span.figures { (load) " %" } } } @else { "–" }
            }
            td.num.wide { @if worker.free_memory_bytes > 0 { (bytes(worker.free_memory_bytes)) } @else { "–" } }
            td.num.wide { @if let Some(speed) = worker.speed_numbers_per_s { (short(to_f64(speed))) "/s" } @else { "–" } }
            td.num { (count(worker.completed_tasks)) }
            td.num { (seen(worker.last_seen_ms_ago)) }
            @if viewer.may_administer {
                td {
                    @if is_pushed && worker.state != WorkerState::Draining {
                        form method="post" action=(format!("/grid/workers/{}/drain", worker.id)) {
                            button type="submit" aria-label=(format!("Drain {}", worker.id)) { "Drain" }
                        }
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
