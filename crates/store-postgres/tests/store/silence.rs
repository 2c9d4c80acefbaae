//! A database that keeps its connections and says nothing: nobody waits for it for long.

use std::time::{Duration, Instant};

use store::{JobFilter, ReadError, Store, SubmitError, WriteError};
use test_postgres::Mode;

use crate::helpers::*;

/// Far below the bounds on an answer, which a database that is only slow may use up.
const SOON: Duration = Duration::from_secs(8);

/// The shortest time that `ask` takes to be refused by a database that falls silent before each question, in some rounds: a busy
/// machine may make one late, and what is slow by itself is slow each time.
async fn quickest_refusal(behind: &Behind, store: &Store, ask: impl AsyncFn()) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let since = Instant::now();
        while store.jobs(JobFilter::default(), None, 10).await.is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "it never answers again");
        }
        behind.proxy.set(Mode::Hold);
        let since = Instant::now();
        ask().await;
        quickest = quickest.min(since.elapsed());
        behind.proxy.set(Mode::Pass);
        if quickest < SOON {
            break;
        }
    }
    quickest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_over_a_connection_that_says_nothing_any_more_is_refused_soon() {
    let behind = Behind::new();
    let store = behind.leader();
    store.submit(range_job(1, 10)).await.expect("room");
    let quickest = quickest_refusal(&behind, &store, async || {
        // More than there are connections for lists: some wait for their turn.
        let reads = (0..10).map(|_| store.jobs(JobFilter::default(), None, 10));
        for refused in futures_util::future::join_all(reads).await {
            assert!(matches!(refused, Err(ReadError::Unavailable(_))), "{refused:?}");
        }
        // A read that may take long.
        let refused = store.unfinished().await;
        assert!(matches!(refused, Err(ReadError::Unavailable(_))), "{refused:?}");
    });
    let quickest = quickest.await;
    assert!(quickest < SOON, "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_to_a_database_that_says_nothing_any_more_is_refused_soon() {
    let behind = Behind::new();
    let store = behind.follower();
    store.submit(range_job(1, 10)).await.expect("room");
    let quickest = quickest_refusal(&behind, &store, async || {
        let refused = store.submit(range_job(2, 10)).await;
        let is_refused = |error: &SubmitError| matches!(error, SubmitError::Write(WriteError::Unavailable(_)));
        assert!(refused.as_ref().is_err_and(is_refused), "{refused:?}");
    });
    let quickest = quickest.await;
    assert!(quickest < SOON, "{quickest:?}");
    // Nothing of it was written.
    wait_until("it is written again", || store.is_failing().is_none()).await;
    assert_eq!(store.submit(range_job(2, 10)).await, Ok(store::Submission::New));
}
