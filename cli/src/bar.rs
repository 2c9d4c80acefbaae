//! Progress bars on stderr. indicatif draws none where stderr is no terminal or a dumb one.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::words::{figure, span};

/// A bar of tasks under a message. The bar takes what the terminal's width leaves.
pub(crate) fn with_message() -> ProgressStyle {
    style("{msg} {wide_bar} {percent:>3}% {pos}/{len} tasks{pace}")
}

/// A bar of tasks.
pub(crate) fn plain() -> ProgressStyle {
    style("{bar:40} {percent:>3}% {pos}/{len} tasks{pace}")
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a valid template");
    style.with_key("pace", |state: &ProgressState, out: &mut dyn Write| {
        // Before the first task has ended nothing is known of the pace.
        let rate = state.per_sec();
        if state.pos() > 0 && rate > 0.0 && rate.is_finite() {
            let _ = write!(out, ", {}/s, {} left", figure(rate), span(state.eta()));
        }
    })
}

/// Moves a bar forwards. What was done before the first call says nothing of the pace.
pub(crate) fn advance(bar: &ProgressBar, done: u64, total: u64) {
    let is_first = bar.length().is_none();
    bar.set_length(total);
    bar.set_position(done.max(bar.position()));
    if is_first {
        bar.reset_eta();
    }
}
