//! Long outputs: handed in as objects at the coordinator, from the file that the program has written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{OutputObject, ProgramHash, TextCheck};
use sha2::{Digest, Sha256};
use workloads::ExecuteError;

use super::Programs;
use super::run::{Owner, from_fetch};
use crate::courier::Content;

/// Bytes of one read of a file.
const PIECE_BYTES: usize = 256 * 1024;

impl Programs {
    /// Uploads an output and returns the reference for the outcome. Goes on until the coordinator has it or the attempt is
    /// stopped.
    pub(super) fn hand_in(
        &self,
        owner: Owner<'_>,
        task: u64,
        file: File,
        stop: &AtomicBool,
    ) -> Result<OutputObject, ExecuteError> {
        let file = Arc::new(file);
        let object = examine(owner, &file, stop)?;
        let OutputObject { attempt, bytes, sha256, text } = object;
        let path = [owner.job.to_string(), attempt.to_string(), task.to_string()];
        let path = ["worker", "outputs", &path[0], &path[1], &path[2]];
        let query = [("bytes", bytes.to_string()), ("sha256", sha256.to_string()), ("text", text.to_string())];
        let content = Content { file, bytes };
        self.courier.hand_in(attempt, &path, &query, &content, stop).map_err(from_fetch)?;
        Ok(object)
    }
}

/// Reads a file once for its length, its hash and whether it is UTF-8.
fn examine(owner: Owner<'_>, file: &File, stop: &AtomicBool) -> Result<OutputObject, ExecuteError> {
    let unreadable = |error: io::Error| ExecuteError::Broken(format!("its stdout cannot be read again: {error}"));
    let (mut digest, mut check, mut bytes) = (Sha256::new(), TextCheck::default(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(ExecuteError::Stopped);
        }
        let length = file.read_at(&mut piece, bytes).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        digest.update(&piece[..length]);
        check.push(&piece[..length]);
        bytes += length as u64;
    }
    let sha256 = ProgramHash(digest.finalize().into());
    Ok(OutputObject { attempt: owner.attempt, bytes, sha256, text: check.is_text() })
}
