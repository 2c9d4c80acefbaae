//! Columns of text for people.

use std::env;
use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use unicode_width::UnicodeWidthStr;

use crate::printable::printable;

/// The spaces between two columns.
const GAP: usize = 2;

/// The meaning of a cell's color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Active,
    Waiting,
    Faint,
}

impl Tone {
    fn escape(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[31m",
            Self::Active => "\u{1b}[36m",
            Self::Waiting => "\u{1b}[33m",
            Self::Faint => "\u{1b}[2m",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()).into_owned(), tone: Tone::Plain, right: false }
    }

    /// A number: its column stands right.
    pub(crate) fn number(value: impl ToString) -> Self {
        Self { right: true, ..Self::new(value.to_string()) }
    }

    pub(crate) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// Rows under a head. A column stands as its first row does.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Rows that explain themselves.
    pub(crate) fn without_head() -> Self {
        Self::new([""; N])
    }

    pub(crate) fn push(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The table in lines, the last without its end. Columns that are empty in every row are left out.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut head = self.head.map(Cell::new);
        if let Some(first) = self.rows.first() {
            head.iter_mut().zip(first).for_each(|(head, cell)| head.right = cell.right);
        }
        let columns: Vec<(usize, usize)> = (0..N)
            .filter(|&column| self.rows.is_empty() || self.rows.iter().any(|row| !row[column].text.is_empty()))
            .map(|column| {
                let cells = self.rows.iter().map(|row| &row[column]).chain([&head[column]]);
                (column, cells.map(|cell| cell.text.width()).max().unwrap_or(0))
            })
            .collect();
        let shown = head.iter().any(|cell| !cell.text.is_empty()).then_some(&head);
        let lines = shown.into_iter().chain(&self.rows).map(|row| render_row(row, &columns, colour));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn render_row(row: &[Cell], columns: &[(usize, usize)], colour: bool) -> String {
    let mut line = String::new();
    let mut spaces = 0;
    for &(column, width) in columns {
        let cell = &row[column];
        let fill = width - cell.text.width();
        let (before, after) = if cell.right { (fill, 0) } else { (0, fill) };
        // Spaces are written when something follows them, so that no line ends in some.
        if !cell.text.is_empty() {
            line.extend(std::iter::repeat_n(' ', spaces + before));
            spaces = 0;
            let _ = match (colour, cell.tone) {
                (true, Tone::Good | Tone::Bad | Tone::Active | Tone::Waiting | Tone::Faint) => {
                    write!(line, "{}{}\u{1b}[0m", cell.tone.escape(), cell.text)
                }
                (false, _) | (_, Tone::Plain) => line.write_str(&cell.text),
            };
            spaces += after + GAP;
        } else {
            spaces += width + GAP;
        }
    }
    line
}

/// Whether stdout is a terminal that may be coloured; see <https://no-color.org>.
pub(crate) fn is_coloured() -> bool {
    stdout().is_terminal() && !is_dumb() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the terminal knows no control sequences, or says nothing of what it knows.
pub(crate) fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<4> {
        let mut table = Table::new(["NAME", "COUNT", "EMPTY", "NOTE"]);
        table.push([Cell::new("a"), Cell::number(1), Cell::new(""), Cell::new("")]);
        table.push([Cell::new("日本"), Cell::number(1000), Cell::new(""), Cell::new("x\ny").toned(Tone::Bad)]);
        table
    }

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        assert_eq!(table().render(false), "NAME  COUNT  NOTE\na         1\n日本   1000  x y");
    }

    #[test]
    fn colour_surrounds_the_text_alone() {
        assert_eq!(table().render(true), "NAME  COUNT  NOTE\na         1\n日本   1000  \u{1b}[31mx y\u{1b}[0m");
    }

    #[test]
    fn table_without_rows_is_its_head() {
        assert_eq!(Table::new(["ID", "STATE"]).render(false), "ID  STATE");
        let mut table = Table::without_head();
        table.push([Cell::new("state"), Cell::new("paused")]);
        assert_eq!(table.render(false), "state  paused");
    }
}
