//! Checks of leases that are divided: the tasks that a worker hands back, or that do not reach it, are open again, and the lease
//! goes on without them.

use std::ops::Range;

use model::{AttemptId, JobId};
use scheduler::WorkerKey;

use super::Leased;
use crate::coordinator::short;
use crate::plan::{MS, Micros};
use crate::world::World;

/// Time for which tasks stay away from the worker that has handed them back: twice the lease target.
const HELD_BACK: Micros = 80 * MS;

/// The reason for which a lease is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// Its worker hands the rest back.
    HandedBack,
    /// The rest was not delivered.
    Undelivered,
}

/// A lease of which the present input takes tasks back.
#[derive(Debug)]
pub(super) struct Divided {
    attempt: AttemptId,
    beyond: u64,
    /// The tasks, if they are to stay away from their worker.
    handed_back: Option<HandedBack>,
}

/// Tasks that their worker has handed back.
#[derive(Debug)]
pub(super) struct HandedBack {
    job: JobId,
    tasks: Range<u64>,
    worker: WorkerKey,
    until: Micros,
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl World {
    /// Takes the tasks from `beyond` on back from a lease. Returns whether the lease ends there; `None` if there is no lease.
    pub(crate) fn divide(&mut self, attempt: AttemptId, beyond: u64, division: Division) -> Option<bool> {
        let must = self.must_divide(attempt, beyond, division);
        self.account_dividing(attempt, beyond, division);
        let divided = self.input(|engine, now| match division {
            Division::HandedBack => engine.release_rest(attempt, beyond, now),
            Division::Undelivered => engine.shorten(attempt, beyond, now),
        });
        let divided = divided.and_then(Result::ok);
        self.note("coordinator", format_args!("{} ends at {beyond} ({division:?}): {divided:?}", short(attempt)));
        if let Some(must) = must
            && divided != Some(must)
        {
            let what = format!("{} is divided at {beyond} ({division:?}): {divided:?}", short(attempt));
            self.violate(format!("{what}, and must be: {must}"));
        }
        divided
    }

    /// Takes back the tasks of a lease from `beyond` on, which a report does not name.
    pub(crate) fn divide_at_named(&mut self, attempt: AttemptId, beyond: u64) {
        let must = match self.audit.account.leases.get(&attempt) {
            Some(lease) if lease.tasks.end <= beyond => Some(false),
            Some(_) | None => self.must_divide(attempt, beyond, Division::HandedBack),
        };
        self.account_dividing(attempt, beyond, Division::HandedBack);
        let is_divided = self.input(|engine, now| engine.end_at_named(attempt, beyond, now)).unwrap_or(false);
        if must.is_some_and(|must| must != is_divided) {
            self.violate(format!("{} ends at {beyond}, as a report names it: {is_divided}", short(attempt)));
        }
    }

    /// Whether a lease of the account must be divided: not if another attempt holds the same tasks. The account does not know which
    /// tasks of verified jobs are compared.
    fn must_divide(&self, attempt: AttemptId, beyond: u64, division: Division) -> Option<bool> {
        let lease = self.audit.account.leases.get(&attempt)?;
        if self.jobs[self.by_id[&lease.job]].new.options.verify.is_some() {
            return None;
        }
        let is_within = lease.tasks.start < beyond && beyond < lease.tasks.end;
        let was_divided = division == Division::HandedBack && lease.tasks.end <= beyond;
        Some(was_divided || (is_within && !self.has_rival(attempt, lease)))
    }

    fn has_rival(&self, attempt: AttemptId, lease: &Leased) -> bool {
        let mut others = self.audit.account.leases.iter().filter(|(other, _)| **other != attempt);
        others.any(|(_, other)| other.job == lease.job && other.tasks == lease.tasks)
    }

    /// The next input takes the tasks from `beyond` on back from a lease, or all of them.
    pub(crate) fn account_dividing(&mut self, attempt: AttemptId, beyond: u64, division: Division) {
        let lease = self.audit.account.leases.get(&attempt).filter(|lease| beyond < lease.tasks.end);
        let Some(lease) = lease else { return };
        let worker = lease.pulled_by.filter(|_| division == Division::HandedBack && !self.has_rival(attempt, lease));
        let (job, tasks, until) = (lease.job, beyond.max(lease.tasks.start)..lease.tasks.end, self.now + HELD_BACK);
        let handed_back = worker.map(|worker| HandedBack { job, tasks, worker, until });
        self.audit.account.divided = Some(Divided { attempt, beyond, handed_back });
    }

    /// Notes that the present input has divided or ended a lease, before its other effects.
    pub(in crate::audit) fn account_divided(&mut self) {
        let Some(Divided { attempt, beyond, handed_back }) = self.audit.account.divided.take() else { return };
        let now = self.clock();
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let end = coordinator.engine.lease(attempt, now).map(|(_, tasks, _)| tasks.end);
        let account = &mut self.audit.account;
        if end.is_none_or(|end| end <= beyond) {
            account.handed_back.extend(handed_back);
        }
        if let Some(lease) = account.leases.get_mut(&attempt).filter(|_| end == Some(beyond)) {
            lease.tasks.end = lease.tasks.end.min(beyond);
        }
    }

    /// Checks a new lease: no other attempt has its tasks, unless it has the same ones, and none of its tasks is over or was just
    /// handed back by its worker.
    pub(super) fn check_leased(&mut self, attempt: AttemptId, lease: &Leased) {
        let (now, account) = (self.now, &mut self.audit.account);
        let mut of_job = account.leases.values().filter(|other| other.job == lease.job && other.tasks != lease.tasks);
        let is_twice = of_job.any(|other| overlap(&other.tasks, &lease.tasks));
        let is_over = account.jobs.get(&lease.job).is_some_and(|job| {
            let is_any = |tasks: &std::collections::BTreeSet<u64>| tasks.range(lease.tasks.clone()).next().is_some();
            is_any(&job.done) || is_any(&job.given_up)
        });
        account.handed_back.retain(|back| now < back.until);
        let concerns = |back: &HandedBack| back.job == lease.job && overlap(&back.tasks, &lease.tasks);
        // A lease that its worker's report has brought was given by an earlier coordinator.
        let is_back = !lease.is_silent
            && account.handed_back.iter().any(|back| concerns(back) && lease.pulled_by == Some(back.worker));
        account.handed_back.retain(|back| !concerns(back));
        let sim = self.by_id.get(&lease.job).map(|number| &self.jobs[*number]);
        let is_last = sim.is_some_and(|sim| sim.fold_input.is_some() && lease.tasks.end == sim.new.tasks);
        let done = account.jobs.get(&lease.job).map_or(0, |job| job.done.len() as u64);
        let is_early = is_last && (done + 1 < lease.tasks.end || lease.tasks.end - lease.tasks.start > 1);
        let (what, name) = (format!("{} has tasks {:?}", short(attempt), lease.tasks), self.name(lease.job));
        if is_early {
            self.violate(format!("{what} of job {name}, whose last one folds the answers of {done} tasks"));
        }
        if is_twice {
            self.violate(format!("{what} of job {name}, and so has another attempt"));
        }
        if is_over {
            self.violate(format!("{what} of job {name}, and some of them are over"));
        }
        if is_back {
            self.violate(format!("{what} of job {name}, and its worker has just handed them back"));
        }
    }
}
