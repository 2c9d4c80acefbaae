//! Handles the deadlines that have passed.

use std::time::Instant;

use super::Scheduler;
use crate::event::JobError;
use crate::lease::{AttemptFailure, Revocation};

impl Scheduler {
    /// The instant at which [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(expires_at, _)| *expires_at);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let hold = self.holds.first().map(|(until, _)| *until);
        let timers = [expiry, deadline, hold, self.patience.next_due(), self.stragglers.next_due()];
        timers.into_iter().flatten().min()
    }

    /// Ends the leases that have expired, the jobs whose deadline is reached and those that have waited too long for a
    /// worker; notes the leases that have become late and the runs that are no longer held back.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_leases(now);
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.fail_job(id, JobError::TimedOut);
        }
        self.give_up_waiting(now);
        while let Some((until, id)) = self.holds.first().copied()
            && until <= now
        {
            self.holds.pop_first();
            if let Some(job) = self.jobs.get(&id) {
                self.workers.note_change(job.class);
            }
        }
        while let Some(attempt) = self.stragglers.pop_late(now) {
            let id = self.leases[&attempt].job;
            self.stragglers.note_late(id, attempt);
            self.refresh_stragglers(id);
            self.workers.note_change(self.jobs[&id].class);
        }
    }

    fn expire_leases(&mut self, now: Instant) {
        while let Some((expires_at, attempt)) = self.expiries.first().copied()
            && expires_at <= now
        {
            let record = &self.leases[&attempt];
            let is_limit = record.limit_at == Some(expires_at) && !record.is_silent;
            let limit = self.jobs[&record.job].spec.task_timeout.filter(|_| is_limit);
            let (reason, cause) = match limit {
                Some(limit) => (Revocation::TimedOut, AttemptFailure::TimedOut { limit }),
                None => (Revocation::Expired, AttemptFailure::Expired),
            };
            let record = self.revoke(attempt, reason).expect("an expiry belongs to a lease");
            if record.is_silent {
                self.return_unharmed(record);
            } else {
                self.return_failed(attempt, record, cause, now);
            }
        }
    }

    fn give_up_waiting(&mut self, now: Instant) {
        while let Some(class) = self.patience.due_class(now) {
            let unserved_since = self.workers.unserved_since(class).expect("only classes without workers are due");
            let (_, id, waited) = self.patience.first(class, unserved_since).expect("a job of the class is due");
            self.fail_job(id, JobError::NoWorker { waited });
        }
    }
}
