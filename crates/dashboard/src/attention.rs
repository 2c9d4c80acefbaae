//! The overview's list of conditions that need attention.

use api::{Job, KafkaStats, Stats, WorkerSummary};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::columns::{short_id, worker_name};
use crate::marks;
use crate::overview::{Failures, Overview};
use crate::words::{ago, bytes, count, counted, cut};

/// Entries of one sort that are listed.
const SHOWN: usize = 3;

/// More changes than this that wait for the store are listed: more than a commit takes, and fewer than make the coordinator hold
/// work back.
const MANY_CHANGES: u64 = 10_000;

/// More events than this that wait to be published are listed: more than are on their way at once.
const MANY_EVENTS: u64 = 10_000;

/// Longest reason of a failure that is shown, in characters.
const SHOWN_CHARS: usize = 300;

/// An entry of the list. Its id keeps its place while the list changes.
struct AttentionEntry {
    id: String,
    is_failure: bool,
    mark: Markup,
    text: Markup,
}

impl AttentionEntry {
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
                    @for AttentionEntry { id, mark, text, .. } in &entries { li id=(format!("attention-{id}")) { (mark) div { (text) } } }
                }
            }
        }
    }
}

/// Failures first.
fn entries(overview: &Overview<'_>, now: Timestamp) -> Vec<AttentionEntry> {
    let mut entries = Vec::new();
    match overview.stats {
        Some(stats) => {
            of_stats(stats, &mut entries);
            of_demand(stats, overview.stuck, &mut entries);
        }
        None => entries.push(AttentionEntry::failure(
            "leader",
            "no leader",
            html! { "No coordinator leads now: no task is given out, and counts are not known. " a href="/grid/coordinators" { "Coordinators" } },
        )),
    }
    of_suspended(overview.suspended, &mut entries);
    for failures in overview.failed.iter().take(SHOWN) {
        entries.push(of_failures(failures, now));
    }
    if overview.failed.len() > SHOWN {
        let text = html! { a href="/jobs?state=failed" { "More jobs" } " failed in the last hour." };
        entries.push(AttentionEntry::failure("failed-more", "failed", text));
    }
    entries.sort_by_key(|entry| !entry.is_failure);
    entries
}

fn of_stats(stats: &Stats, entries: &mut Vec<AttentionEntry>) {
    if let Some(error) = &stats.store_error {
        entries.push(AttentionEntry::failure("store", "storage", html! { (error) }));
    }
    if stats.unreadable_jobs > 0 {
        let jobs = counted(stats.unreadable_jobs, "stored job", "stored jobs");
        let text = html! { (jobs) " cannot be read by this version and wait for one that can. The log of the coordinator that leads names them." };
        entries.push(AttentionEntry::failure("unreadable", "unreadable", text));
    }
    if stats.store_backlog > MANY_CHANGES {
        let text = html! { (count(stats.store_backlog)) " changes wait for the store: the work that they record would be done again after a crash." };
        entries.push(AttentionEntry::warning("backlog", "storage", text));
    }
    if let Some(disk) = stats.disk.filter(|disk| disk.is_low()) {
        let text = html! {
            (bytes(disk.free_bytes)) " of " (bytes(disk.total_bytes)) " are free on the disk with the data directory. "
            "New jobs are refused once it is full: enlarge it, delete other files, or lower " code { "DIVVY_RETENTION_BYTES" } "."
        };
        entries.push(AttentionEntry::warning("disk", "disk", text));
    }
    if let Some(kafka) = &stats.kafka {
        of_kafka(kafka, entries);
    }
}

fn of_suspended(suspended: &[&WorkerSummary], entries: &mut Vec<AttentionEntry>) {
    for WorkerSummary { id, suspension, .. } in suspended.iter().take(SHOWN) {
        let text = html! {
            a href="/grid/workers" { (worker_name(id.as_str())) } " gets no tasks for now"
            @if let Some(suspension) = suspension { ": " (suspension.reason) } "."
        };
        entries.push(AttentionEntry::warning(format!("worker-{id}"), "suspended", text));
    }
    let more = suspended.len().saturating_sub(SHOWN) as u64;
    if more > 0 {
        let text = html! { a href="/grid/workers" { (counted(more, "more worker", "more workers")) } " set aside." };
        entries.push(AttentionEntry::warning("worker-more", "suspended", text));
    }
}

