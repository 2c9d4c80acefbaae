//! Hears of events that others write: the counter is looked at every 50 ms, and at once when a notification hints at it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use store::backend::raise_latest;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

use crate::error::DbError;
use crate::link::{Link, Purpose};
use crate::rows;
use crate::target::Target;

/// How often the counter is looked at.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long the database may take to answer before the connection is made anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the connection is made again.
const PAUSE: Duration = Duration::from_millis(200);

const NEWEST: &str = "SELECT event FROM counter";

/// Raises the number of the newest event, as long as somebody holds `alive`.
pub(crate) async fn watch_events(target: Arc<Target>, latest: watch::Sender<u64>, alive: Weak<()>) {
    let mut is_away = false;
    while alive.strong_count() > 0 {
        let Err(error) = follow(&target, &latest, &alive).await else { return };
        if !std::mem::replace(&mut is_away, true) {
            tracing::warn!(%error, "cannot hear of new events");
        } else {
            tracing::debug!(%error, "cannot hear of new events");
        }
        sleep(PAUSE).await;
    }
}

async fn follow(target: &Target, latest: &watch::Sender<u64>, alive: &Weak<()>) -> Result<(), DbError> {
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
        let row = timeout(ANSWER_TIMEOUT, link.query_opt(NEWEST, &[])).await.map_err(|_| DbError::NoAnswer)??;
        let row = row.ok_or_else(|| DbError::Damaged("the counter's row is gone".to_owned()))?;
        raise_latest(latest, rows::count(&row, 0)?);
        // Nothing is decided by whether a hint came.
        let _ = timeout(INTERVAL, hint.notified()).await;
    }
    Ok(())
}
