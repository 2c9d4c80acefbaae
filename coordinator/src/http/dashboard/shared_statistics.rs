//! Statistics that viewers share: those of months are sums of thousands of rows, and every viewer asks for them at the same tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashboard::Period;
use model::{Counts, Grain, JobKind};
use service::ApiError;
use tokio::sync::Mutex;

use super::shared_failure::SharedFailure;

/// The age up to which figures serve further viewers: less than from one tick to the next.
const SHARED_FOR: Duration = Duration::from_millis(950);

/// Length of the periods, and the kind of job; none for all.
type Wanted = (Grain, Option<JobKind>);

/// Figures as a page shows them.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The version of the page with them.
    pub(super) version: String,
    pub(super) periods: Vec<Period>,
    pub(super) by_kind: Vec<(JobKind, Counts)>,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    gathered_at: Instant,
    gathered: Arc<Gathered>,
}

/// The figures of the last second.
#[derive(Debug, Default)]
pub(super) struct SharedStatistics(Mutex<(Vec<Entry>, SharedFailure)>);

impl SharedStatistics {
    pub(super) async fn get(
        &self,
        wanted: Wanted,
        now: Instant,
        gather: impl AsyncFnOnce() -> Result<Gathered, ApiError>,
    ) -> Result<Arc<Gathered>, ApiError> {
        let came_at = Instant::now();
        // Held while the figures are gathered: concurrent viewers get the same ones.
        let mut guard = self.0.lock().await;
        let (entries, failure) = &mut *guard;
        entries.retain(|entry| now.saturating_duration_since(entry.gathered_at) < SHARED_FOR);
        if let Some(fresh) = entries.iter().find(|entry| entry.wanted == wanted) {
            return Ok(Arc::clone(&fresh.gathered));
        }
        failure.check(came_at)?;
        let began_at = Instant::now();
        let gathered = Arc::new(failure.note(began_at, gather().await)?);
        entries.push(Entry { wanted, gathered_at: now, gathered: Arc::clone(&gathered) });
        Ok(gathered)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;

    fn gathered(version: &str) -> Gathered {
        Gathered { version: version.to_owned(), periods: Vec::new(), by_kind: Vec::new() }
    }

    #[tokio::test]
    async fn viewers_share_the_figures_of_a_second_and_get_others_for_another_grain_or_kind() {
        let (shared, start) = (SharedStatistics::default(), Instant::now());
        let get = async |wanted: Wanted, after_ms: u64, version: &'static str| {
            let gather = async || -> Result<Gathered, ApiError> { Ok(gathered(version)) };
            let got = shared.get(wanted, start + Duration::from_millis(after_ms), gather).await.expect("gathered");
            got.version.clone()
        };
        let (all, sleep) = ((Grain::Hour, None), (Grain::Hour, Some(JobKind::SLEEP)));
        assert_eq!(get(all, 0, "first").await, "first");
        assert_eq!(get(all, 900, "second").await, "first");
        assert_eq!(get(sleep, 900, "of sleep").await, "of sleep");
        assert_eq!(get((Grain::Month, None), 900, "of months").await, "of months");
        assert_eq!(get(all, 1_000, "third").await, "third");
        assert_eq!(get(sleep, 1_000, "later").await, "of sleep");
    }

    #[tokio::test]
    async fn viewers_who_wait_for_figures_that_cannot_be_read_do_not_try_one_after_the_other() {
        let (shared, attempts) = (SharedStatistics::default(), Cell::new(0));
        let fails = async || -> Result<Gathered, ApiError> {
            attempts.set(attempts.get() + 1);
            tokio::task::yield_now().await;
            Err(ApiError::Unavailable("the store says nothing".to_owned()))
        };
        let viewers = (0..10).map(|_| shared.get((Grain::Day, None), Instant::now(), &fails));
        let answers = join_all(viewers).await;
        assert!(answers.iter().all(Result::is_err));
        // One was under way when the others came.
        assert!(attempts.get() <= 2, "{} attempts", attempts.get());
    }

    #[tokio::test]
    async fn figures_that_cannot_be_read_are_gathered_again() {
        let (shared, now) = (SharedStatistics::default(), Instant::now());
        let wanted = (Grain::Day, None);
        let fails =
            async || -> Result<Gathered, ApiError> { Err(ApiError::Unavailable("the store is closed".to_owned())) };
        assert!(shared.get(wanted, now, fails).await.is_err());
        let works = async || -> Result<Gathered, ApiError> { Ok(gathered("e1")) };
        assert_eq!(shared.get(wanted, now, works).await.expect("gathered").version, "e1");
    }
}
