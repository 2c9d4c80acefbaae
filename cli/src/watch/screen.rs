//! Draws the screen from a [`View`], which is all that it knows.

use std::collections::VecDeque;

use api::{Job, Stats, WorkerSummary};
use model::counted;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

use crate::failure::Failure;
use crate::print::{job_state, rate};
use crate::printable::printable;
use crate::table::Tone;
use crate::watch::chart;
use crate::watch::columns::{Column, table};
use crate::watch::snapshot::Snapshot;
use crate::words::{figure, percent, span_of_seconds};
use crate::worker_list::{free_memory, load, worker_state, worker_tone};

/// Seconds of throughput that are kept: more than a terminal has columns.
const MAX_HISTORY: usize = 500;

/// Lines of the figures on top, with their frame.
const FIGURES_HEIGHT: u16 = 6;

/// Columns of a bar of the queue.
const QUEUE_BAR: usize = 16;

/// The keys and their effects.
const KEYS: [(&str, &str); 2] = [("q, Esc, Ctrl-C", "quit"), ("?, h", "show or hide this help")];

/// From this width on, jobs have their whole id; below it, its end, which is chance and tells them apart.
const WHOLE_ID_WIDTH: u16 = 130;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    url: String,
    palette: Palette,
    snapshot: Snapshot,
    /// The error that kept the latest snapshot from being read.
    trouble: Option<String>,
    /// Tasks a second, in thousandths, the latest last.
    history: VecDeque<u64>,
    shows_help: bool,
}

/// The styles of the screen.
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
        let (snapshot, history) = (Snapshot::default(), VecDeque::new());
        Self { url, palette, snapshot, trouble: None, history, shows_help: false }
    }

    pub(super) fn toggle_help(&mut self) {
        self.shows_help = !self.shows_help;
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
    if view.shows_help {
        draw_help(frame);
    }
}

fn draw_head(frame: &mut Frame, area: Rect, view: &View) {
    let name = Span::styled(format!("divvy {}", view.url), Style::new().add_modifier(Modifier::BOLD));
    let rest = match &view.trouble {
        Some(trouble) => Span::styled(format!("  {trouble}"), view.palette.style(Tone::Bad)),
        None => Span::styled("  q quits, ? shows the keys", view.palette.style(Tone::Faint)),
    };
    frame.render_widget(Line::from(vec![name, rest]), area);
}

fn draw_throughput(frame: &mut Frame, area: Rect, view: &View) {
    let stats = &view.snapshot.stats;
    let (tasks, numbers) = (figure(stats.tasks_per_second), figure(stats.numbers_per_second));
    let block = framed(format!("Throughput: {tasks} tasks/s, {numbers} numbers/s"));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    chart::draw(frame, inner, &view.history, view.palette.style(Tone::Active));
}

