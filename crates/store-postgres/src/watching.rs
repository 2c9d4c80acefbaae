//! Watches for events of other writers: reads the counter every 50 ms, and at once after a notification. The server's clock is
//! read with it.
//!
//! A counter that has gone back shows that the database is another one than before: a replica, or a backup, without the last
//! commits; so do tables that are gone. The coordinator's state is wrong then, and only its restart corrects that.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use store::backend::raise_latest;
use store::shared::ClockReading;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Row};

use crate::error::DbError;
use crate::link::{Link, Purpose};
use crate::rows;
use crate::target::Target;

/// Interval at which the counter is read.
const INTERVAL: Duration = Duration::from_millis(50);
/// Bound on the time of the database's answer, after which the connection is made anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the connection is made again.
const PAUSE: Duration = Duration::from_millis(200);

const NEWEST: &str =
    "SELECT event, epoch, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM counter, lease";
/// Longest time of a reading of the clock: a slower reading is too inexact.
const CLOCK_WITHIN: Duration = Duration::from_millis(100);

/// The watch's connection and findings.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// The number of the newest event.
    pub(crate) latest: watch::Sender<u64>,
    /// Description of a loss of the database's data.
    pub(crate) lost: watch::Sender<Option<String>>,
    /// Last reading of the server's clock.
    pub(crate) clock: watch::Sender<ClockReading>,
}

/// Raises the number of the newest event, as long as `alive` is held and the database has lost nothing.
pub(crate) async fn watch_events(target: Arc<Target>, watch: Watch, alive: Weak<()>) {
    let (mut is_away, mut epoch) = (false, 0);
    while alive.strong_count() > 0 {
        let Err(error) = follow(&target, &watch, &mut epoch, &mut is_away, &alive).await else { return };
        if error.is_of_server() {
            target.pulse.heard();
        }
        if error.is(&SqlState::UNDEFINED_TABLE) {
            let lost = format!("the database {} has lost everything: its tables are gone", target.place);
            watch.lost.send_replace(Some(lost));
            return;
        }
        if !std::mem::replace(&mut is_away, true) {
            tracing::warn!(%error, "cannot hear of new events");
        } else {
            tracing::debug!(%error, "cannot hear of new events");
        }
        sleep(PAUSE).await;
    }
}

async fn follow(
    target: &Target,
    watch: &Watch,
    epoch: &mut u64,
    is_away: &mut bool,
    alive: &Weak<()>,
) -> Result<(), DbError> {
    let hint = Arc::new(Notify::new());
    let hinted = hint.clone();
    let listener = Box::new(move |message| {
        if matches!(message, AsyncMessage::Notification(_)) {
            hinted.notify_one();
        }
    });
    let link = Link::connect_listening(target, Purpose::Reading, listener).await?;
    link.client.batch_execute("LISTEN divvy_events").await?;
    while alive.strong_count() > 0 {
        // Read before the question: commits up to then must be in the answer.
        let (known, asked_at) = (*watch.latest.borrow(), Instant::now());
        let row = timeout(ANSWER_TIMEOUT, link.query_opt(NEWEST, &[])).await.map_err(|_| DbError::NoAnswer)??;
        target.pulse.heard();
        let row = row.ok_or_else(|| DbError::Damaged("the row of the counter or the lease is gone".to_owned()))?;
        if std::mem::take(is_away) {
            tracing::info!("new events are heard of again");
        }
        let (found, found_epoch) = (rows::count(&row, 0)?, rows::count(&row, 1)?);
        if found < known || found_epoch < *epoch {
            let lost = format!(
                "the database {} has lost commits: it had events up to {known} and epoch {epoch}, and now has {found} and \
                 {found_epoch}",
                target.place
            );
            watch.lost.send_replace(Some(lost));
            return Ok(());
        }
        *epoch = found_epoch;
        let answered_at = Instant::now();
        if answered_at.saturating_duration_since(asked_at) <= CLOCK_WITHIN {
            watch.clock.send_replace(clock_reading(asked_at, answered_at, &row, 2)?);
        }
        raise_latest(&watch.latest, found);
        // A hint only shortens the wait.
        let _ = timeout(INTERVAL, hint.notified()).await;
    }
    Ok(())
}

/// The server's clock, which was read between the question and the answer.
pub(crate) fn clock_reading(
    asked: Instant,
    answered: Instant,
    row: &Row,
    column: usize,
) -> Result<ClockReading, DbError> {
    let at = Timestamp::from_microsecond(rows::get(row, column)?);
    let at = at.map_err(|error| DbError::Damaged(format!("the server's clock: {error}")))?;
    Ok(ClockReading { instant: asked + answered.saturating_duration_since(asked) / 2, at })
}
