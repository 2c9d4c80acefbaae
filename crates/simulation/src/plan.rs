//! The shape of one run, drawn from its seed: how many parts there are and which faults they meet.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// Virtual time, in microseconds since the beginning of a run.
pub(crate) type Micros = u64;

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// The faults of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// None: every task runs once, and no job fails but by its own tasks.
    None,
    /// Coordinators are killed and started again, and commits are slow: no pushed task runs twice.
    Restarts,
    /// All of them.
    All,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) workers: usize,
    pub(crate) pullers: usize,
    pub(crate) jobs: usize,
    pub(crate) asks: usize,
    /// Time in which clients submit and faults occur.
    pub(crate) busy: Micros,
    /// Mean time between two faults.
    pub(crate) fault_interval: Micros,
    pub(crate) max_delay: Micros,
    /// Share of messages that are lost, and that arrive twice.
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) max_commit: Micros,
    /// Share of batches that are not written, or not known to be.
    pub(crate) commit_failures: f64,
    pub(crate) orphan_timeout: Micros,
    pub(crate) lease_timeout: Micros,
    pub(crate) max_unstored: u64,
    /// Whether clients pause, cancel and retry jobs.
    pub(crate) has_actions: bool,
    /// Whether some tasks fail.
    pub(crate) has_failures: bool,
    /// Whether some jobs have a time limit for their tasks.
    pub(crate) has_limits: bool,
    /// Whether jobs are verified: then the first worker lies about them.
    pub(crate) has_liar: bool,
}

impl Plan {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let faults = match rng.random_range(0..10) {
            0..2 => Faults::None,
            2..4 => Faults::Restarts,
            _ => Faults::All,
        };
        let is_harsh = faults == Faults::All;
        let harsh = |share: f64| if is_harsh { share } else { 0.0 };
        let workers = rng.random_range(1..5);
        Self {
            faults,
            workers,
            // Two others must agree.
            has_liar: workers > 2 && rng.random_bool(0.5),
            pullers: rng.random_range(0..4),
            jobs: rng.random_range(2..14),
            asks: rng.random_range(0..10),
            busy: rng.random_range(5..60) * SECOND,
            fault_interval: rng.random_range(1..12) * SECOND,
            max_delay: [MS / 2, 2 * MS, 20 * MS, 200 * MS][rng.random_range(0..if is_harsh { 4 } else { 2 })],
            loss: harsh([0.0, 0.01, 0.1][rng.random_range(0..3)]),
            duplication: harsh([0.0, 0.05, 0.2][rng.random_range(0..3)]),
            max_commit: [2 * MS, 20 * MS, 500 * MS, 4 * SECOND]
                [rng.random_range(0..if faults == Faults::None { 2 } else { 4 })],
            commit_failures: harsh([0.0, 0.05, 0.3][rng.random_range(0..3)]),
            orphan_timeout: [60, 60, 15][rng.random_range(0..if is_harsh { 3 } else { 2 })] * SECOND,
            lease_timeout: [30, 10, 5][rng.random_range(0..if is_harsh { 3 } else { 1 })] * SECOND,
            max_unstored: [50_000, 40][rng.random_range(0..2)],
            has_actions: rng.random_bool(0.6),
            has_failures: rng.random_bool(0.5),
            has_limits: rng.random_bool(0.5),
        }
    }
}
