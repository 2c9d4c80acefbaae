//! Medians with their spread, and goals.

use std::io::{self, Write};

/// The measurements of all rounds but the first, which only warms up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// This over the other, round by round.
    pub(crate) fn ratio(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }

    pub(crate) fn median(&self) -> f64 {
        quantile(&mut self.counted(), 0.5)
    }

    /// Median, least and greatest, with so many digits behind the point.
    pub(crate) fn spread(&self, digits: usize) -> String {
        let mut counted = self.counted();
        let [median, least, greatest] = [0.5, 0.0, 1.0].map(|share| quantile(&mut counted, share));
        format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})")
    }

    fn counted(&self) -> Vec<f64> {
        let warm_up = usize::from(self.0.len() > 1);
        self.0[warm_up..].to_vec()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The value at this share of the sorted values, 0 to 1; `NaN` if there are none.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a list in memory"
    )]
    let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// The last two cells of a row: the goal and whether `value` meets it.
pub(crate) fn verdict(value: f64, goal: Option<f64>) -> String {
    goal.map_or_else(
        || "– | –".to_owned(),
        |goal| {
            // A goal that is a multiple of another one has more digits than say something.
            let shown = (goal * 1_000.0).round() / 1_000.0;
            format!("≤ {shown} | {}", if value <= goal { "yes" } else { "**no**" })
        },
    )
}

/// The last two cells of a row: a goal that the value should reach, and whether it does.
pub(crate) fn at_least(value: f64, goal: f64) -> String {
    format!("≥ {goal} | {}", if value >= goal { "yes" } else { "**no**" })
}

/// Starts a table.
pub(crate) fn print_head(title: &str, columns: &[&str]) -> io::Result<()> {
    let rule = "---|".repeat(columns.len());
    writeln!(io::stdout(), "{title}\n\n| {} |\n|{rule}", columns.join(" | "))
}

/// A row at once: the next one may take a while.
pub(crate) fn print_row(cells: &[&str]) -> io::Result<()> {
    writeln!(io::stdout(), "| {} |", cells.join(" | "))?;
    io::stdout().flush()
}
