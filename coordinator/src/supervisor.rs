//! The tasks that a coordinator starts while it runs: its stop waits for all of them, so that no task goes on afterwards.

use service::trace;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Supervisor {
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Supervisor {
    /// Starts a task that is dropped when the coordinator stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move { stopping.run_until_cancelled(task).await });
    }

    /// Starts a task that runs to its end, such as a change that must not stop half made.
    pub(crate) fn spawn_whole<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(trace::carried(task))
    }

    /// Whether tasks that retry should end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Drops the tasks that may be dropped and waits for the others.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn stopping_drops_endless_tasks_and_waits_for_whole_ones() {
        let (supervisor, done) = (Supervisor::default(), Arc::new(AtomicBool::new(false)));
        supervisor.spawn(std::future::pending());
        let finished = Arc::clone(&done);
        supervisor.spawn_whole(async move {
            tokio::task::yield_now().await;
            finished.store(true, Ordering::Relaxed);
        });
        assert!(!supervisor.is_stopping());
        supervisor.stop().await;
        assert!(supervisor.is_stopping() && done.load(Ordering::Relaxed));
    }
}
