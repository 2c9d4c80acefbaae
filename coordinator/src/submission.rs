//! Reads a job as clients write it, over HTTP or into a topic.

use std::num::NonZeroU64;

use api::{JobRequest, ParsedJob};
use model::Priority;
use service::{ApiError, parse_json};
use sha2::{Digest, Sha256};

use crate::fingerprint::Fingerprints;
use crate::http::from_invalid;

/// Reads a job; `priority` replaces the job's own priority if it is given.
pub(crate) fn read(
    body: &[u8],
    chunk_size: NonZeroU64,
    priority: Option<Priority>,
) -> Result<(ParsedJob, Fingerprints), ApiError> {
    let request: JobRequest = parse_json(body)?;
    let mut job = request.parse(chunk_size).map_err(from_invalid)?;
    job.options.priority = priority.unwrap_or(job.options.priority);
    let fingerprints = Fingerprints::of(&job).and_body(Sha256::digest(body).into());
    Ok((job, fingerprints))
}
