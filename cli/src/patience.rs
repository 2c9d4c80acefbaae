//! Asks a grid again that cannot serve at the moment: another coordinator is about to lead, its store is away, or the
//! connection broke. For requests that do the same when they are made twice.

use std::time::Duration;

use api::client::{AnswerError, Error};
use tokio::time::{Instant, sleep};

/// Time after its first failure in which a request is repeated: longer than a takeover and the start of a coordinator.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The answer to a request, which is repeated while the grid cannot serve for now; the last error where it stays so.
pub(crate) async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let (mut failing_since, mut pause) = (None, FIRST_PAUSE);
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !may_pass(&error, failing_since.is_some()) {
            return Err(error);
        }
        if failing_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            return Err(error);
        }
        // Half of it by chance, so that many that wait do not come back at once.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the grid may be there soon. A grid that has never answered is more likely to be elsewhere.
fn may_pass(error: &Error, was_there: bool) -> bool {
    match error {
        // Timeouts, no room for another upload, and answers of a proxy whose coordinator is away.
        Error::Refused { status, .. } => [408, 429, 502, 503, 504].contains(&status.as_u16()),
        Error::Unreachable { source, .. } => !source.is_timeout() && (was_there || !source.is_connect()),
        // The connection broke within the answer.
        Error::Answer { source: AnswerError::Incomplete(source), .. } => !source.is_timeout(),
        Error::Start(_) | Error::NoResult { .. } | Error::Answer { .. } => false,
    }
}