/// An entry for each kind whose tasks no worker can run, with the reasons beside it: a reason is told once.
fn of_demand(stats: &Stats, stuck: &[Job], entries: &mut Vec<AttentionEntry>) {
    let unservable = || stats.demand.iter().filter(|(_, demand)| demand.unservable > 0);
    let tasks: u64 = unservable().map(|(_, demand)| demand.unservable).sum();
    if stats.workers.ready + stats.workers.pulling == 0 && tasks > 0 {
        let text = html! {
            a href="/jobs?state=queued&state=running" { (counted(tasks, "task waits", "tasks wait")) } ", and no "
            a href="/grid/workers" { "worker" } " is ready."
        };
        return entries.push(AttentionEntry::warning("workers", "no worker", text));
    }
    for (kind, demand) in unservable() {
        let mut told: Vec<&Job> = Vec::new();
        for job in stuck.iter().filter(|job| job.kind.as_str() == kind) {
            if told.iter().all(|other| other.notice != job.notice) {
                told.push(job);
            }
        }
        let text = html! {
            a href=(format!("/jobs?state=queued&state=running&kind={kind}")) { (counted(demand.unservable, "task", "tasks")) " of " (kind) }
            " can be run by no worker that is ready."
            @for job in told.into_iter().take(SHOWN) {
                @if let Some(notice) = &job.notice { div.reason { (link(job)) ": " (notice) } }
            }
        };
        entries.push(AttentionEntry::warning(format!("unservable-{kind}"), "cannot run", text));
    }
}

fn of_failures(failures: &Failures, now: Timestamp) -> AttentionEntry {
    let Failures { newest: job, others, is_more } = failures;
    let text = html! {
        (link(job))
        @if *others > 0 {
            " and " a href=(format!("/jobs?state=failed&kind={}", job.kind)) { @if *is_more { "at least " } (count(*others)) " more" }
        }
        " " span.quiet { (ago(job.finished_at.unwrap_or(job.submitted_at), now)) " · " }
        bdi { (cut(SHOWN_CHARS, job.error.as_deref().unwrap_or("no reason given"))) }
    };
    AttentionEntry::failure(format!("failed-{}", job.id), "failed", text)
}

