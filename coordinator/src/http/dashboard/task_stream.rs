//! `/task-stream` and `/task-stream/data`: the activity of the slots, from the log of leases.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{StreamBar, StreamRow, TaskStream, WINDOWS, task_stream_page};
use model::{JobId, JobKind};

use super::super::State;
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};
use crate::clock::now;
use crate::lease_log::{End, LeaseLog, Logged, Recent, STEP};

/// Rows that a page shows.
const MAX_ROWS: usize = 100;

/// Bars that are drawn individually; beyond that bars are merged.
const MAX_BARS: usize = 3_000;

/// Columns of merged bars.
const COLUMNS: u32 = 120;

pub(super) async fn show(state: Data<State>, request: HttpRequest, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let version = dashboard.version(&*dashboard.snapshot(&state).await?);
    let stream = look(&state.lease_log, window(request.query_string()));
    Ok(html(StatusCode::OK, &task_stream_page(&visit.viewer(&version), &stream)))
}

pub(super) async fn data(state: Data<State>, request: HttpRequest) -> HttpResponse {
    let stream = look(&state.lease_log, window(request.query_string()));
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(stream)
}

fn window(query: &str) -> u32 {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let wanted = fields.iter().find(|(name, _)| name == "seconds").and_then(|(_, value)| value.parse().ok());
    wanted.filter(|seconds| WINDOWS.contains(seconds)).unwrap_or(60)
}

/// The rows and bars of a window.
struct Gathering<'a> {
    log: &'a Recent,
    start: Instant,
    now: Instant,
    rows: HashMap<usize, StreamRow>,
    jobs: HashMap<JobId, usize>,
    names: Vec<(String, String)>,
    /// The bars, with the number of the slot in place of the row.
    bars: Vec<StreamBar>,
    /// Leases whose slots a step has not kept.
    uncounted: u64,
}

/// The stream of a window that ends now. No lease waits for more than a copy of the log.
fn look(log: &LeaseLog, seconds: u32) -> TaskStream {
    let window = Duration::from_secs(seconds.into());
    let (now, start, log) = log.view(|log| {
        let now = Instant::now();
        let start = now.checked_sub(window).unwrap_or(now);
        (now, start, log.recent(start))
    });
    let leases = log.leases();
    let (rows, jobs, names, bars) = (HashMap::new(), HashMap::new(), Vec::new(), Vec::new());
    let mut gathering = Gathering { log: &log, start, now, rows, jobs, names, bars, uncounted: 0 };
    let since = log.complete_since.filter(|since| *since > start);
    let is_aggregated = leases.len() > MAX_BARS || since.is_some();
    if is_aggregated {
        // The first step from which on the log has every lease individually.
        let starts = || log.steps.iter().map(|step| step.start);
        let from = since.map(|since| starts().find(|start| *start >= since).unwrap_or(now));
        gathering.add_steps(from.unwrap_or(start));
        gathering.add_columns(&leases, from.unwrap_or(start), window / COLUMNS);
    } else {
        leases.iter().for_each(|lease| gathering.add(lease));
    }
    gathering.finish(seconds, is_aggregated)
}

