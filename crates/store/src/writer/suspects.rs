//! Recorded changes that meet damage. They are held back until something of another job is written, which shows that the
//! damage is that of their jobs alone.

use std::collections::BTreeMap;

use model::JobId;

use crate::batch::Entry;
use crate::error::WriteError;
use crate::queue::Group;

#[derive(Default)]
pub(super) struct Suspects {
    pub(super) errors: BTreeMap<JobId, WriteError>,
    /// Their changes in order, and callers that wait for these.
    pub(super) held: Group,
    /// Whether other jobs can be written.
    pub(super) are_alone: bool,
}

impl Suspects {
    /// Takes the entries of these jobs, and the callers that wait for them, out of a part.
    pub(super) fn hold_back(&mut self, part: &mut Group) {
        if self.errors.is_empty() {
            return;
        }
        let (entries, tickets) = (std::mem::take(&mut part.entries), std::mem::take(&mut part.tickets));
        for (entry, mut ticket) in entries.into_iter().zip(tickets) {
            let error = changed_job(&entry).and_then(|job| self.errors.get(&job));
            let group = if error.is_some() && ticket.reply.is_none() { &mut self.held } else { &mut *part };
            let is_refused = error.is_some_and(|error| ticket.refuse(error));
            group.entries.push(if is_refused { Entry::Nothing } else { entry });
            group.tickets.push(ticket);
        }
        self.held.barriers.append(&mut part.barriers);
    }

    /// A part that has nothing of these jobs in it is written.
    pub(super) fn note_written(&mut self, part: &Group) {
        self.are_alone |= part.entries.iter().any(|entry| matches!(entry, Entry::Submission(_) | Entry::Change(_)));
    }
}

/// The job that an entry changes.
pub(super) fn changed_job(entry: &Entry) -> Option<JobId> {
    match entry {
        Entry::Change(change) => Some(change.job),
        Entry::Submission(_)
        | Entry::Advance(_)
        | Entry::Housekeeping(_)
        | Entry::Program(_)
        | Entry::Log(_)
        | Entry::Drain(_)
        | Entry::Nothing => None,
    }
}