fn of_kafka(kafka: &KafkaStats, entries: &mut Vec<AttentionEntry>) {
    for (part, error) in &kafka.errors {
        entries.push(AttentionEntry::failure(format!("kafka-{part}"), "kafka", html! { (part) ": " (error) }));
    }
    if kafka.unpublished_events > MANY_EVENTS {
        let text = html! { (count(kafka.unpublished_events)) " events wait to be published." };
        entries.push(AttentionEntry::warning("kafka-lag", "kafka", text));
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
            entries.push(AttentionEntry::warning(id, "kafka", html! { (counted(number, one, many)) "." }));
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

    use api::{DiskStats, KindDemand, WorkerState};
    use serde_json::json;

    use super::*;
    use crate::samples::{job, worker};

    const EMPTY: Overview<'_> =
        Overview { stats: None, history: &[], running: &[], stuck: &[], failed: &[], slots: (0, 0), suspended: &[] };

    fn listed(overview: &Overview<'_>) -> String {
        attention(overview, Timestamp::UNIX_EPOCH).into_string()
    }

    fn shown(stats: Option<&Stats>) -> String {
        listed(&Overview { stats, ..EMPTY })
    }

    fn with_demand(ready: u64, unservable: &[(&str, u64)]) -> Stats {
        let demand = |unservable: u64| KindDemand { unservable, ..KindDemand::default() };
        let demand = unservable.iter().map(|(kind, tasks)| ((*kind).to_owned(), demand(*tasks))).collect();
        let mut stats = Stats { demand, ..Stats::default() };
        stats.workers.ready = ready;
        stats
    }

    #[test]
    fn the_reason_of_a_failure_is_told_by_its_beginning() {
        let newest = job(1, &json!({"state": "failed", "error": "x".repeat(1_000)}));
        let failed = [Failures { newest, others: 0, is_more: false }];
        let html = listed(&Overview { failed: &failed, ..EMPTY });
        assert!(html.contains(&format!("<bdi>{}…</bdi>", "x".repeat(SHOWN_CHARS))), "{html}");
    }

    #[test]
    fn a_calm_grid_needs_no_attention() {
        let stats = Stats { kafka: Some(KafkaStats::default()), ..Stats::default() };
        assert!(shown(Some(&stats)).contains("Nothing at the moment"));
    }

    #[test]
    fn a_disk_is_told_of_while_little_of_it_is_free() {
        const GIB: u64 = 1 << 30;
        let with = |free_bytes, total_bytes| {
            shown(Some(&Stats { disk: Some(DiskStats { free_bytes, total_bytes }), ..Stats::default() }))
        };
        for (free, total) in [(5 * GIB, 500 * GIB), (GIB, 8 * GIB), (0, 0)] {
            assert!(with(free, total).contains("Nothing at the moment"), "{free} of {total}");
        }
        for (free, total, told) in [
            (5 * GIB - 1, 500 * GIB, " of 500 GiB are free"),
            (GIB - 1, 8 * GIB, " of 8 GiB are free"),
            (0, 8 << 20, "0 B of 8 MiB are free"),
        ] {
            let html = with(free, total);
            assert!(html.contains("attention-disk") && html.contains(told), "{html}");
        }
    }

    #[test]
    fn stored_jobs_that_cannot_be_read_are_counted() {
        let one = shown(Some(&Stats { unreadable_jobs: 1, ..Stats::default() }));
        assert!(one.contains("1 stored job cannot be read by this version"), "{one}");
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
    fn work_that_no_worker_can_run_is_told_of_once_with_its_reasons() {
        let stuck = [
            job(1, &json!({"notice": "the label gpu=yes"})),
            job(2, &json!({"notice": "the label gpu=yes"})),
            job(3, &json!({"notice": "64 cores"})),
            job(4, &json!({"kind": "tasks", "notice": "the only ready worker does not run jobs of the kind tasks"})),
        ];
        let stats = with_demand(2, &[("sleep", 70), ("tasks", 1)]);
        let html = listed(&Overview { stats: Some(&stats), stuck: &stuck, ..EMPTY });
        assert_eq!(html.matches("<li id=").count(), 2, "{html}");
        for (reason, times) in [
            ("the label gpu=yes", 1),
            ("64 cores", 1),
            ("the only ready worker does not run jobs of the kind tasks", 1),
        ] {
            assert_eq!(html.matches(reason).count(), times, "{reason}: {html}");
        }
        let stats = with_demand(0, &[("sleep", 70), ("tasks", 1)]);
        let html = listed(&Overview { stats: Some(&stats), stuck: &stuck, ..EMPTY });
        assert!(html.contains("71 tasks wait") && html.matches("<li id=").count() == 1, "{html}");
    }

    #[test]
    fn tasks_that_are_paused_or_have_simulated_workers_are_no_reason_to_look_for_a_worker() {
        let mut stats = with_demand(0, &[("sleep", 0)]);
        stats.tasks.pending = 1_000;
        assert!(shown(Some(&stats)).contains("Nothing at the moment"));
    }

    #[test]
    fn failures_for_one_reason_are_one_entry_and_what_is_not_listed_is_told_of() {
        let failures = |number: u128, others: u64| Failures {
            newest: job(number, &json!({"state": "failed", "error": "its only task failed"})),
            others,
            is_more: others > 90,
        };
        let failed = [failures(1, 0), failures(2, 4), failures(3, 97), failures(4, 0)];
        let workers = ["a", "b", "c", "d", "e"].map(|name| worker(name, WorkerState::Suspended));
        let suspended: Vec<_> = workers.iter().collect();
        let html = listed(&Overview { failed: &failed, suspended: &suspended, ..EMPTY });
        for expected in [
            ">4 more</a>",
            ">at least 97 more</a>",
            "More jobs</a> failed",
            "</a> gets no tasks for now: it failed a lease.",
            "2 more workers</a> set aside",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        assert_eq!(html.matches("and <a").count(), 2, "{html}");
    }

    #[test]
    fn a_grid_without_a_leader_says_so() {
        assert!(shown(None).contains("No coordinator leads now"));
    }
}
