//! `/task-stream` and `/task-stream/data`: the activity of the slots, from the log of leases.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{StreamBar, StreamRow, TaskStream, WINDOWS, task_stream_page};
use model::{JobId, JobKind};
use service::ApiError;

use super::super::State;
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};
use super::shared_streams::SharedStream;
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
    let shared = shared(&state, &request)?;
    Ok(html(StatusCode::OK, &task_stream_page(&visit.viewer(&version), shared.stream())))
}

pub(super) async fn data(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, PageError> {
    let shared = shared(&state, &request)?;
    let mut response = HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(shared.json());
    shared.compressed().mark(&mut response);
    Ok(response)
}

fn shared(state: &State, request: &HttpRequest) -> Result<Arc<SharedStream>, ApiError> {
    let seconds = window(request.query_string());
    Ok(dashboard_of(state)?.streams.get(seconds, Instant::now(), || look(&state.lease_log, seconds)))
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
    /// The figures of each slot.
    figures: HashMap<usize, StreamRow>,
    /// The rows of the slots that are drawn.
    places: HashMap<usize, usize>,
    jobs: HashMap<JobId, usize>,
    names: Vec<(String, String)>,
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
    stream_of(&log, start, now, seconds)
}

/// The stream of a window from `start` to `now`, from a copy of the log since `start`.
fn stream_of(log: &Recent, start: Instant, now: Instant, seconds: u32) -> TaskStream {
    let leases = log.leases();
    let (figures, places, jobs) = (HashMap::new(), HashMap::new(), HashMap::new());
    let (names, bars) = (Vec::new(), Vec::new());
    let mut gathering = Gathering { log, start, now, figures, places, jobs, names, bars, uncounted: 0 };
    let since = log.complete_since.filter(|since| *since > start);
    // The first step from which on the log has every lease individually.
    let from = since.map(|since| log.steps.iter().map(|step| step.start).find(|start| *start >= since).unwrap_or(now));
    let is_aggregated = leases.len() > MAX_BARS || since.is_some();
    if let Some(from) = from {
        gathering.count_steps(from);
    }
    for lease in &leases {
        gathering.count_lease(lease, from.unwrap_or(start));
    }
    let (rows, hidden_rows) = gathering.choose_rows();
    if let Some(from) = from {
        gathering.add_steps(from, seconds);
    }
    if is_aggregated {
        gathering.add_columns(&leases, from.unwrap_or(start), Duration::from_secs(seconds.into()) / COLUMNS);
    } else {
        leases.iter().for_each(|lease| gathering.add(lease));
    }
    let Gathering { names: jobs, mut bars, uncounted: uncounted_leases, .. } = gathering;
    bars.sort_by_key(|bar| (bar.start_ms, bar.row));
    let ends_at_ms = crate::clock::now().at.as_millisecond();
    TaskStream { seconds, ends_at_ms, rows, hidden_rows, uncounted_leases, jobs, bars, is_aggregated }
}

/// The share of `whole_ms` in which a slot was busy, in percent: 0 is drawn as a stopped lease.
fn to_percent(busy_ms: u64, whole_ms: u64) -> u64 {
    (busy_ms * 100 / whole_ms.max(1)).clamp(1, 100)
}

impl Gathering<'_> {
    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Start and end of the part of a lease that is after `from`; `None` where there is no such part.
    fn part(&self, lease: &Logged, from: Instant) -> Option<(u64, u64)> {
        let end = lease.end.map_or(self.now, |(end, _)| end);
        if end < from {
            return None;
        }
        let start_ms = self.milliseconds(lease.start.max(from));
        Some((start_ms, self.milliseconds(end).max(start_ms)))
    }

    fn job(&mut self, id: JobId, kind: JobKind) -> usize {
        let next = self.names.len();
        *self.jobs.entry(id).or_insert_with(|| {
            self.names.push((id.to_string(), kind.to_string()));
            next
        })
    }

    fn count(&mut self, slot: usize, busy_ms: u64, leases: u64, failed: u64, seconds: u64) {
        let row = self.figures.entry(slot).or_default();
        row.busy_ms += busy_ms;
        row.leases += leases;
        row.failed += failed;
        row.seconds += seconds;
    }

    /// Counts the activity of the slots in the steps that begin before `until`.
    fn count_steps(&mut self, until: Instant) {
        let log = self.log;
        for step in log.steps.iter().filter(|step| step.start < until) {
            self.uncounted += step.uncounted;
            for (slot, share) in &step.shares {
                let (leases, failed, seconds) = (share.leases.into(), share.failed.into(), share.seconds.into());
                self.count(*slot, milliseconds_of(share.busy), leases, failed, seconds);
            }
        }
    }

    /// Counts the part of a lease that is after `from`.
    fn count_lease(&mut self, lease: &Logged, from: Instant) {
        let Some((start_ms, end_ms)) = self.part(lease, from) else { return };
        let has_failed = lease.end.is_some_and(|(_, end)| end == End::Failed);
        let ended = u64::from(lease.end.is_some());
        self.count(lease.slot, end_ms - start_ms, ended, has_failed.into(), lease.is_second.into());
    }

    /// The busiest slots, in the order of their names, and the number of the others. Only they get bars.
    fn choose_rows(&mut self) -> (Vec<StreamRow>, usize) {
        let mut rows: Vec<(usize, StreamRow)> = std::mem::take(&mut self.figures).into_iter().collect();
        rows.sort_by_key(|(slot, row)| (Reverse(row.busy_ms), *slot));
        let hidden_rows = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        for (number, row) in &mut rows {
            let Some((worker, slot)) = self.log.slots.get(*number) else { continue };
            (row.worker, row.slot) = (worker.to_string(), *slot);
        }
        rows.sort_by(|(_, one), (_, other)| {
            natural(&one.worker).cmp(&natural(&other.worker)).then(one.slot.cmp(&other.slot))
        });
        self.places = rows.iter().enumerate().map(|(place, (slot, _))| (*slot, place)).collect();
        (rows.into_iter().map(|(_, row)| row).collect(), hidden_rows)
    }

    /// Adds a lease as a bar of its own.
    fn add(&mut self, lease: &Logged) {
        let Some(row) = self.places.get(&lease.slot).copied() else { return };
        let (start_ms, end_ms) =
            (self.milliseconds(lease.start), self.milliseconds(lease.end.map_or(self.now, |(end, _)| end)));
        let has_failed = lease.end.is_some_and(|(_, end)| end == End::Failed);
        // A stopped lease is drawn hollow.
        let busy = if lease.end.is_some_and(|(_, end)| end == End::Stopped) { 0 } else { 100 };
        let job = self.job(lease.job, lease.kind);
        self.bars.push(StreamBar {
            row,
            start_ms,
            length_ms: end_ms.saturating_sub(start_ms),
            job,
            leases: 1,
            failed: has_failed.into(),
            seconds: lease.is_second.into(),
            busy,
            tasks: lease.tasks,
        });
    }

    /// Adds the activity of the slots in the steps that begin before `until`. In a long window a bar stands for several steps,
    /// so that a row has no more bars than there are columns.
    fn add_steps(&mut self, until: Instant, seconds: u32) {
        let log = self.log;
        let steps: Vec<_> = log.steps.iter().filter(|step| step.start < until).collect();
        let steps_of_bar = u64::from(seconds).div_ceil(STEP.as_secs() * u64::from(COLUMNS));
        for group in steps.chunks(usize::try_from(steps_of_bar).unwrap_or(usize::MAX).max(1)) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let start_ms = self.milliseconds(first.start);
            let length_ms = milliseconds_of(last.start + STEP - first.start);
            let mut bars: BTreeMap<usize, StreamBar> = BTreeMap::new();
            // The newest first: its job stands for all of the bar.
            for (slot, share) in group.iter().rev().flat_map(|step| &step.shares) {
                let Some(row) = self.places.get(slot).copied() else { continue };
                let bar = bars.entry(*slot).or_insert_with(|| {
                    let job = self.job(share.job, share.kind);
                    StreamBar { row, start_ms, length_ms, job, leases: 0, failed: 0, seconds: 0, busy: 0, tasks: 0 }
                });
                // Milliseconds until all steps are added, percent then.
                bar.busy += milliseconds_of(share.busy);
                bar.leases += u64::from(share.leases);
                bar.failed += u64::from(share.failed);
                bar.seconds += u64::from(share.seconds);
            }
            self.bars.extend(bars.into_values().map(|bar| StreamBar { busy: to_percent(bar.busy, length_ms), ..bar }));
        }
    }

    /// Adds leases merged by slot and column.
    fn add_columns(&mut self, leases: &[Logged], from: Instant, width: Duration) {
        let width_ms = milliseconds_of(width).max(1);
        let mut columns: BTreeMap<(u64, usize), StreamBar> = BTreeMap::new();
        for lease in leases {
            let Some(row) = self.places.get(&lease.slot).copied() else { continue };
            let Some((start_ms, end_ms)) = self.part(lease, from) else { continue };
            let last = end_ms / width_ms;
            for column in start_ms / width_ms..=last {
                let left = column * width_ms;
                let bar = columns.entry((column, row)).or_insert_with(|| {
                    let (start_ms, length_ms, job) = (left, width_ms, self.job(lease.job, lease.kind));
                    StreamBar { row, start_ms, length_ms, job, leases: 0, failed: 0, seconds: 0, busy: 0, tasks: 0 }
                });
                // Milliseconds until all leases are added, percent then.
                bar.busy += end_ms.min(left + width_ms).saturating_sub(start_ms.max(left));
                if column == last {
                    bar.leases += u64::from(lease.end.is_some());
                    bar.failed += u64::from(lease.end.is_some_and(|(_, end)| end == End::Failed));
                    bar.seconds += u64::from(lease.is_second);
                }
            }
        }
        self.bars.extend(columns.into_values().map(|bar| StreamBar { busy: to_percent(bar.busy, width_ms), ..bar }));
    }
}

