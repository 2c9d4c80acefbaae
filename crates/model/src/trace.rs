//! A place in a trace, as W3C Trace Context (Recommendation of 2021-11-23) writes it in the headers `traceparent` and
//! `tracestate`.

use std::fmt;

use uuid::Uuid;

/// Longest kept `tracestate`, in bytes: the least length that the Recommendation asks every system to pass on.
const MAX_STATE_BYTES: usize = 512;

/// A span as its children name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, not 0.
    pub trace_id: u128,
    /// The span, not 0.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
    /// Additions of tracing systems, as in `tracestate`; empty if there are none.
    pub state: String,
}

impl TraceContext {
    /// Reads the two headers. `None` if `traceparent` is invalid; a `tracestate` that is too long is dropped.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<Self> {
        let text = traceparent.trim_matches([' ', '\t']);
        let (version, rest) = (hexadecimal(text.get(..2)?)?, text.get(2..)?);
        let length_fits =
            if version == 0 { text.len() == 55 } else { text.len() == 55 || text.get(55..56) == Some("-") };
        if version == 0xff || !length_fits {
            return None;
        }
        let mut fields = rest.strip_prefix('-')?.splitn(4, '-');
        let mut field = |digits| fields.next().filter(|field| field.len() == digits).and_then(hexadecimal);
        let (trace_id, span_id, flags) = (field(32)?, u64::try_from(field(16)?).ok()?, field(2)?);
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        let state = if tracestate.len() > MAX_STATE_BYTES { String::new() } else { tracestate.to_owned() };
        Some(Self { trace_id, span_id, is_sampled: flags & 1 == 1, state })
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn at(&self, span_id: u64) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// The span of a job or of an attempt, which every process computes from the id alone: children can name the span long before
    /// it ends, and any coordinator can report its end.
    #[must_use]
    pub fn span_of(id: Uuid) -> u64 {
        let (high, low) = id.as_u64_pair();
        mixed(mixed(high ^ GOLDEN_RATIO).wrapping_add(low)).max(1)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// Digits without a sign, in lower case as the Recommendation has them.
fn hexadecimal(digits: &str) -> Option<u128> {
    let are_digits = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    are_digits.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

/// The increment of SplitMix64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): ids differ in few bits, spans should differ in many.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The example of the Recommendation, section 3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_recommendation_is_read_and_written() {
        let context = TraceContext::parse(EXAMPLE, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE").expect("valid");
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span_id, context.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.state, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        assert_eq!(context.traceparent(), EXAMPLE);
        let unsampled = EXAMPLE.replace("-01", "-00");
        let parsed = TraceContext::parse(&unsampled, "").expect("valid");
        assert_eq!((parsed.is_sampled, parsed.traceparent()), (false, unsampled));
    }

    #[test]
    fn later_versions_and_flags_are_read_as_far_as_they_are_known() {
        let longer = EXAMPLE.replace("00-4b", "cc-4b") + "-what-the-future-will-be-like";
        assert_eq!(TraceContext::parse(&longer, ""), TraceContext::parse(EXAMPLE, ""));
        let flags = EXAMPLE.replace("-01", "-03");
        assert_eq!(TraceContext::parse(&flags, "").expect("valid").traceparent(), EXAMPLE);
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for text in [
            "",
            "00",
            "00-",
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replace("00-4b", "ff-4b"),
            &EXAMPLE.replace("00-4b", "0x-4b"),
            &EXAMPLE.replace("-00f067aa0ba902b7", "-0000000000000000"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &EXAMPLE.replace("-01", "-1"),
            &EXAMPLE.replace("4bf92f", "+bf92f"),
            &format!("{EXAMPLE}-more"),
            &EXAMPLE.replace("00-4b", "cc-4b").replace("-01", "-01x"),
            "00-ü",
        ] {
            assert_eq!(TraceContext::parse(text, ""), None, "{text}");
        }
    }

    #[test]
    fn a_state_that_is_too_long_is_dropped_and_the_trace_goes_on() {
        let long = format!("a={}", "x".repeat(MAX_STATE_BYTES));
        assert_eq!(TraceContext::parse(EXAMPLE, &long).expect("valid").state, "");
    }

    #[test]
    fn ids_that_differ_in_one_bit_have_spans_of_their_own() {
        let spans: HashSet<_> = (0..128).map(|bit| TraceContext::span_of(Uuid::from_u128(1 << bit))).collect();
        assert_eq!(spans.len(), 128);
    }
}
