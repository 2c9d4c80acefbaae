//! The computation of simulated workers. The value of a range is the sum or the count of its numbers: both have a formula, so the
//! answer to a whole job does not depend on its division.

use std::ops::Range;

use model::JobKind;
use serde::Deserialize;
use serde_json::value::RawValue;
use workloads::Report;

use crate::disk::is_composed;

/// The outcome of a lease at its simulated worker.
#[derive(Clone, Debug)]
pub(crate) enum SimOutcome {
    Done { value: Option<u128>, results: Vec<Box<RawValue>>, busy: u64 },
    Failed,
}

/// A worker's answer to a lease.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ended(SimOutcome),
    /// 503: it drains.
    HandedBack,
    /// 409: it is another process, knows a later epoch or was told to stop.
    Refused(&'static str),
}

#[derive(Deserialize)]
struct Numbers {
    a: u64,
    b: u64,
}

/// The value of the numbers from `a` to `b`.
pub(crate) fn value(kind: JobKind, a: u64, b: u64) -> u128 {
    let (a, b) = (u128::from(a), u128::from(b));
    if kind == JobKind::SUM_OF_PRIMES { (a + b) * (b - a + 1) / 2 } else { b - a + 1 }
}

/// The value of a lease's work.
pub(crate) fn value_of(kind: JobKind, work: &RawValue) -> Option<u128> {
    let Numbers { a, b } = serde_json::from_str(work.get()).ok()?;
    Some(value(kind, a, b))
}

/// The answer of a `tasks` task to its payload.
pub(crate) fn answer_to(payload: u64) -> u64 {
    payload * payload + 1
}

pub(crate) fn json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("the simulation writes JSON")
}

impl SimOutcome {
    /// The outcome of a pushed worker.
    pub(crate) fn pushed(kind: JobKind, work: &RawValue, busy: u64) -> Self {
        Self::Done { value: Some(value_of(kind, work).unwrap_or(0)), results: Vec::new(), busy }
    }

    /// The outcome of a pulling worker for its payloads; `numbers` are those of the kind `tasks`.
    pub(crate) fn pulled(
        kind: JobKind,
        tasks: &Range<u64>,
        payloads: &[Box<RawValue>],
        numbers: &[u64],
        busy: u64,
    ) -> Self {
        let results = if is_composed(kind) {
            numbers.iter().map(|number| json(answer_to(*number).to_string())).collect()
        } else if kind == JobKind::SLEEP {
            Vec::new()
        } else {
            let of = |payload: &RawValue| json(format!(r#""{}""#, value_of(kind, payload).unwrap_or(0)));
            payloads.iter().map(|payload| of(payload)).collect()
        };
        debug_assert!(results.is_empty() || results.len() as u64 == tasks.end - tasks.start);
        Self::Done { value: None, results, busy }
    }

    /// The same outcome as one value of all tasks, if the kind has values.
    pub(crate) fn summed(self, kind: JobKind) -> Self {
        match self {
            Self::Done { value: None, results, busy } if kind != JobKind::SLEEP && !is_composed(kind) => {
                let value = |result: &RawValue| result.get().trim_matches('"').parse::<u128>().unwrap_or(0);
                Self::Done { value: Some(results.iter().map(|result| value(result)).sum()), results: Vec::new(), busy }
            }
            other @ (Self::Done { .. } | Self::Failed) => other,
        }
    }

    /// Another value that could be.
    pub(crate) fn lie(self) -> Self {
        match self {
            Self::Done { value: Some(value), results, busy } => {
                Self::Done { value: Some(value.saturating_sub(1)), results, busy }
            }
            other @ (Self::Done { .. } | Self::Failed) => other,
        }
    }

    pub(crate) fn report(self) -> Option<(Report, std::time::Duration)> {
        match self {
            Self::Done { value, results, busy } => {
                Some((Report { value, results }, std::time::Duration::from_micros(busy)))
            }
            Self::Failed => None,
        }
    }
}
