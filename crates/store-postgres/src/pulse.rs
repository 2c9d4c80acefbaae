//! Whether the database answers at all. One that is frozen, or behind a network that loses everything, keeps its connections
//! open: each question would wait until a limit of its own, which is long enough for a slow answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::DbError;

/// Interval at which a silence is counted. It is counted and not measured: a process that stood still has not waited.
const BEAT: Duration = Duration::from_millis(100);
/// Beats without an answer on any connection after which the database is silent. Several questions are asked in this time.
const SILENT_AFTER: u32 = 20;
/// Time that a question has while the database is silent, which may answer again.
const TRY: Duration = Duration::from_millis(500);

/// The signs of life of a database. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether anything was heard since the last beat.
    is_heard: AtomicBool,
    is_silent: watch::Sender<bool>,
}

impl Pulse {
    /// Notes that the database has answered.
    pub(crate) fn heard(&self) {
        self.0.is_heard.store(true, Ordering::Relaxed);
    }

    /// Notes an answer; an error of the server's is one, too.
    pub(crate) fn note<T>(&self, answer: &Result<T, DbError>) {
        if answer.as_ref().err().is_none_or(DbError::is_of_server) {
            self.heard();
        }
    }

    /// Counts the silence, as long as `alive` is held. Without it the database is never called silent.
    pub(crate) async fn beat(self, alive: Weak<()>) {
        let mut beats = 0_u32;
        while alive.strong_count() > 0 {
            sleep(BEAT).await;
            beats = if self.0.is_heard.swap(false, Ordering::Relaxed) { 0 } else { beats.saturating_add(1) };
            let is_silent = beats >= SILENT_AFTER;
            self.0.is_silent.send_if_modified(|known| std::mem::replace(known, is_silent) != is_silent);
        }
    }

    /// The output of a question; `None` if the database is silent.
    pub(crate) async fn unless_silent<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        let silence = async {
            sleep(TRY).await;
            // The sender is a field of this pulse and never closes.
            let _ = self.0.is_silent.subscribe().wait_for(|is_silent| *is_silent).await;
        };
        tokio::select! {
            biased;
            found = asking => Some(found),
            () = silence => None,
        }
    }

    /// The answer to a question, with the error of a database that is silent.
    pub(crate) async fn answer<T>(&self, asking: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
        self.unless_silent(asking).await.unwrap_or(Err(DbError::NoAnswer))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_database_is_silent_once_nothing_is_heard_on_any_connection_and_until_something_is() {
        let (pulse, alive) = (Pulse::default(), Arc::new(()));
        let beating = tokio::spawn(pulse.clone().beat(Arc::downgrade(&alive)));
        let silent = pulse.answer(pending::<Result<(), _>>()).await;
        assert!(matches!(silent, Err(DbError::NoAnswer)), "{silent:?}");
        let mut known = pulse.0.is_silent.subscribe();
        pulse.note(&Err::<(), _>(DbError::NoAnswer));
        assert!(*known.borrow(), "no answer is none");
        pulse.note(&Ok(()));
        // The beat never closes its channel while the pulse is there.
        let _ = known.wait_for(|is_silent| !*is_silent).await;
        assert_eq!(pulse.unless_silent(std::future::ready(1)).await, Some(1));
        beating.abort();
    }
}
