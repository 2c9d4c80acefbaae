//! The parts of a running coordinator: notices that one of them has ended by itself, and ends the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use service::ended_by_itself;
use store::Store;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::leadership::{PART, Terms};
use crate::term;

/// Longest time that the other parts may take to end after one has failed: the leadership is given up and the store is closed.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts that end only when they are told to.
pub(crate) struct RunningParts {
    pub(crate) leadership: Terms,
    pub(crate) background: JoinSet<()>,
    pub(crate) serving: JoinSet<io::Result<()>>,
    pub(crate) public: ServerHandle,
    pub(crate) internal: ServerHandle,
    pub(crate) store: Arc<Store>,
}

impl RunningParts {
    /// Resolves with the reason when a part ends although nothing has stopped it.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.leadership.run() => error,
            Some(ended) = self.background.join_next() => ended_by_itself(PART, ended.map(Ok)),
            Some(ended) = self.serving.join_next() => ended_by_itself("a listener of the coordinator", ended),
        }
    }

    /// Ends the other parts after one has failed, within [`FAILURE_TIMEOUT`].
    pub(crate) async fn end_after_failure(self) {
        if timeout(FAILURE_TIMEOUT, self.end()).await.is_err() {
            warn!("stopping before all parts have ended: one of them does not end in time");
        }
    }

    /// Ends the parts, the listeners first: without the failed part, answers may be wrong.
    async fn end(self) {
        let Self { leadership, mut background, mut serving, public, internal, store } = self;
        tokio::join!(public.stop(false), internal.stop(false));
        // A task of its own: an engine that has panicked panics again when it is stopped.
        let mut leading = JoinSet::new();
        leading.spawn(leadership.stop());
        if let Some(Err(error)) = leading.join_next().await {
            warn!(%error, "the term has not ended");
        }
        background.shutdown().await;
        while serving.join_next().await.is_some() {}
        if let Err(error) = term::close(store).await {
            warn!(error = format!("{error:#}"), "the store is not closed");
        }
    }
}