fn milliseconds_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    fn a_full_hour_has_a_bounded_number_of_bars_and_loses_no_lease() {
        let (log, start) = (LeaseLog::new(true), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // Steps begin with the first end: no later one is where two steps meet.
        lease(&log, 0, 0, at(0), at(1));
        for number in 0..720 * 120u32 {
            let second = 5 * u64::from(number / 120);
            lease(&log, (number + 1).into(), number % 120, at(second), at(second + 5));
        }
        let stream = stream_of(&log.view(|log| log.recent(start)), start, at(3_600), 3_600);
        assert_eq!((stream.is_aggregated, stream.rows.len(), stream.hidden_rows), (true, MAX_ROWS, 20));
        assert!(stream.bars.len() <= MAX_ROWS * (COLUMNS as usize + 2), "{}", stream.bars.len());
        let counted: u64 = stream.bars.iter().map(|bar| bar.leases).sum();
        assert_eq!((counted, stream.rows.iter().map(|row| row.leases).sum::<u64>()), (72_001, 72_001));
        assert!(stream.bars.iter().all(|bar| bar.row < MAX_ROWS && (1..=100).contains(&bar.busy)));
    }

    #[test]
    fn leases_of_the_step_in_which_the_window_begins_count_once() {
        let (log, first) = (LeaseLog::new(true), Instant::now());
        let at = |seconds| first + Duration::from_secs(seconds);
        lease(&log, 0, 0, first, first);
        for number in 1..=4_000 {
            lease(&log, number, 1, at(3), at(3));
        }
        let stream = stream_of(&log.view(|log| log.recent(at(2))), at(2), at(32), 30);
        let counted: u64 = stream.bars.iter().map(|bar| bar.leases).sum();
        assert_eq!((stream.is_aggregated, stream.rows.len(), stream.rows[0].leases, counted), (true, 1, 4_000, 4_000));
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
