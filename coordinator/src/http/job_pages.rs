//! Pages of jobs, bounded by their number and by their length: clients may write long texts into jobs.

use model::JobOptions;
use store::{Cursor, JobFilter, JobRecord, ReadError, Store};

/// Jobs that are read in the first step of a page.
const LISTED_AT_ONCE: usize = 100;

/// Bytes of clients' texts in jobs after which a page ends, however many jobs it has.
const PAGE_BYTES: usize = 8 << 20;

/// A page of jobs from a place on, and the place of the next page. Jobs are read in steps, which grow while their texts are
/// short.
pub(super) async fn page(
    store: &Store,
    filter: &JobFilter,
    mut before: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<JobRecord>, Option<Cursor>), ReadError> {
    let (mut records, mut step, mut bytes) = (Vec::new(), LISTED_AT_ONCE, 0);
    loop {
        let wanted = step.min(limit - records.len());
        // A job beyond the wanted ones shows that there is another page.
        let mut some = store.jobs(filter.clone(), before, wanted + 1).await?;
        let has_more = some.len() > wanted;
        some.truncate(wanted);
        let some_bytes: usize = some.iter().map(text_bytes).sum();
        (before, bytes) = (some.last().map(Cursor::from), bytes + some_bytes);
        records.append(&mut some);
        if !has_more {
            return Ok((records, None));
        }
        if records.len() == limit || bytes >= PAGE_BYTES {
            return Ok((records, before));
        }
        step = if some_bytes < PAGE_BYTES / 8 { step * 4 } else { LISTED_AT_ONCE };
    }
}

/// Bytes of the texts of a job: its parameters, labels and error.
fn text_bytes(job: &JobRecord) -> usize {
    let JobOptions { tags, affinity, requires, .. } = &job.options;
    let labels = [tags, &affinity.labels, &requires.labels].into_iter().flatten();
    let words: usize = labels.map(|(key, value)| key.len() + value.len()).sum();
    job.params.get().len() + words + job.error.as_ref().map_or(0, String::len)
}
