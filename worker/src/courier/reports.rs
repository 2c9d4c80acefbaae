//! Last reports of programs that are under way: a worker that leaves waits a little for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Number of reports that are under way.
#[derive(Debug, Default)]
pub(super) struct Reports(Arc<watch::Sender<usize>>);

/// A report that is under way, for as long as this is there.
#[derive(Debug)]
pub(super) struct Reporting(Arc<watch::Sender<usize>>);

impl Reports {
    pub(super) fn begin(&self) -> Reporting {
        self.0.send_modify(|under_way| *under_way += 1);
        Reporting(Arc::clone(&self.0))
    }

    /// Returns whether all have ended within `patience`.
    pub(super) async fn finish(&self, patience: Duration) -> bool {
        let mut reports = self.0.subscribe();
        timeout(patience, reports.wait_for(|under_way| *under_way == 0)).await.is_ok()
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.send_modify(|under_way| *under_way -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_report_that_is_under_way_is_waited_for() {
        let reports = Reports::default();
        assert!(reports.finish(Duration::ZERO).await);
        let (first, second) = (reports.begin(), reports.begin());
        drop(first);
        assert!(!reports.finish(Duration::ZERO).await);
        let ending = tokio::spawn(async move { drop(second) });
        assert!(reports.finish(Duration::from_secs(60)).await);
        ending.await.expect("no panic");
    }
}
