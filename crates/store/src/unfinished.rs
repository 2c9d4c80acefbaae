//! Jobs that are not over, put together from the rows of a store.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::Range;

use model::JobId;

use crate::record::{JobRecord, UnfinishedJob};
use crate::rules::SpanKind;
use crate::unreadable::Unreadable;

/// A run of tasks as it is stored, with its failures.
pub type StoredSpan = (SpanKind, Range<u64>, u32);

/// Takes rows in any order of jobs, each job before its runs. `K` is what the rows of a job name it by.
#[derive(Debug)]
pub struct UnfinishedRows<K> {
    jobs: Vec<(JobId, Result<UnfinishedJob, String>)>,
    places: HashMap<K, usize>,
}

impl<K> Default for UnfinishedRows<K> {
    fn default() -> Self {
        Self { jobs: Vec::new(), places: HashMap::new() }
    }
}

impl<K: Eq + Hash> UnfinishedRows<K> {
    /// A job's row, or why it cannot be read.
    pub fn add_job(&mut self, key: K, id: JobId, record: Result<JobRecord, impl Display>) {
        let job = record
            .map(|record| UnfinishedJob { record, done: Vec::new(), failed: Vec::new(), retries: Vec::new() })
            .map_err(|error| error.to_string());
        self.places.insert(key, self.jobs.len());
        self.jobs.push((id, job));
    }

    /// The row of a run, or why it cannot be read. One of a job that is not here is left out.
    pub fn add_span(&mut self, key: &K, span: Result<StoredSpan, impl Display>) {
        let place = self.places.get(key).copied();
        let Some((_, job)) = place.and_then(|place| self.jobs.get_mut(place)) else { return };
        let Ok(found) = job else { return };
        match span {
            Ok((SpanKind::Done, tasks, _)) => found.done.push(tasks),
            Ok((SpanKind::Failed, tasks, _)) => found.failed.push(tasks),
            Ok((SpanKind::Retry, tasks, failures)) => found.retries.push((tasks, failures)),
            Err(error) => *job = Err(error.to_string()),
        }
    }

    /// The jobs that can be read, in the order in which they came. The others are noted.
    pub fn finish(self, unreadable: &Unreadable) -> Vec<UnfinishedJob> {
        let mut readable = Vec::with_capacity(self.jobs.len());
        drop(self.places);
        for (id, job) in self.jobs {
            let whole = job.and_then(|mut job| {
                job.add_failed_to_done();
                job.check().map(|()| job).map_err(|error| error.to_string())
            });
            match whole {
                Ok(job) => readable.push(job),
                Err(error) => unreadable.note_job(id, &error),
            }
        }
        readable.sort_unstable_by_key(|job| (job.record.submitted_at, job.record.id));
        readable
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests {
    use super::*;
    use crate::suite::helpers::{id, range_job};

    fn read(spans: Vec<StoredSpan>) -> Result<UnfinishedJob, String> {
        let (mut rows, unreadable) = (UnfinishedRows::default(), Unreadable::default());
        rows.add_job(1, id(1), Ok::<_, String>(range_job(1, 10).accepted().record));
        for span in spans {
            rows.add_span(&1, Ok::<_, String>(span));
        }
        let mut found = rows.finish(&unreadable);
        found.pop().ok_or_else(|| unreadable.why(id(1)).expect("it is noted"))
    }

    #[test]
    fn runs_that_cannot_be_make_their_job_unreadable() {
        use SpanKind::{Done, Failed, Retry};
        let job = read(vec![(Done, 0..3, 0), (Done, 5..6, 0), (Failed, 3..4, 4), (Retry, 8..10, 1)]).expect("runs");
        assert_eq!((job.done, job.retries), (vec![0..4, 5..6], vec![(8..10, 1)]));
        assert!(job.failed.into_iter().eq(std::iter::once(3..4)));
        for (wrong, why) in [
            (vec![(Done, 9..11, 0)], "beyond the last task"),
            (vec![(Done, 3..3, 0)], "empty"),
            (vec![(Retry, Range { start: 5, end: 2 }, 1)], "empty"),
            (vec![(Done, 0..4, 0), (Done, 3..5, 0)], "overlap"),
            (vec![(Done, 0..4, 0), (Failed, 2..3, 4)], "overlap"),
            (vec![(Done, 0..4, 0), (Retry, 3..5, 1)], "overlap"),
            (vec![(Retry, 0..4, 2), (Retry, 3..5, 1)], "overlap"),
        ] {
            let found = read(wrong.clone()).expect_err("it cannot be");
            assert!(found.contains(why), "{wrong:?}: {found}");
        }
    }
}
