//! An account of the leases of stored jobs and of their failed attempts, by causes: each lease ends for a reason that the account
//! knows, and the reason says whether an attempt has failed. The engine must record exactly these failures.

mod changes;
mod divided;
mod skipped;
mod slots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use engine::{HeldLease, HeldState};
use model::{AttemptId, JobId};
use scheduler::{Revocation, WorkerKey};
use store::UnfinishedJob;

use divided::{Divided, HandedBack};
use slots::Place;

pub(crate) use divided::Division;

use crate::coordinator::short;
use crate::plan::Micros;
use crate::world::World;

/// A task whose attempts ended with this many workers has failed.
const MAX_KILLS: u32 = 3;

/// The reason for which an attempt counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The worker reported that the tasks failed.
    Tasks,
    /// The worker answered something else.
    Refused,
    TimeLimit,
    Expired,
    WorkerLost,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    leases: BTreeMap<AttemptId, Leased>,
    /// The jobs that the engine works on.
    jobs: BTreeMap<JobId, JobAccount>,
    /// Failures that the engine must record with the present input.
    due: Vec<(Failed, Leased)>,
    /// The attempt whose outcome the present input reports.
    reported: Option<(AttemptId, Leased)>,
    /// The leases whose outcomes count.
    counted: BTreeMap<AttemptId, Leased>,
    /// The worker of the present input, and its list of leases.
    listed: Option<(WorkerKey, Vec<HeldLease>)>,
    /// The lease of which the present input takes tasks back.
    divided: Option<Divided>,
    /// Tasks that their workers have just handed back.
    handed_back: Vec<HandedBack>,
    /// The tasks that the present input must skip.
    skipping: Option<(JobId, BTreeSet<u64>)>,
    /// Leases of jobs that are not stored.
    unstored: BTreeMap<AttemptId, Place>,
    /// The failures that count only once, of the recorded changes that have no numbers yet: an entry a change.
    unnumbered: VecDeque<Option<Failed>>,
    /// These failures by the numbers of their changes.
    numbered: BTreeMap<u64, Failed>,
    /// The committed ones of these failures, of all coordinators.
    committed: BTreeSet<Failed>,
}

type Failed = (AttemptId, Cause);

#[derive(Clone, Debug)]
struct Leased {
    job: JobId,
    tasks: Range<u64>,
    /// The slot of a pushed worker.
    slot: Option<(WorkerKey, u32)>,
    /// The pulling worker.
    pulled_by: Option<WorkerKey>,
    claimed_at: Micros,
    /// Leases of a slot run in this order: the claim, or the time at which a list has shown that another one runs first.
    queued_at: Micros,
    /// Whether the lease was given to a slot that had another one.
    has_waited: bool,
    /// Start of the computation, as far as the coordinator can know it; `None` while the lease waits for its slot.
    since: Option<Micros>,
    /// The time limit of the tasks, and the latest end by it.
    limit: Option<Micros>,
    latest_end: Option<Micros>,
    /// Whether a lease that was given to the slot later has ended first.
    was_overtaken: bool,
    /// Whether a pulling worker has reported nothing since the report that the lease was adopted by, which may have been late.
    is_silent: bool,
}

/// A job's tasks and attempts, as the engine must know them.
#[derive(Debug, Default)]
struct JobAccount {
    /// Attempts that have ended with an outcome or a failure.
    attempts: u64,
    /// Attempts whose outcomes wait to be compared.
    waiting: u64,
    done: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    /// Failed attempts, and those among them that ended with their worker, by task.
    failures: BTreeMap<u64, (u32, u32)>,
}

impl Account {
    pub(super) fn coordinator_starts(&mut self) {
        let committed = std::mem::take(&mut self.committed);
        *self = Self { committed, ..Self::default() };
    }

    pub(super) fn recorded(&mut self, number: u64) {
        let failed = self.unnumbered.pop_front().flatten();
        self.numbered.extend(failed.map(|failed| (number, failed)));
    }
}

impl World {
    pub(super) fn account_leased(
        &mut self,
        attempt: AttemptId,
        job: JobId,
        tasks: Range<u64>,
        slot: Option<(WorkerKey, u32)>,
        pulled_by: Option<WorkerKey>,
    ) {
        let lease = Leased::new(job, tasks, slot, pulled_by);
        self.check_leased(attempt, &lease);
        self.account_lease(attempt, lease, None);
    }

    /// The next input takes a worker's list of leases.
    pub(crate) fn account_list(&mut self, key: WorkerKey, held: &[HeldLease]) {
        self.audit.account.listed = Some((key, held.to_vec()));
    }

