//! Pages of jobs, bounded by their number and by their length: what a client writes into its jobs may be long.

use model::JobOptions;
use store::{Cursor, JobFilter, JobRecord, ReadError, Store};

/// Jobs that are read at first for a page.
const LISTED_AT_ONCE: usize = 100;

/// Bytes of what clients have written into jobs after which a page ends, however many jobs it has.
const PAGE_BYTES: usize = 8 << 20;

/// Some jobs from a place on, and where the next page begins. They are read in steps, which grow while they are short.
pub(super) async fn page(
    store: &Store,
    filter: &JobFilter,
    mut before: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<JobRecord>, Option<Cursor>), ReadError> {
    let (mut records, mut step, mut bytes) = (Vec::new(), LISTED_AT_ONCE, 0);
    loop {
        let wanted = step.min(limit - records.len());
        // One more than wanted tells whether there is another one.
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
