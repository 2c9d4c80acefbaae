//! The coordinators of the grid, and which of them leads.

use api::{CoordinatorRole, CoordinatorSummary};
use maud::{Markup, html};

use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::words::{ago, counted, seen};

/// The page at `/grid/coordinators`.
#[must_use]
pub fn coordinators_page(viewer: &Viewer, coordinators: &[CoordinatorSummary]) -> Markup {
    let content = html! {
        div.title { h1 { "Coordinators" } p.quiet { (counted(coordinators.len() as u64, "coordinator", "coordinators")) } }
        @if !coordinators.iter().any(|one| one.role == CoordinatorRole::Leader) {
            p.notice { (marks::warning("no leader")) " " span { "No coordinator leads now: no task is given out." } }
        }
        table.workers.stack {
            thead { tr {
                th { "Role" } th { "Coordinator" } th.num { "Epoch" } th.num.wide { "Version" } th.num { "Started" } th.num { "Seen" }
            } }
            tbody data-rows="" { @for coordinator in coordinators { (row(viewer, coordinator)) } }
        }
    };
    page(&Page { title: "Coordinators", place: NavigationPage::Coordinators, is_live: true, viewer }, &content)
}

fn row(viewer: &Viewer, coordinator: &CoordinatorSummary) -> Markup {
    html! {
        tr id=(format!("coordinator-{}", coordinator.instance)) {
            td { (marks::coordinator_role(coordinator.role)) }
            td.worker {
                span.name { (coordinator.id) }
                div.sub { span { "for clients " (coordinator.public_address) } " · " span { "for workers " (coordinator.internal_address) } }
            }
            td.num data-label="epoch" { @match coordinator.epoch { Some(epoch) => (epoch), None => "–" } }
            td.num.wide { (coordinator.version) }
            td.num data-label="started" { (ago(coordinator.started_at, viewer.now)) }
            td.num data-label="seen" { (seen(coordinator.last_contact_ms_ago)) }
        }
    }
}