fn draw_queue(frame: &mut Frame, area: Rect, stats: &Stats, palette: Palette) {
    let demand = stats.demand_of_all();
    let others = [(demand.paused, "paused"), (demand.unservable, "without a worker")];
    let others = others.into_iter().filter(|(tasks, _)| *tasks > 0);
    let others: Vec<String> = others.map(|(tasks, why)| format!("{} {why}", count(tasks))).collect();
    let wait = if demand.runnable == 1 { "task waits" } else { "tasks wait" };
    let block = framed(format!("Queue: {} {wait}", count(demand.runnable)));
    let depths: Vec<(u8, u64)> =
        stats.queue_depth_by_priority.iter().rev().map(|(&priority, &depth)| (priority, depth)).collect();
    let rows = usize::from(block.inner(area).height).saturating_sub(usize::from(!others.is_empty()));
    // The last row sums up the entries without a row.
    let shown = if depths.len() > rows { rows.saturating_sub(1) } else { depths.len() };
    let most = depths.iter().map(|&(_, depth)| depth).max().unwrap_or(0).max(1);
    let mut lines: Vec<Line> = depths[..shown]
        .iter()
        .map(|&(priority, depth)| {
            let bar = Span::styled(bar(to_f64(depth) / to_f64(most), QUEUE_BAR), palette.style(Tone::Waiting));
            Line::from(vec![Span::raw(format!("priority {priority} ")), bar, Span::raw(format!(" {}", count(depth)))])
        })
        .collect();
    if shown < depths.len() {
        let rest: u64 = depths[shown..].iter().map(|&(_, depth)| depth).sum();
        lines.push(Line::from(format!("{} lower priorities: {}", depths.len() - shown, count(rest))));
    }
    if !others.is_empty() {
        lines.push(Line::from(others.join(", ")));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_workers(frame: &mut Frame, area: Rect, stats: &Stats, workers: &[WorkerSummary], palette: Palette) {
    let counts = &stats.workers;
    let states = [
        (counts.ready, "ready"),
        (counts.suspended, "suspended"),
        (counts.draining, "draining"),
        (counts.pulling, "pulling"),
        (counts.simulated, "simulated"),
    ];
    let states = states.iter().filter(|(count, state)| *count > 0 || *state == "ready");
    let states = states.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
    // The leases are also those of simulated workers.
    let slots = counted(counts.slots + counts.simulated, "slot", "slots");
    let title = format!("Workers: {states}; {slots}, {}", counted(counts.leases, "lease", "leases"));
    let bar_width = bar_width(area.width);
    let each = |cell: fn(&WorkerSummary) -> String| workers.iter().map(move |worker| Line::from(cell(worker)));
    let gauges = |share: fn(&WorkerSummary) -> (f64, String)| {
        workers.iter().map(move |worker| {
            let (share, text) = share(worker);
            gauge(share, &text, bar_width, palette)
        })
    };
    let state =
        |worker: &WorkerSummary| Line::styled(worker_state(worker.state), palette.style(worker_tone(worker.state)));
    let slots = |worker: &WorkerSummary| {
        let share = f64::from(worker.running) / f64::from(worker.slots.max(1));
        (share, format!("{}/{}", worker.running, worker.slots))
    };
    let speed = |worker: &WorkerSummary| {
        worker.speed_numbers_per_s.map(|speed| format!("{}/s", figure(to_f64(speed)))).unwrap_or_default()
    };
    let columns = vec![
        Column::filling("WORKER", 0, each(|worker| worker.id.as_str().to_owned())),
        Column::new("STATE", 1, workers.iter().map(state)),
        Column::new("SLOTS", 2, gauges(slots)),
        Column::new("LOAD", 3, gauges(|worker| (worker.cpu_load.into(), load(worker)))),
        Column::new("FREE", 6, each(free_memory)),
        Column::new("DONE", 4, each(|worker| count(worker.completed_tasks))),
        Column::new("NUMBERS", 5, each(speed)),
    ];
    frame.render_widget(table(columns, area.width).block(framed(title)), area);
}

fn draw_jobs(frame: &mut Frame, area: Rect, stats: &Stats, jobs: &[Job], palette: Palette) {
    let counts = stats.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
    let title = format!("Jobs: {}", if counts.is_empty() { "none under way" } else { &counts });
    let (has_whole_ids, bar_width) = (area.width >= WHOLE_ID_WIDTH, bar_width(area.width));
    let each = |cell: fn(&Job) -> String| jobs.iter().map(move |job| Line::from(cell(job)));
    let id = |job: &Job| {
        let id = job.id.to_string();
        Line::from(if has_whole_ids { id } else { id.rsplit('-').next().unwrap_or_default().to_owned() })
    };
    let progress = |job: &Job| gauge(job.progress.fraction, &percent(job.progress.fraction), bar_width, palette);
    let left =
        |job: &Job| job.progress.seconds_left.filter(|_| !job.state.is_over()).map(span_of_seconds).unwrap_or_default();
    let note = |job: &Job| printable(job.error.as_deref().or(job.notice.as_deref()).unwrap_or_default()).into_owned();
    let columns = vec![
        Column::new("JOB", 0, jobs.iter().map(id)),
        Column::new("KIND", 5, each(|job| job.kind.as_str().to_owned())),
        Column::new(
            "STATE",
            1,
            jobs.iter().map(job_state).map(|(state, tone)| Line::styled(state, palette.style(tone))),
        ),
        Column::new("PRI", 6, each(|job| job.priority.to_string())),
        Column::new(if bar_width > 0 { "PROGRESS" } else { "DONE" }, 2, jobs.iter().map(progress)),
        Column::new("TASKS", 3, each(|job| format!("{}/{}", count(job.tasks.succeeded), count(job.tasks.total)))),
        Column::new("RATE", 7, each(|job| rate(job).unwrap_or_default())),
        Column::new("LEFT", 4, each(left)),
        Column::filling("NOTE", 8, each(note)),
    ];
    frame.render_widget(table(columns, area.width).block(framed(title)), area);
}

/// All keys, over the middle of the screen.
fn draw_help(frame: &mut Frame) {
    let lines = KEYS.map(|(key, effect)| Line::from(format!(" {key:<15}{effect} "))).to_vec();
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    let size = |length: usize| u16::try_from(length + 2).unwrap_or(u16::MAX);
    let area = frame.area().centered(Constraint::Length(size(width)), Constraint::Length(size(lines.len())));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("Keys")), area);
}

fn framed(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

/// A share as a bar with a figure; on a narrow screen the figure alone.
fn gauge(share: f64, text: &str, width: usize, palette: Palette) -> Line<'static> {
    if width == 0 {
        return Line::from(text.to_owned());
    }
    Line::from(vec![Span::styled(bar(share, width), palette.style(Tone::Active)), Span::raw(format!(" {text}"))])
}

/// Columns of a bar in a table of this width.
fn bar_width(area_width: u16) -> usize {
    match area_width {
        WHOLE_ID_WIDTH.. => 16,
        100.. => 8,
        _ => 0,
    }
}

/// A count as it is, from a million on in short.
fn count(count: u64) -> String {
    if count < 1_000_000 { count.to_string() } else { figure(to_f64(count)) }
}

/// A bar of `width` columns, exact to an eighth of one.
fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = ['·', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to eight times a screen's width"
    )]
    let eighths = (share.clamp(0.0, 1.0) * (width * 8) as f64) as usize;
    let cell = |column: usize| match eighths.saturating_sub(column * 8) {
        8.. => '█',
        part => EIGHTHS[part],
    };
    (0..width).map(cell).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
