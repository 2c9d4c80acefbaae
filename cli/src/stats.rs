//! `divvy stats`.

use api::{KafkaStats, Stats};

use crate::arguments::{self, Format};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line, print_table};
use crate::table::{Cell, Table};
use crate::words::{figure, memory};

pub(crate) async fn run(arguments: &arguments::Stats) -> Result<(), Failure> {
    let grid = arguments.grid.url.client()?;
    let stats = patiently(async || grid.stats().await).await?;
    match arguments.grid.output {
        Format::Table => print_table(&stats_table(&stats)),
        Format::Json => print_json(&stats),
        Format::Quiet => print_line(&stats.demand_of_all().runnable.to_string()),
    }
}

fn stats_table(stats: &Stats) -> Table<2> {
    let Stats { tasks, workers, .. } = stats;
    let demand = stats.demand_of_all();
    let by_state = stats.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
    let by_priority = stats.queue_depth_by_priority.iter().rev();
    let by_priority =
        by_priority.map(|(priority, depth)| format!("{priority}: {depth}")).collect::<Vec<_>>().join(", ");
    let simulated = if workers.simulated == 0 { String::new() } else { format!(", {} simulated", workers.simulated) };
    let mut table = Table::without_head();
    for (name, value) in [
        ("jobs under way", if by_state.is_empty() { "none".to_owned() } else { by_state }),
        (
            "their tasks",
            format!(
                "{} pending, {} running, {} succeeded, {} failed",
                tasks.pending, tasks.running, tasks.succeeded, tasks.failed
            ),
        ),
        (
            "pending tasks",
            format!(
                "{} runnable, {} paused, {} that no worker can run",
                demand.runnable, demand.paused, demand.unservable
            ),
        ),
        ("wanted slots", stats.wanted_slots.to_string()),
        ("queue by priority", if by_priority.is_empty() { "empty".to_owned() } else { by_priority }),
        (
            "workers",
            format!(
                "{} ready, {} suspended, {} draining, {} pulling{simulated}",
                workers.ready, workers.suspended, workers.draining, workers.pulling
            ),
        ),
        ("slots", workers.slots.to_string()),
        ("leases", format!("{}, computed or next at a slot", workers.leases)),
        (
            "throughput",
            format!("{} tasks/s, {} numbers/s", figure(stats.tasks_per_second), figure(stats.numbers_per_second)),
        ),
        (
            "store backlog",
            match &stats.store_error {
                Some(error) => format!("{}: {error}", stats.store_backlog),
                None => stats.store_backlog.to_string(),
            },
        ),
    ] {
        table.push([Cell::new(name), Cell::new(value)]);
    }
    for (name, value) in if_known(stats) {
        table.push([Cell::new(name), Cell::new(value)]);
    }
    table
}

/// Figures that not every grid has.
fn if_known(stats: &Stats) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if stats.unreadable_jobs > 0 {
        lines.push(("unreadable jobs", format!("{}: the leader's log names them", stats.unreadable_jobs)));
    }
    if let Some(disk) = stats.disk {
        let low = if disk.is_low() { ": low" } else { "" };
        lines.push(("disk", format!("{} free of {}{low}", memory(disk.free_bytes), memory(disk.total_bytes))));
    }
    if let Some(kafka) = &stats.kafka {
        let KafkaStats { unpublished_events, lost_events, records_missed, records_dead, .. } = kafka;
        let events = format!("unpublished events: {unpublished_events}, lost events: {lost_events}");
        let figures = format!("{events}, missed records: {records_missed}, dead letters: {records_dead}");
        lines.push(("kafka", figures));
        lines.extend(kafka.errors.iter().map(|(part, error)| ("kafka error", format!("{part}: {error}"))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use api::{DiskStats, KindDemand};

    use super::*;

    #[test]
    fn figures_are_named_and_the_highest_priority_stands_first() {
        let mut stats = Stats { tasks_per_second: 12.5, numbers_per_second: 3e7, ..Stats::default() };
        assert!(stats_table(&stats).render(false).contains("\nqueue by priority  empty\n"));
        stats.jobs.insert("running".to_owned(), 2);
        stats.queue_depth_by_priority.extend([(1, 10), (9, 3)]);
        let sleep = KindDemand { runnable: 13, paused: 4, unservable: 2, running: 1, wanted_slots: 14 };
        stats.demand.insert("sleep".to_owned(), sleep);
        stats.wanted_slots = 14;
        stats.workers.simulated = 24;
        stats.disk = Some(DiskStats { free_bytes: 40 << 30, total_bytes: 100 << 30 });
        stats.unreadable_jobs = 2;
        (stats.store_backlog, stats.store_error) = (7, Some("the disk is full".to_owned()));
        let text = stats_table(&stats).render(false);
        for line in [
            "jobs under way     2 running",
            "pending tasks      13 runnable, 4 paused, 2 that no worker can run",
            "wanted slots       14",
            "workers            0 ready, 0 suspended, 0 draining, 0 pulling, 24 simulated",
            "queue by priority  9: 3, 1: 10",
            "throughput         12.5 tasks/s, 30.0M numbers/s",
            "store backlog      7: the disk is full",
            "disk               40.0 GiB free of 100.0 GiB",
            "unreadable jobs    2: the leader's log names them",
        ] {
            assert!(text.lines().any(|there| there == line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_disk_that_is_nearly_full_and_kafka_are_told_where_the_grid_has_them() {
        let without = stats_table(&Stats::default()).render(false);
        assert!(["disk", "unreadable", "kafka"].iter().all(|part| !without.contains(part)), "{without}");
        let mut kafka = KafkaStats { unpublished_events: 5, records_dead: 1, ..KafkaStats::default() };
        kafka.errors.insert("publisher".to_owned(), "no broker answers".to_owned());
        let disk = DiskStats { free_bytes: 3 << 29, total_bytes: 100 << 30 };
        let text = stats_table(&Stats { disk: Some(disk), kafka: Some(kafka), ..Stats::default() }).render(false);
        for line in [
            "disk               1.5 GiB free of 100.0 GiB: low",
            "kafka              unpublished events: 5, lost events: 0, missed records: 0, dead letters: 1",
            "kafka error        publisher: no broker answers",
        ] {
            assert!(text.lines().any(|there| there == line), "{line:?} in\n{text}");
        }
    }
}