    /// Notes the leases that the engine has adopted from a worker's list, and those that never came to the worker.
    pub(super) fn account_listed(&mut self) {
        let Some((key, held)) = self.audit.account.listed.take() else { return };
        let mut oldest_first: Vec<_> = held.iter().collect();
        oldest_first.sort_by_key(|lease| std::cmp::Reverse(lease.age));
        for lease in oldest_first {
            self.account_adopted(key, lease, true);
        }
        self.account_orders(key, &held);
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let leases = self.audit.account.leases.iter();
        let never_came = leases.filter(|(attempt, lease)| {
            let is_listed = held.iter().any(|listed| listed.attempt == **attempt);
            lease.slot.is_some_and(|(worker, _)| worker == key)
                && !is_listed
                && !coordinator.engine.is_leased(**attempt)
        });
        for attempt in never_came.map(|(attempt, _)| *attempt).collect::<Vec<_>>() {
            self.audit.account.end(attempt, self.now, false);
        }
    }

    /// Notes a lease if the engine has adopted it: tasks whose failures differ count as one run with the most of them.
    pub(crate) fn account_adopted(&mut self, key: WorkerKey, held: &HeldLease, is_pushed: bool) {
        let is_leased = self.coordinator.as_ref().is_some_and(|found| found.engine.is_leased(held.attempt));
        if !is_leased || self.audit.account.leases.contains_key(&held.attempt) {
            return;
        }
        let age = u64::try_from(held.age.as_micros()).unwrap_or(u64::MAX);
        let begun_at = match held.state {
            HeldState::Finished => Some(self.now),
            HeldState::Running => (age > 0).then(|| self.now.saturating_sub(age)),
        };
        if let Some(job) = self.audit.account.jobs.get_mut(&held.job) {
            let of_tasks = job.failures.range(held.tasks.clone()).map(|(_, failures)| *failures);
            let most = of_tasks.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
            job.failures.extend(most.into_iter().flat_map(|most| held.tasks.clone().map(move |task| (task, most))));
        }
        let (job, tasks) = (held.job, held.tasks.clone());
        let slot = is_pushed.then_some((key, held.slot));
        let pulled_by = (!is_pushed).then_some(key);
        let lease = Leased { is_silent: !is_pushed, ..Leased::new(job, tasks, slot, pulled_by) };
        self.check_leased(held.attempt, &lease);
        self.account_lease(held.attempt, lease, begun_at);
    }

    /// The worker has reported on a lease that its attempt holds.
    pub(crate) fn account_heard(&mut self, attempt: AttemptId) {
        if let Some(lease) = self.audit.account.leases.get_mut(&attempt) {
            lease.is_silent = false;
        }
    }

    /// The next input fails an attempt: this counts if the attempt holds a lease of a stored job.
    pub(crate) fn account_failure(&mut self, attempt: AttemptId, cause: Cause) {
        let ended = self.audit.account.end(attempt, self.now, cause == Cause::Tasks);
        self.audit.account.due.extend(ended.map(|lease| ((attempt, cause), lease)));
    }

    /// The next input ends an attempt at no cost: it is handed back or was not delivered.
    pub(crate) fn account_return(&mut self, attempt: AttemptId) {
        self.audit.account.end(attempt, self.now, false);
    }

    /// The next input reports the outcome of an attempt. Returns whether it holds a lease of a stored job.
    pub(crate) fn account_outcome(&mut self, attempt: AttemptId) -> bool {
        let ended = self.audit.account.end(attempt, self.now, true);
        self.audit.account.reported = ended.map(|lease| (attempt, lease));
        self.audit.account.reported.is_some()
    }

    /// Checks that the tasks of an attempt are done whose outcome counts and that its worker forgets.
    pub(super) fn account_settled(&mut self, attempt: AttemptId) {
        let Some(Leased { job, tasks, .. }) = self.audit.account.counted.get(&attempt) else { return };
        // A worker of a verified job may have been caught with a wrong outcome.
        let is_verified = self.jobs[self.by_id[job]].new.options.verify.is_some();
        let ledger = self.audit.ledgers.get(job);
        if !is_verified && !ledger.is_some_and(|ledger| tasks.clone().all(|task| ledger.done.contains(&task))) {
            self.violate(format!("{} is settled, and its outcome is lost", short(attempt)));
        }
    }

    /// The next input loses a worker.
    pub(crate) fn account_loss(&mut self, key: WorkerKey) {
        let leases = self.audit.account.leases.iter();
        let lost = leases.filter(|(_, lease)| lease.slot.is_some_and(|(worker, _)| worker == key));
        for attempt in lost.map(|(attempt, _)| *attempt).collect::<Vec<_>>() {
            self.account_failure(attempt, Cause::WorkerLost);
        }
    }

