//! The chart of the throughput: a column a second, with its scale.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Sparkline};

use crate::words::{figure, span};

/// Draws the latest values, which are in thousandths a second, the last one right. The scale stands left: the largest value
/// shown at the top, 0 at the bottom; below is the time that the chart spans.
pub(super) fn draw(frame: &mut Frame, area: Rect, history: &VecDeque<u64>, bars: Style) {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let label = |thousandths: u64| format!("{}/s", figure(thousandths as f64 / 1000.0));
    let [rows, time] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let most = history.iter().copied().max().unwrap_or(0);
    let gutter = u16::try_from(label(most).len()).unwrap_or(u16::MAX).max(3) + 1;
    let [scale, chart] = Layout::horizontal([Constraint::Length(gutter), Constraint::Fill(1)]).areas(rows);
    let width = usize::from(chart.width);
    let shown: Vec<u64> = history.iter().skip(history.len().saturating_sub(width)).copied().collect();
    let most = shown.iter().copied().max().unwrap_or(0);

    let faint = Style::new().add_modifier(Modifier::DIM);
    let mut labels = vec![Line::from(label(most))];
    labels.resize(usize::from(scale.height).max(1) - 1, Line::default());
    labels.push(Line::from("0"));
    frame.render_widget(Paragraph::new(labels).style(faint).alignment(Alignment::Right), shrunk(scale));
    // Columns before the first value stay empty.
    let unknown = width.saturating_sub(shown.len());
    let data: Vec<u64> = std::iter::repeat_n(0, unknown).chain(shown).collect();
    frame.render_widget(Sparkline::default().data(data).max(most.max(1)).style(bars), chart);
    let past = format!("{} ago", span(std::time::Duration::from_secs(u64::from(chart.width))));
    let [_, time] = Layout::horizontal([Constraint::Length(gutter), Constraint::Fill(1)]).areas(time);
    frame.render_widget(Paragraph::new(past).style(faint), time);
    frame.render_widget(Paragraph::new("now").style(faint).alignment(Alignment::Right), time);
}

/// The area without its last column, which is the gap to the chart.
fn shrunk(area: Rect) -> Rect {
    Rect { width: area.width.saturating_sub(1), ..area }
}