impl Gathering<'_> {
    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn job(&mut self, id: JobId, kind: JobKind) -> usize {
        let next = self.names.len();
        *self.jobs.entry(id).or_insert_with(|| {
            self.names.push((id.to_string(), kind.to_string()));
            next
        })
    }

    fn count(&mut self, slot: usize, busy_ms: u64, leases: u64, failed: u64, seconds: u64) {
        let row = self.rows.entry(slot).or_default();
        row.busy_ms += busy_ms;
        row.leases += leases;
        row.failed += failed;
        row.seconds += seconds;
    }

    /// Adds a lease as a bar of its own.
    fn add(&mut self, lease: &Logged) {
        let (start_ms, end_ms) =
            (self.milliseconds(lease.start), self.milliseconds(lease.end.map_or(self.now, |(end, _)| end)));
        let length_ms = end_ms.saturating_sub(start_ms);
        let has_failed = lease.end.is_some_and(|(_, end)| end == End::Failed);
        // A stopped lease is drawn hollow.
        let busy = if lease.end.is_some_and(|(_, end)| end == End::Stopped) { 0 } else { 100 };
        let (job, seconds) = (self.job(lease.job, lease.kind), u64::from(lease.is_second));
        self.count(lease.slot, length_ms, u64::from(lease.end.is_some()), u64::from(has_failed), seconds);
        let (failed, tasks) = (u64::from(has_failed), lease.tasks);
        self.bars.push(StreamBar {
            row: lease.slot,
            start_ms,
            length_ms,
            job,
            leases: 1,
            failed,
            seconds,
            busy,
            tasks,
        });
    }

    /// Adds the activity of the slots in the steps that begin before `until`.
    fn add_steps(&mut self, until: Instant) {
        let log = self.log;
        for step in log.steps.iter().filter(|step| step.start < until) {
            self.uncounted += step.uncounted;
            for (slot, share) in &step.shares {
                let job = self.job(share.job, share.kind);
                let busy_ms = u64::try_from(share.busy.as_millis()).unwrap_or(u64::MAX);
                let (leases, failed, seconds) = (share.leases.into(), share.failed.into(), share.seconds.into());
                self.count(*slot, busy_ms, leases, failed, seconds);
                let (start_ms, length_ms) = (self.milliseconds(step.start), STEP.as_millis() as u64);
                let busy = (busy_ms * 100 / length_ms).max(1);
                self.bars.push(StreamBar {
                    row: *slot,
                    start_ms,
                    length_ms,
                    job,
                    leases,
                    failed,
                    seconds,
                    busy,
                    tasks: 0,
                });
            }
        }
    }

    /// Adds leases merged by slot and column.
    fn add_columns(&mut self, leases: &[Logged], from: Instant, width: Duration) {
        let width_ms = u64::try_from(width.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut columns: BTreeMap<(u64, usize), StreamBar> = BTreeMap::new();
        for lease in leases {
            let (start, end) = (lease.start.max(from), lease.end.map_or(self.now, |(end, _)| end));
            if end < from {
                continue;
            }
            let job = self.job(lease.job, lease.kind);
            let (start_ms, end_ms) = (self.milliseconds(start), self.milliseconds(end).max(self.milliseconds(start)));
            let has_failed = u64::from(lease.end.is_some_and(|(_, end)| end == End::Failed));
            let (has_ended, is_second) = (u64::from(lease.end.is_some()), u64::from(lease.is_second));
            self.count(lease.slot, end_ms - start_ms, has_ended, has_failed, is_second);
            let last = end_ms / width_ms;
            for column in start_ms / width_ms..=last {
                let left = column * width_ms;
                let none = StreamBar {
                    row: lease.slot,
                    start_ms: left,
                    length_ms: width_ms,
                    job,
                    leases: 0,
                    failed: 0,
                    seconds: 0,
                    busy: 0,
                    tasks: 0,
                };
                let bar = columns.entry((column, lease.slot)).or_insert(none);
                let covered = end_ms.min(left + width_ms).saturating_sub(start_ms.max(left));
                // Milliseconds until all leases are added, percent then.
                bar.busy += covered;
                if column == last {
                    (bar.leases, bar.failed, bar.seconds) =
                        (bar.leases + has_ended, bar.failed + has_failed, bar.seconds + is_second);
                }
            }
        }
        let to_percent = |bar: StreamBar| StreamBar { busy: (bar.busy * 100 / width_ms).clamp(1, 100), ..bar };
        self.bars.extend(columns.into_values().map(to_percent));
    }

    /// The busiest slots, in the order of their names, with their bars.
    fn finish(self, seconds: u32, is_aggregated: bool) -> TaskStream {
        let Self { log, rows, names, mut bars, uncounted, .. } = self;
        let mut rows: Vec<(usize, StreamRow)> = rows.into_iter().collect();
        rows.sort_by_key(|(slot, row)| (std::cmp::Reverse(row.busy_ms), *slot));
        let hidden_rows = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        for (number, row) in &mut rows {
            let Some((worker, slot)) = log.slots.get(*number) else { continue };
            (row.worker, row.slot) = (worker.to_string(), *slot);
        }
        rows.sort_by(|(_, one), (_, other)| {
            natural(&one.worker).cmp(&natural(&other.worker)).then(one.slot.cmp(&other.slot))
        });
        let places: HashMap<usize, usize> = rows.iter().enumerate().map(|(place, (slot, _))| (*slot, place)).collect();
        bars.retain_mut(|bar| places.get(&bar.row).map(|place| bar.row = *place).is_some());
        bars.sort_by_key(|bar| (bar.start_ms, bar.row));
        let ends_at_ms = now().at.as_millisecond();
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        let (jobs, uncounted_leases) = (jobs_of(&mut bars, &names), uncounted);
        TaskStream { seconds, ends_at_ms, rows, hidden_rows, uncounted_leases, jobs, bars, is_aggregated }
    }
}

