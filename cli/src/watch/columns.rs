//! Tables that fit their area: where the width does not suffice the least telling columns are left out as a whole, so that no
//! figure is cut.

use ratatui::layout::Constraint;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};

/// Columns between two columns of the table.
const GAP: u16 = 1;

/// A column of a table.
pub(super) struct Column {
    head: &'static str,
    cells: Vec<Line<'static>>,
    /// Columns with a larger rank are left out first.
    rank: u8,
    /// Takes the width that the others leave.
    fills: bool,
}

impl Column {
    pub(super) fn new(head: &'static str, rank: u8, cells: impl Iterator<Item = Line<'static>>) -> Self {
        Self { head, cells: cells.collect(), rank, fills: false }
    }

    /// A column of text that may be cut, down to `MIN_FILL` of width.
    pub(super) fn filling(head: &'static str, rank: u8, cells: impl Iterator<Item = Line<'static>>) -> Self {
        Self { fills: true, ..Self::new(head, rank, cells) }
    }

    fn width(&self) -> u16 {
        let widest = self.cells.iter().map(Line::width).chain([self.head.len()]).max().unwrap_or(0);
        u16::try_from(widest).unwrap_or(u16::MAX)
    }

    /// The width without which the column is of no use.
    fn least_width(&self) -> u16 {
        if self.fills { self.width().min(MIN_FILL) } else { self.width() }
    }
}

/// The least width of a column of text.
const MIN_FILL: u16 = 12;

/// The columns that fit into `width`, as a table.
pub(super) fn table(mut columns: Vec<Column>, width: u16) -> Table<'static> {
    let needed = |columns: &[Column]| {
        let gaps = GAP.saturating_mul(u16::try_from(columns.len().saturating_sub(1)).unwrap_or(u16::MAX));
        columns.iter().map(Column::least_width).fold(gaps, u16::saturating_add)
    };
    while columns.len() > 1 && needed(&columns) > width {
        let last = columns.iter().enumerate().max_by_key(|(_, column)| column.rank).map(|(index, _)| index);
        last.map(|index| columns.remove(index));
    }
    // Columns without a word in any row say nothing.
    let widths: Vec<Constraint> = columns
        .iter()
        .map(|column| if column.fills { Constraint::Fill(1) } else { Constraint::Length(column.width()) })
        .collect();
    let head = Row::new(columns.iter().map(|column| column.head)).style(Style::new().add_modifier(Modifier::DIM));
    let count = columns.first().map_or(0, |column| column.cells.len());
    let rows: Vec<Row<'static>> = (0..count)
        .map(|row| Row::new(columns.iter().map(|column| column.cells[row].clone()).collect::<Vec<_>>()))
        .collect();
    Table::new(rows, widths).header(head).column_spacing(GAP)
}
