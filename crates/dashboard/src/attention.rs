//! The list of what somebody should look at, on the overview.

use api::{Job, KafkaStats, Stats};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::columns::short_id;
use crate::marks;
use crate::overview::Overview;
use crate::words::{ago, count, counted};

/// Entries of one sort that are listed.
const SHOWN: usize = 3;

/// Changes that wait for the store from which on they are told of: more than a commit takes, and less than what makes the
/// coordinator hold work back.
const MANY_CHANGES: u64 = 10_000;

/// Events that wait to be published from which on they are told of: more than are on their way at once.
const MANY_EVENTS: u64 = 10_000;

/// One entry. Its id tells it from the others, so that it stays where it is while the list changes.
struct Entry {
    id: String,
    is_failure: bool,
    mark: Markup,
    text: Markup,
}

impl Entry {
    fn failure(id: impl Into<String>, word: &'static str, text: Markup) -> Self {
        Self { id: id.into(), is_failure: true, mark: marks::failure(word), text }
    }

    fn warning(id: impl Into<String>, word: &'static str, text: Markup) -> Self {
        Self { id: id.into(), is_failure: false, mark: marks::warning(word), text }
    }
}

pub(crate) fn attention(overview: &Overview<'_>, now: Timestamp) -> Markup {
    let entries = entries(overview, now);
    html! {
        section.attention #attention aria-labelledby="attention-title" {
            h2 #attention-title { "Needs attention" }
            @if entries.is_empty() { p.quiet #calm { "Nothing at the moment." } } @else {
                ul #needs data-rows="" {
                    @for Entry { id, mark, text, .. } in &entries { li id=(format!("attention-{id}")) { (mark) span { (text) } } }
                }
            }
        }
    }
}

/// Failures first.
fn entries(overview: &Overview<'_>, now: Timestamp) -> Vec<Entry> {
    let mut entries = Vec::new();
    match overview.stats {
        Some(stats) => of_stats(stats, &mut entries),
        None => entries.push(Entry::failure(
            "leader",
            "no leader",
            html! { "No coordinator leads now: no task is given out, and counts are not known. " a href="/grid/coordinators" { "Coordinators" } },
        )),
    }
    for worker in overview.suspended.iter().take(SHOWN) {
        let text = html! { a href="/grid/workers" { (worker) } " failed lately and gets no tasks for now." };
        entries.push(Entry::warning(format!("worker-{worker}"), "suspended", text));
    }
    for job in overview.stuck.iter().take(SHOWN) {
        let text = html! { (link(job)) ": " (job.notice.as_deref().unwrap_or("no worker can run it")) };
        entries.push(Entry::warning(format!("stuck-{}", job.id), "cannot run", text));
    }
    for job in overview.failed.iter().take(SHOWN) {
        let text = html! {
            (link(job)) " " span.quiet { (ago(job.finished_at.unwrap_or(job.submitted_at), now)) " · " }
            (job.error.as_deref().unwrap_or("no reason given"))
        };
        entries.push(Entry::failure(format!("failed-{}", job.id), "failed", text));
    }
    entries.sort_by_key(|entry| !entry.is_failure);
    entries
}

fn of_stats(stats: &Stats, entries: &mut Vec<Entry>) {
    if let Some(error) = &stats.store_error {
        entries.push(Entry::failure("store", "storage", html! { (error) }));
    }
    if stats.store_backlog > MANY_CHANGES {
        let text = html! { (count(stats.store_backlog)) " changes wait for the store: what they tell of would be done again after a crash." };
        entries.push(Entry::warning("backlog", "storage", text));
    }
    if let Some(kafka) = &stats.kafka {
        of_kafka(kafka, entries);
    }
    if stats.workers.ready + stats.workers.pulling == 0 && stats.tasks.pending > 0 {
        entries.push(Entry::warning("workers", "no worker", html! { "Tasks wait and no worker is there." }));
        // What no worker can run is all of it.
        return;
    }
    for (kind, demand) in stats.demand.iter().filter(|(_, demand)| demand.unservable > 0) {
        let text = html! {
            a href=(format!("/jobs?state=queued&state=running&kind={kind}")) { (counted(demand.unservable, "task", "tasks")) " of " (kind) }
            " can be run by no worker that is there."
        };
        entries.push(Entry::warning(format!("unservable-{kind}"), "cannot run", text));
    }
}

fn of_kafka(kafka: &KafkaStats, entries: &mut Vec<Entry>) {
    for (part, error) in &kafka.errors {
        entries.push(Entry::failure(format!("kafka-{part}"), "kafka", html! { (part) ": " (error) }));
    }
    if kafka.unpublished_events > MANY_EVENTS {
        let text = html! { (count(kafka.unpublished_events)) " events wait to be published." };
        entries.push(Entry::warning("kafka-lag", "kafka", text));
    }
    for (id, number, one, many) in [
        (
            "kafka-lost",
            kafka.lost_events,
            "event was deleted before it was published",
            "events were deleted before they were published",
        ),
        (
            "kafka-missed",
            kafka.records_missed,
            "record was deleted before it was read",
            "records were deleted before they were read",
        ),
        (
            "kafka-dead",
            kafka.records_dead,
            "record was no job, and is a dead letter",
            "records were no jobs, and are dead letters",
        ),
    ] {
        if number > 0 {
            entries.push(Entry::warning(id, "kafka", html! { (counted(number, one, many)) "." }));
        }
    }
}

fn link(job: &Job) -> Markup {
    let id = job.id.to_string();
    html! { a href=(format!("/jobs/{id}")) { (job.kind) " " (short_id(&id)) } }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::KindDemand;

    use super::*;

    fn shown(stats: Option<&Stats>) -> String {
        let overview =
            Overview { stats, history: &[], running: &[], stuck: &[], failed: &[], slots: (0, 0), suspended: &[] };
        attention(&overview, Timestamp::UNIX_EPOCH).into_string()
    }

    #[test]
    fn a_calm_grid_needs_no_attention() {
        let stats = Stats { kafka: Some(KafkaStats::default()), ..Stats::default() };
        assert!(shown(Some(&stats)).contains("Nothing at the moment"));
    }

    #[test]
    fn kafka_the_store_and_work_without_workers_are_told_of_each_by_itself() {
        let errors = BTreeMap::from([("intake".to_owned(), "the topic <jobs> is gone".to_owned())]);
        let kafka = KafkaStats { errors, unpublished_events: 20_000, records_dead: 1, ..KafkaStats::default() };
        let demand = KindDemand { unservable: 1_200, ..KindDemand::default() };
        let mut stats = Stats {
            kafka: Some(kafka),
            demand: BTreeMap::from([("tasks".to_owned(), demand)]),
            store_backlog: 12_345,
            ..Stats::default()
        };
        stats.workers.ready = 1;
        let html = shown(Some(&stats));
        for expected in [
            "intake: the topic &lt;jobs&gt; is gone",
            "20,000 events wait to be published",
            "1 record was no job",
            "12,345 changes wait for the store",
            "1,200 tasks of tasks",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        assert_eq!(html.matches("<li id=").count(), 5);
    }

    #[test]
    fn a_grid_without_a_leader_says_so() {
        assert!(shown(None).contains("No coordinator leads now"));
    }
}
