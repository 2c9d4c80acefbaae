//! Tracks which coordinators accept this worker's heartbeats, and the time since the last accepted one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::Health;

const OBSTACLE: &str = "no coordinator takes its heartbeats";

/// Keeps the worker's readiness: the worker is ready while a coordinator accepts its heartbeats.
#[derive(Debug)]
pub(crate) struct Presence {
    health: Health,
    state: Mutex<AcceptedHeartbeats>,
}

#[derive(Debug)]
struct AcceptedHeartbeats {
    takers: usize,
    last_taken_at: Instant,
}

/// A coordinator that accepts heartbeats, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Taker(Arc<Presence>);

impl Presence {
    pub(crate) fn new(health: Health) -> Self {
        health.set_obstacle(Some(OBSTACLE));
        Self { health, state: Mutex::new(AcceptedHeartbeats { takers: 0, last_taken_at: Instant::now() }) }
    }

    pub(crate) fn add(self: &Arc<Self>) -> Taker {
        let mut state = self.state();
        state.takers += 1;
        self.health.set_obstacle(None);
        Taker(Arc::clone(self))
    }

    /// Notes an accepted heartbeat.
    pub(crate) fn taken(&self) {
        self.state().last_taken_at = Instant::now();
    }

    /// Zero while a coordinator accepts heartbeats; else the time since the last accepted one, or since the start.
    pub(crate) fn silence(&self) -> Duration {
        let state = self.state();
        if state.takers > 0 { Duration::ZERO } else { state.last_taken_at.elapsed() }
    }

    pub(crate) fn takers(&self) -> usize {
        self.state().takers
    }

    fn state(&self) -> MutexGuard<'_, AcceptedHeartbeats> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.takers -= 1;
        if state.takers == 0 {
            self.0.health.set_obstacle(Some(OBSTACLE));
        }
    }
}
