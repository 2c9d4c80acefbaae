//! Entries that cannot be written.

use crate::batch::{Answer, Entry};
use crate::queue::Group;

/// Answers an entry that cannot be written and puts [`Entry::Nothing`] in its place. False where that is there already, or
/// no entry at all.
pub(super) fn refuse(part: &mut Group, index: usize, reason: String) -> bool {
    let Some(entry) = part.entries.get_mut(index).filter(|entry| !matches!(entry, Entry::Nothing)) else {
        tracing::error!(%reason, "a batch was refused");
        return false;
    };
    log_refusal(entry, &reason);
    *entry = Entry::Nothing;
    if let Some(reply) = part.tickets.get_mut(index).and_then(|ticket| ticket.reply.take()) {
        // The caller may have left.
        let _ = reply.send(Ok(Answer::Refused(reason)));
    }
    true
}

/// Says why an entry was refused.
pub(super) fn log_refusal(entry: &Entry, reason: &str) {
    match entry {
        Entry::Change(change) => tracing::error!(job_id = %change.job, %reason, "a change was refused"),
        // The client gets the reason: no operator has to act.
        Entry::Submission(job) => tracing::info!(job_id = %job.id, %reason, "a job was refused"),
        Entry::Advance(advance) => tracing::error!(stream = advance.stream, %reason, "a move was refused"),
        Entry::Program(_) => tracing::info!(%reason, "a program was not deleted"),
        Entry::Log(log) => tracing::error!(job_id = %log.job, %reason, "a log was refused"),
        Entry::Housekeeping(_) | Entry::Drain(_) | Entry::Nothing => tracing::error!(%reason, "a deletion was refused"),
    }
}
