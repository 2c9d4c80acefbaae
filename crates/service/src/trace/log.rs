//! Adds the ids of the active span to lines of the log.

use std::fmt;

use model::TraceContext;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Adds `trace_id` and `span_id` to the lines that are written while a span is active.
#[derive(Debug)]
pub(crate) struct WithTrace<F> {
    /// Formatter of a line without the ids.
    pub(crate) inner: F,
    /// Whether a line is a JSON object.
    pub(crate) is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(context) = super::current() else { return self.inner.format_event(ctx, writer, event) };
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        writer.write_str(&with_span(&line, self.is_json, &context))
    }
}

/// The line with the ids of a span.
fn with_span(line: &str, is_json: bool, context: &TraceContext) -> String {
    let TraceContext { trace_id, span_id, .. } = context;
    match line.strip_suffix("}\n").filter(|_| is_json) {
        Some(object) => format!("{object},\"trace_id\":\"{trace_id:032x}\",\"span_id\":\"{span_id:016x}\"}}\n"),
        None => format!("{} trace_id={trace_id:032x} span_id={span_id:016x}\n", line.trim_end_matches('\n')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_formats_end_with_their_span() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let context = TraceContext::parse(&format!("00-{trace}-{span}-01"), "").expect("valid");
        let json = with_span("{\"message\":\"late\"}\n", true, &context);
        assert_eq!(json, format!("{{\"message\":\"late\",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}\n"));
        let text = with_span("INFO late job_id=1 {}\n", false, &context);
        assert_eq!(text, format!("INFO late job_id=1 {{}} trace_id={trace} span_id={span}\n"));
    }
}
