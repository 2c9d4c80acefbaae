//! The trace of a run, line by line.

use std::collections::VecDeque;
use std::fmt::Display;

use crate::plan::Micros;

/// Lines that are kept for a failure.
const KEPT: usize = 400;

#[derive(Debug)]
pub(crate) struct Trace {
    is_printed: bool,
    lines: VecDeque<String>,
    /// A hash of all lines: equal for equal runs.
    hash: u64,
}

impl Trace {
    pub(crate) fn new(is_printed: bool) -> Self {
        Self { is_printed, lines: VecDeque::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub(crate) fn note(&mut self, now: Micros, actor: impl Display, what: impl Display) {
        let line = format!("{:>12.6} {actor:<14} {what}", now as f64 / 1e6);
        // FNV-1a.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_printed {
            println!("{line}");
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}
