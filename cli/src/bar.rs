//! Progress bars on stderr. indicatif draws none where stderr is no terminal or a dumb one.

use api::JobProgress;
use indicatif::{ProgressBar, ProgressStyle};
use model::{TaskCounts, counted};

use crate::words::{figure, span_of_seconds};

/// Parts of a bar: tasks differ in their work, so a bar is drawn by the share of the work.
const PARTS: u32 = 10_000;

/// A bar of a job's work under a message. The bar takes what the terminal's width leaves.
pub(crate) fn with_message() -> ProgressStyle {
    style("{msg} {wide_bar} {percent:>3}% {prefix}")
}

/// A bar of a job's work.
pub(crate) fn plain() -> ProgressStyle {
    style("{bar:40} {percent:>3}% {prefix}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}

/// Shows the progress of a job.
pub(crate) fn show(bar: &ProgressBar, tasks: &TaskCounts, progress: &JobProgress) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to PARTS")]
    let done = (progress.fraction.clamp(0.0, 1.0) * f64::from(PARTS)) as u64;
    bar.set_length(PARTS.into());
    bar.set_position(done);
    bar.set_prefix(figures(tasks, progress));
}

/// `12/40 tasks, 3/s, 9s left`. Before the first task has ended nothing is known of the pace.
fn figures(tasks: &TaskCounts, progress: &JobProgress) -> String {
    let mut text = format!("{}/{}", tasks.succeeded, counted(tasks.total, "task", "tasks"));
    if let Some(rate) = progress.tasks_per_second.filter(|rate| *rate > 0.0) {
        text.push_str(&format!(", {}/s", figure(rate)));
    }
    if let Some(left) = progress.seconds_left {
        text.push_str(&format!(", {} left", span_of_seconds(left)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_far_as_the_work_and_not_as_the_number_of_tasks() {
        let tasks = TaskCounts { total: 10, succeeded: 9, ..TaskCounts::default() };
        let mut progress = JobProgress { fraction: 0.25, ..JobProgress::default() };
        let bar = ProgressBar::hidden();
        show(&bar, &tasks, &progress);
        assert_eq!((bar.position(), bar.length(), bar.prefix().as_str()), (2_500, Some(10_000), "9/10 tasks"));
        (progress.tasks_per_second, progress.seconds_left) = (Some(3.0), Some(90.0));
        show(&bar, &tasks, &progress);
        assert_eq!(bar.prefix(), "9/10 tasks, 3/s, 1m 30s left");
    }
}
