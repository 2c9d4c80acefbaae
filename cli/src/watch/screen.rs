//! Draws the screen from a [`View`], which is all that it knows.

use std::collections::VecDeque;

use api::{Job, Stats, WorkerSummary};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};

use crate::failure::Failure;
use crate::print::{job_tone, rate};
use crate::printable::printable;
use crate::table::Tone;
use crate::watch::snapshot::Snapshot;
use crate::words::{figure, memory, percent, span_of_seconds};
use crate::worker_list::{worker_state, worker_tone};

/// Seconds of throughput that are kept: more than a terminal has columns.
const MAX_HISTORY: usize = 500;

/// Lines of the figures on top, with their frame.
const FIGURES_HEIGHT: u16 = 6;

/// Columns of a bar in a table.
const BAR_WIDTH: usize = 16;

/// From this width on, jobs have their whole id; below it, its end, which is chance and tells them apart.
const WHOLE_ID_WIDTH: u16 = 130;

/// What the screen shows.
#[derive(Debug)]
pub(super) struct View {
    url: String,
    palette: Palette,
    snapshot: Snapshot,
    /// Why the snapshot is not the latest.
    trouble: Option<String>,
    /// Tasks a second, in thousandths, the latest last.
    history: VecDeque<u64>,
}

/// How things look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) is_coloured: bool,
}

impl Palette {
    fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            Tone::Plain => style,
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Good => self.colour(style, Color::Green),
            Tone::Bad => self.colour(style.add_modifier(Modifier::BOLD), Color::Red),
            Tone::Active => self.colour(style, Color::Cyan),
            Tone::Waiting => self.colour(style, Color::Yellow),
        }
    }

    fn colour(self, style: Style, colour: Color) -> Style {
        if self.is_coloured { style.fg(colour) } else { style }
    }
}

impl View {
    pub(super) fn new(url: &str, palette: Palette) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { url, palette, snapshot: Snapshot::default(), trouble: None, history: VecDeque::new() }
    }

    /// Takes the next snapshot; when there is none, the last one stays and the reason is shown.
    pub(super) fn show(&mut self, snapshot: Result<Snapshot, Failure>) {
        match snapshot {
            Ok(snapshot) => {
                if self.history.len() == MAX_HISTORY {
                    self.history.pop_front();
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate for a small chart"
                )]
                self.history.push_back((snapshot.stats.tasks_per_second * 1000.0).round() as u64);
                self.snapshot = snapshot;
                self.trouble = None;
            }
            Err(failure) => self.trouble = Some(printable(&failure.to_string()).into_owned()),
        }
    }
}

pub(super) fn draw(frame: &mut Frame, view: &View) {
    let Snapshot { stats, workers, jobs } = &view.snapshot;
    let height = frame.area().height;
    let wanted = u16::try_from(workers.len()).unwrap_or(u16::MAX).saturating_add(3);
    let workers_height = wanted.clamp(4, (height / 3).max(4));
    let [head, figures, worker_area, job_area] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(FIGURES_HEIGHT),
        Constraint::Length(workers_height),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    let [throughput, queue] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(40)]).areas(figures);
    draw_head(frame, head, view);
    draw_throughput(frame, throughput, view);
    draw_queue(frame, queue, stats, view.palette);
    draw_workers(frame, worker_area, stats, workers, view.palette);
    draw_jobs(frame, job_area, stats, jobs, view.palette);
}

fn draw_head(frame: &mut Frame, area: Rect, view: &View) {
    let name = Span::styled(format!("divvy {}", view.url), Style::new().add_modifier(Modifier::BOLD));
    let rest = match &view.trouble {
        Some(trouble) => Span::styled(format!("  {trouble}"), view.palette.style(Tone::Bad)),
        None => Span::styled("  q quits", view.palette.style(Tone::Faint)),
    };
    frame.render_widget(Line::from(vec![name, rest]), area);
}

fn draw_throughput(frame: &mut Frame, area: Rect, view: &View) {
    let stats = &view.snapshot.stats;
    let (tasks, numbers) = (figure(stats.tasks_per_second), figure(stats.numbers_per_second));
    let block = framed(format!("Throughput: {tasks} tasks/s, {numbers} numbers/s"));
    let width = usize::from(block.inner(area).width);
    // The latest stand right, and what is not known yet left of them is empty.
    let known = view.history.iter().skip(view.history.len().saturating_sub(width)).copied();
    let unknown = width.saturating_sub(view.history.len());
    let data: Vec<u64> = std::iter::repeat_n(0, unknown).chain(known).collect();
    let chart = Sparkline::default().data(data).style(view.palette.style(Tone::Active));
    frame.render_widget(chart.block(block), area);
}

