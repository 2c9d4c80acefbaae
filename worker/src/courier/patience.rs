//! The time limits of requests to a coordinator that is away, and the pauses between them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest time that a coordinator may refuse or break off requests before the task fails: a little longer than a restart.
const PATIENCE: Duration = Duration::from_secs(60);

/// Number of times that the patience begins anew because a coordinator went away with a request.
const MAX_BROKEN: u32 = 5;
/// A request that fails later than this had reached a coordinator: no connection takes so long to open.
const HAD_AFTER: Duration = Duration::from_secs(2);

/// The remaining patience of one request, and the pause before its next try.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
    broken: u32,
    pause: Duration,
    last_pause: Duration,
}

impl Patience {
    pub(super) fn begin(last_pause: Duration) -> Self {
        Self { until: Instant::now() + PATIENCE, broken: 0, pause: FIRST_PAUSE, last_pause }
    }

    /// Notes the failure of a request that began at `begun_at`. The patience begins anew if the request had reached a
    /// coordinator.
    pub(super) fn note(&mut self, begun_at: Instant) {
        if begun_at.elapsed() >= HAD_AFTER && self.broken < MAX_BROKEN {
            self.broken += 1;
            self.until = Instant::now() + PATIENCE;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() > self.until
    }

    /// Pauses after a request that began at `begun_at` and found no coordinator. The time since then does not count.
    pub(super) async fn pause_while_away(&mut self, begun_at: Instant) {
        self.pause().await;
        self.until += begun_at.elapsed();
    }

    pub(super) async fn pause(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.last_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_in_which_nobody_is_there_does_not_count() {
        let mut patience = Patience::begin(Duration::from_secs(1));
        let begun_at = Instant::now().checked_sub(PATIENCE).expect("the machine runs for longer");
        let before = patience.until;
        patience.pause_while_away(begun_at).await;
        assert!(patience.until >= before + PATIENCE && !patience.is_over());
    }

    #[test]
    fn a_coordinator_that_had_a_request_is_waited_for_anew_but_not_for_ever() {
        let mut patience = Patience::begin(Duration::from_secs(1));
        let begun_at = Instant::now().checked_sub(PATIENCE).expect("the machine runs for longer");
        patience.until = begun_at;
        patience.note(Instant::now());
        assert!(patience.is_over(), "it was away all the time");
        for _ in 0..MAX_BROKEN {
            patience.note(begun_at);
            assert!(!patience.is_over());
            patience.until = begun_at;
        }
        patience.note(begun_at);
        assert!(patience.is_over());
    }
}
