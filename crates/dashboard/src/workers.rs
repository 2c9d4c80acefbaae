//! The workers that are there now.

use api::{Delivery, WorkerState, WorkerSummary};
use maud::{Markup, html};

use crate::columns::{bar, worker_name};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::words::{bytes, count, counted, seen, short};

/// Rows of a page. On a busy grid every viewer fetches all of them each second.
const SHOWN: usize = 200;

/// The page at `/grid/workers`: those that are set aside, then the others, each by name; from after a name on.
#[must_use]
pub fn workers_page(viewer: &Viewer, workers: &[WorkerSummary], after: Option<&str>) -> Markup {
    let (ordered, first) = ordered(workers, after);
    let rest = &ordered[first..];
    let next = rest.get(SHOWN - 1).filter(|_| rest.len() > SHOWN);
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
    let content = html! {
        div.title { h1 { "Workers" } p.quiet { (counted(workers.len() as u64, "worker", "workers")) " · " (counted(slots, "slot", "slots")) } }
        @if workers.is_empty() {
            p.empty { "No worker is there. Start one with " code { "DIVVY_COORDINATOR=http://HOST:8081 divvy-worker" } "." }
        } @else {
            table.workers.stack #workers {
                thead { tr {
                    th { "State" } th { "Worker" } th.num { "Slots" } th.wide { "Load" } th.num.wide { "Free memory" }
                    th.num.wide { "Numbers/s" } th.num { "Tasks done" } th.num { "Seen" } @if viewer.may_administer { th { "Drain" } }
                } }
                tbody data-rows="" { @for worker in rest.iter().take(SHOWN) { (row(viewer, worker)) } }
            }
            nav.pages aria-label="Pages of workers" {
                @if first > 0 { a href="/grid/workers" { "First" } }
                @if let Some(last) = next {
                    a rel="next" href=(format!("/grid/workers?{}", serde_urlencoded::to_string([("after", last.id.as_str())]).unwrap_or_default())) {
                        "Next" span.quiet { " · " (count((rest.len() - SHOWN) as u64)) " more" }
                    }
                }
            }
        }
    };
    page(&Page { title: "Workers", place: NavigationPage::Workers, is_live: true, viewer }, &content)
}

/// The workers in the order of the page, and the place of the first one after a name.
fn ordered<'a>(workers: &'a [WorkerSummary], after: Option<&str>) -> (Vec<&'a WorkerSummary>, usize) {
    let mut ordered: Vec<_> = workers.iter().collect();
    let key = |worker: &WorkerSummary| (worker.state == WorkerState::Ready, worker.id.as_str().to_owned());
    ordered.sort_by_cached_key(|worker| key(worker));
    let first = after.map_or(0, |after| match ordered.iter().position(|worker| worker.id.as_str() == after) {
        Some(place) => place + 1,
        // The worker is gone.
        None => ordered.partition_point(|worker| key(worker) <= (true, after.to_owned())),
    });
    (ordered, first)
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
                span.name { (worker_name(worker.id.as_str())) }
                div.sub {
                    @if let Some(suspension) = &worker.suspension { span { (suspension.reason) } " " }
                    @if is_pushed { @if !worker.version.is_empty() { span { "version " (worker.version) } } } @else { span { "pulls" } }
                    @if let Some(address) = worker.address { " " span { "at " (address) } }
                    @for (key, value) in &worker.labels { " " span.tag { bdi { (key) } "=" bdi { (value) } } }
                }
            }
            td.num data-label="slots" { (busy) " / " (worker.slots) }
            td.wide.load {
                @if is_pushed { div.progress { (bar(&[(load, "running")], 100)) span.figures { (load) " %" } } } @else { "–" }
            }
            td.num.wide { @if worker.free_memory_bytes > 0 { (bytes(worker.free_memory_bytes)) } @else { "–" } }
            td.num.wide { @if let Some(speed) = worker.speed_numbers_per_s { (short(to_f64(speed))) } @else { "–" } }
            td.num data-label="done" { (count(worker.completed_tasks)) }
            td.num data-label="seen" { (seen(worker.last_seen_ms_ago)) }
            @if viewer.may_administer {
                td {
                    @if worker.state != WorkerState::Draining {
                        a.button href=(format!("/grid/workers/{}/drain", worker.id)) data-ask=""
                            aria-label=(format!("Drain {}…", worker.id)) { "Drain…" }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn worker(number: usize, state: WorkerState) -> WorkerSummary {
        samples::worker(&format!("w{number:04}"), state)
    }

    #[test]
    fn a_suspended_worker_is_shown_with_the_reason() {
        let shown = |state| row(&samples::viewer(), &worker(1, state)).into_string();
        assert!(shown(WorkerState::Suspended).contains("<span>it failed a lease</span>"));
        assert!(!shown(WorkerState::Ready).contains("it failed"));
    }

    #[test]
    fn workers_that_are_set_aside_stand_first_and_the_others_come_page_by_page() {
        let state = |number| if number == 777 { WorkerState::Suspended } else { WorkerState::Ready };
        let workers: Vec<_> = (0..1_200).map(|number| worker(number, state(number))).collect();
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let (ordered, first) = ordered(&workers, after.as_deref());
            let page: Vec<_> = ordered[first..].iter().take(SHOWN).map(|worker| worker.id.to_string()).collect();
            seen.extend(page.iter().cloned());
            if first + SHOWN >= ordered.len() {
                break;
            }
            after = page.last().cloned();
        }
        assert_eq!(
            (seen.len(), seen[0].as_str(), seen[1].as_str(), seen[1_199].as_str()),
            (1_200, "w0777", "w0000", "w1199")
        );
        assert_eq!(ordered(&workers, Some("w0499x")).1, 501, "a worker that is gone leaves its place");
    }
}