fn draw_queue(frame: &mut Frame, area: Rect, stats: &Stats, palette: Palette) {
    let depths = &stats.queue_depth_by_priority;
    let block = framed(format!("Queue: {} tasks wait", stats.tasks.pending));
    let most = depths.values().copied().max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
    let lines = depths.iter().rev().map(|(priority, &depth)| {
        let bar = Span::styled(bar(depth as f64 / most as f64), palette.style(Tone::Waiting));
        Line::from(vec![Span::raw(format!("priority {priority} ")), bar, Span::raw(format!(" {depth}"))])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}

fn draw_workers(frame: &mut Frame, area: Rect, stats: &Stats, workers: &[WorkerSummary], palette: Palette) {
    let counts = &stats.workers;
    let title = format!(
        "Workers: {} ready, {} suspended, {} draining, {} pulling; {} slots, {} leases",
        counts.ready, counts.suspended, counts.draining, counts.pulling, counts.slots, counts.leases
    );
    let rows = workers.iter().map(|worker| {
        let slots = f64::from(worker.running) / f64::from(worker.slots.max(1));
        let speed = worker.speed_numbers_per_s.map(|speed| format!("{}/s", figure(to_f64(speed))));
        Row::new([
            Cell::new(worker.id.as_str().to_owned()),
            Cell::new(worker_state(worker.state)).style(palette.style(worker_tone(worker.state))),
            gauge(slots, &format!("{}/{}", worker.running, worker.slots), palette),
            gauge(worker.cpu_load.into(), &percent(worker.cpu_load.into()), palette),
            Cell::new(memory(worker.free_memory_bytes)),
            Cell::new(worker.completed_tasks.to_string()),
            Cell::new(speed.unwrap_or_default()),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(24),
        Constraint::Length(24),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Length(8),
    ];
    let head = ["WORKER", "STATE", "SLOTS", "LOAD", "FREE", "DONE", "NUMBERS"];
    frame.render_widget(Table::new(rows, widths).header(header(head)).block(framed(title)), area);
}

fn draw_jobs(frame: &mut Frame, area: Rect, stats: &Stats, jobs: &[Job], palette: Palette) {
    let counts = stats.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
    let title = format!("Jobs: {}", if counts.is_empty() { "none under way" } else { &counts });
    let has_whole_ids = area.width >= WHOLE_ID_WIDTH;
    let rows = jobs.iter().map(|job| {
        let id = job.id.to_string();
        let tail = id.rsplit('-').next().unwrap_or(&id);
        let note = job.error.as_deref().or(job.notice.as_deref()).unwrap_or_default();
        let left = job.progress.seconds_left.filter(|_| !job.state.is_over()).map(span_of_seconds);
        Row::new([
            Cell::new(if has_whole_ids { id.clone() } else { tail.to_owned() }),
            Cell::new(job.kind.as_str()),
            Cell::new(job.state.as_str()).style(palette.style(job_tone(job.state))),
            Cell::new(job.priority.to_string()),
            gauge(job.progress.fraction, &percent(job.progress.fraction), palette),
            Cell::new(format!("{}/{}", job.tasks.succeeded, job.tasks.total)),
            Cell::new(rate(job).unwrap_or_default()),
            Cell::new(left.unwrap_or_default()),
            Cell::new(printable(note).into_owned()),
        ])
    });
    let widths = [
        Constraint::Length(if has_whole_ids { 36 } else { 12 }),
        Constraint::Length(13),
        Constraint::Length(9),
        Constraint::Length(3),
        Constraint::Length(21),
        Constraint::Length(13),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let head = ["JOB", "KIND", "STATE", "PRI", "PROGRESS", "TASKS", "RATE", "LEFT", "NOTE"];
    frame.render_widget(Table::new(rows, widths).header(header(head)).block(framed(title)), area);
}

fn framed(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::DIM))
}

fn gauge(share: f64, text: &str, palette: Palette) -> Cell<'static> {
    let bar = Span::styled(bar(share), palette.style(Tone::Active));
    Cell::new(Line::from(vec![bar, Span::raw(format!(" {text}"))]))
}

/// A bar of [`BAR_WIDTH`] columns, exact to an eighth of one.
fn bar(share: f64) -> String {
    const EIGHTHS: [char; 8] = ['·', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 128"
    )]
    let eighths = (share.clamp(0.0, 1.0) * (BAR_WIDTH * 8) as f64) as usize;
    let cell = |column: usize| match eighths.saturating_sub(column * 8) {
        8.. => '█',
        part => EIGHTHS[part],
    };
    (0..BAR_WIDTH).map(cell).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const JOB: &str = r#"{"id":"0190a5b0-0000-7000-8000-00000000beef","kind":"sleep","params":{},"state":"running",
        "priority":9,"tags":{},"affinity":{},"requires":{},"max_attempts":4,"timeout":{},
        "tasks":{"total":200,"pending":90,"running":10,"succeeded":100,"failed":0},
        "progress":{"fraction":0.5,"tasks_per_second":12.5,"seconds_left":8.0},"attempts":110,
        "submitted_at":"2026-03-21T10:00:00Z","notice":"two\nlines"}"#;

    const WORKER: &str = r#"{"id":"worker-1","boot_id":"0190a5b0-0000-7000-8000-000000000001",
        "address":"127.0.0.1:8082","slots":4,"busy":4,"running":3,"last_seen_ms_ago":10,"state":"suspended",
        "completed_tasks":77,"speed_numbers_per_s":30000000,"cpu_load":0.25,"free_memory_bytes":1073741824,"labels":{},
        "resources":{"cpus":4,"memory_bytes":1},"kinds":["sleep"],"version":"0.1.0"}"#;

    fn view(is_coloured: bool) -> View {
        let mut stats = Stats { tasks_per_second: 12.5, ..Stats::default() };
        (stats.tasks.pending, stats.workers.suspended) = (90, 1);
        stats.jobs.insert("running".to_owned(), 1);
        stats.queue_depth_by_priority.extend([(9, 60), (1, 30)]);
        let workers = vec![serde_json::from_str(WORKER).expect("a worker")];
        let jobs = vec![serde_json::from_str(JOB).expect("a job")];
        let mut view = View::new("http://127.0.0.1:8080/", Palette { is_coloured });
        view.show(Ok(Snapshot { stats, workers, jobs }));
        view
    }

    fn render(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, view)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    fn assert_line(lines: &[String], parts: &[&str]) {
        let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
        assert!(lines.iter().any(has_all), "{parts:?} in\n{}", lines.join("\n"));
    }

    #[test]
    fn screen_shows_workers_jobs_throughput_and_queue() {
        let lines = render(&view(true), 140, 30);
        assert_line(&lines, &["divvy http://127.0.0.1:8080  q quits"]);
        assert_line(&lines, &["Throughput: 12.5 tasks/s, 0 numbers/s", "Queue: 90 tasks wait"]);
        assert_line(&lines, &["priority 9 ████████████████ 60"]);
        assert_line(&lines, &["priority 1 ████████········ 30"]);
        assert_line(&lines, &["Workers: 0 ready, 1 suspended"]);
        assert_line(&lines, &["worker-1", "suspended", "████████████···· 3/4", "25%", "1.0 GiB", "77", "30.0M/s"]);
        assert_line(&lines, &["Jobs: 1 running"]);
        let id = "0190a5b0-0000-7000-8000-00000000beef";
        assert_line(&lines, &[id, "sleep", "running", " 9 ", " 50%", "100/200", "12.5/s", "8s", "two lines"]);
    }

    #[test]
    fn narrow_screen_shows_the_end_of_ids_and_the_smallest_one_draws() {
        assert_line(&render(&view(true), 100, 24), &["00000000beef", "running"]);
        for (width, height) in [(1, 1), (20, 5), (40, 10)] {
            render(&view(true), width, height);
        }
    }

    #[test]
    fn unreachable_grid_is_told_and_the_last_figures_stay() {
        let mut view = view(true);
        view.show(Err(Failure::Unreachable { url: "http://h/".to_owned(), cause: "connection\nrefused".to_owned() }));
        let lines = render(&view, 140, 30);
        assert_line(&lines, &["divvy", "cannot reach the grid at http://h/: connection refused"]);
        assert_line(&lines, &["100/200"]);
    }

    #[test]
    fn screen_without_colours_asks_for_none() {
        for (is_coloured, expected) in [(true, true), (false, false)] {
            let view = view(is_coloured);
            let mut terminal = Terminal::new(TestBackend::new(140, 30)).expect("a screen in memory");
            terminal.draw(|frame| draw(frame, &view)).expect("drawn");
            let has_colour = terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset);
            assert_eq!(has_colour, expected);
        }
    }

    #[test]
    fn bars_are_exact_to_an_eighth() {
        assert_eq!(bar(0.0), "················");
        assert_eq!(bar(1.0), "████████████████");
        assert_eq!(bar(0.5 + 1.0 / 128.0), "████████▏·······");
        assert_eq!(bar(f64::NAN), bar(0.0));
    }
}