/// The jobs that bars refer to, and no others: a window may have as many jobs as leases. Each bar gets its job's new place.
fn jobs_of(bars: &mut [StreamBar], names: &[(String, String)]) -> Vec<(String, String)> {
    let (mut places, mut jobs) = (HashMap::new(), Vec::new());
    for bar in bars {
        let before = bar.job;
        bar.job = *places.entry(before).or_insert_with(|| {
            jobs.push(names[before].clone());
            jobs.len() - 1
        });
    }
    jobs
}

/// The sort key of a name: `worker-2` comes before `worker-10`.
fn natural(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::lease_log::Begun;
    use model::{AttemptId, WorkerId};

    fn lease(log: &LeaseLog, number: u128, slot: u32, from: Instant, to: Instant) {
        lease_of(log, JobId(Uuid::nil()), number, slot, from, to);
    }

    fn lease_of(log: &LeaseLog, job: JobId, number: u128, slot: u32, from: Instant, to: Instant) {
        let worker: WorkerId = "w".parse().expect("a name");
        let attempt = AttemptId(Uuid::from_u128(number));
        let (kind, first) = (JobKind::SLEEP, number as u64);
        log.began(Begun { attempt, worker: &worker, slot: Some(slot), job, kind, tasks: &(first..first + 1) }, from);
        log.ended(attempt, End::Done, to);
    }

    #[test]
    fn few_leases_are_shown_one_by_one_and_many_are_put_together_without_losing_one() {
        let (log, now) = (LeaseLog::new(true), Instant::now());
        let before = |milliseconds| now.checked_sub(Duration::from_millis(milliseconds)).expect("the machine is up");
        for number in 0..10u64 {
            lease(&log, number.into(), 0, before(1_000 - number * 100), before(950 - number * 100));
        }
        let few = look(&log, 30);
        assert_eq!((few.bars.len(), few.is_aggregated, few.rows[0].leases), (10, false, 10));
        for number in 10..4_000u64 {
            lease(&log, number.into(), 1, before(4_000 - number), before(4_000 - number - 1));
        }
        let many = look(&log, 30);
        assert!(many.is_aggregated && many.bars.len() <= 2 * COLUMNS as usize + 2, "{}", many.bars.len());
        let counted: u64 = many.bars.iter().map(|bar| bar.leases).sum();
        assert_eq!((counted, many.rows.iter().map(|row| row.leases).sum::<u64>()), (4_000, 4_000));
    }

    #[test]
    fn jobs_without_a_bar_are_not_named() {
        let (log, now) = (LeaseLog::new(true), Instant::now());
        let before = |milliseconds| now.checked_sub(Duration::from_millis(milliseconds)).expect("the machine is up");
        let job = |number: u64| JobId(Uuid::from_u128(number.into()));
        for number in 0..4_000u64 {
            lease_of(&log, job(number), number.into(), 0, before(4_100 - number), before(4_099 - number));
        }
        let many = look(&log, 30);
        assert!(many.is_aggregated && many.jobs.len() <= many.bars.len(), "{} jobs", many.jobs.len());
        assert!(many.bars.iter().all(|bar| bar.job < many.jobs.len()));
        lease_of(&log, job(4_000), 4_000, 1, before(2_000), before(90));
        let named: Vec<_> = look(&log, 30).jobs.into_iter().map(|(id, _)| id).collect();
        assert!(named.contains(&job(4_000).to_string()), "it has all bars of its slot");
    }

    #[test]
    fn leases_of_slots_beyond_those_that_a_step_keeps_are_told_of() {
        let (log, now) = (LeaseLog::new(true), Instant::now());
        let before = |milliseconds| now.checked_sub(Duration::from_millis(milliseconds)).expect("the machine is up");
        for number in 0..300 {
            lease(&log, number.into(), number, before(20_010), before(20_000));
        }
        // So many leases that the log has the earlier ones only in steps.
        for number in 300..50_300 {
            lease(&log, number, 0, before(1_000), before(1_000));
        }
        let stream = look(&log, 300);
        assert_eq!((stream.is_aggregated, stream.uncounted_leases), (true, 44));
        assert_eq!(stream.rows.len() + stream.hidden_rows, 256);
    }
}