    /// The engine takes a job up from the store, whose account must be that of the committed changes.
    pub(crate) fn account_taken_up(&mut self, job: &UnfinishedJob) {
        let id = job.record.id;
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.engine.knows(id)) {
            return;
        }
        let Some(ledger) = self.audit.ledgers.get(&id) else { return };
        let all = |runs: &[Range<u64>]| runs.iter().flat_map(Clone::clone).collect::<BTreeSet<u64>>();
        let given_up: BTreeSet<u64> = all(&job.failed);
        let retries = job.retries.iter().flat_map(|(tasks, failures)| tasks.clone().map(|task| (task, *failures)));
        let is_same = ledger.attempts == job.record.attempts
            && ledger.given_up == given_up
            && all(&job.done).difference(&given_up).eq(&ledger.done)
            && retries.eq(ledger.failures.iter().map(|(task, failures)| (*task, *failures)));
        let taken_up = JobAccount {
            attempts: ledger.attempts,
            waiting: 0,
            done: ledger.done.clone(),
            given_up,
            failures: ledger.failures.iter().map(|(task, failures)| (*task, (*failures, 0))).collect(),
        };
        self.audit.account.jobs.insert(id, taken_up);
        self.audit.account.handed_back.clear();
        if !is_same {
            self.violate(format!(
                "job {} is read back as {job:?}, and {:?} is committed",
                self.name(id),
                self.audit.ledgers[&id]
            ));
        }
    }

    /// The engine has forgotten a job.
    pub(crate) fn account_closed(&mut self, job: JobId) {
        self.audit.account.jobs.remove(&job);
    }

    pub(super) fn account_revoked(&mut self, attempt: AttemptId, reason: Revocation) {
        match reason {
            Revocation::TimedOut => {
                self.check_time_limit(attempt);
                self.account_failure(attempt, Cause::TimeLimit);
            }
            // Its worker may have ended it at an earlier coordinator, after the report that it was adopted by.
            Revocation::Expired if self.audit.account.leases.get(&attempt).is_some_and(|lease| lease.is_silent) => {
                self.account_return(attempt);
            }
            Revocation::Expired => self.account_failure(attempt, Cause::Expired),
            Revocation::JobOver | Revocation::Paused | Revocation::OutrunBySecondAttempt | Revocation::SetAside => {
                self.audit.account.end(attempt, self.now, false);
                self.audit.account.due.retain(|((failed, _), _)| *failed != attempt);
            }
        }
    }

    /// Checks that a task is not timed out before it has had its time.
    fn check_time_limit(&mut self, attempt: AttemptId) {
        let Some(lease) = self.audit.account.leases.get(&attempt) else { return };
        let limit = self.time_limit(lease.job, &lease.tasks);
        let ran = lease.since.map_or(0, |since| self.now - since);
        if limit.is_none_or(|limit| ran < limit) {
            self.violate(format!("{} is timed out after {ran} us, and its limit is {limit:?} us", short(attempt)));
        }
    }

    /// Checks after an input that the engine has recorded what had to be recorded.
    pub(super) fn check_account_of_input(&mut self) {
        let account = &mut self.audit.account;
        let (due, reported) = (std::mem::take(&mut account.due), account.reported.take());
        for ((attempt, cause), _) in due {
            self.violate(format!("{} failed by {cause:?}, and no failure is recorded", short(attempt)));
        }
        if let Some((attempt, lease)) = reported {
            if self.jobs[self.by_id[&lease.job]].new.options.verify.is_none() {
                self.violate(format!("the outcome of {} is not recorded", short(attempt)));
            } else if let Some(job) = self.audit.account.jobs.get_mut(&lease.job) {
                job.waiting += 1;
            }
        }
        let overdue = self.audit.account.jobs.iter().find(|(id, job)| {
            let goes_on = self.jobs[self.by_id[*id]].goes_on_without();
            let is_over = (job.done.len() + job.given_up.len()) as u64 == self.jobs[self.by_id[*id]].new.tasks;
            !job.given_up.is_empty() && (!goes_on || is_over)
        });
        if let Some(id) = overdue.map(|(id, _)| *id) {
            self.violate(format!("tasks of job {} are given up, and it goes on", self.name(id)));
        }
    }

    /// Checks that the engine has the leases and attempts of the account, and no lease past its time limit.
    pub(super) fn check_account(&mut self) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let (account, now) = (&self.audit.account, self.clock());
        let mut wrong = Vec::new();
        for (attempt, lease) in &account.leases {
            match coordinator.engine.lease(*attempt, now) {
                None => wrong.push(format!("{} has lost its lease without a cause", short(*attempt))),
                Some((_, tasks, _)) if tasks != lease.tasks => {
                    let expected = &lease.tasks;
                    wrong.push(format!("{} has the tasks {tasks:?}, and must have {expected:?}", short(*attempt)));
                }
                Some(_) => (),
            }
            if lease.latest_end.is_some_and(|end| self.now > end + 1) {
                wrong.push(format!("{} goes on past its time limit", short(*attempt)));
            }
        }
        for (id, job) in &account.jobs {
            let leases = account.leases.values().filter(|lease| lease.job == *id).count() as u64;
            let attempts = coordinator.engine.job(*id).map(|view| view.attempts);
            if attempts != Some(job.attempts + job.waiting + leases) {
                let (ended, waiting, name) = (job.attempts, job.waiting, self.name(*id));
                wrong.push(format!(
                    "job {name} shows {attempts:?} attempts: {ended} have ended, {waiting} are compared, {leases} run"
                ));
            }
        }
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
    }
}
