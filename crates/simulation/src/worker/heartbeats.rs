//! Heartbeats of pushed workers, and the outcomes and orphans that follow from their answers.

use engine::{HeldLease, HeldState, Reconciled};
use model::AttemptId;
use rand::RngExt;

use crate::coordinator::short;
use crate::outcome::SimOutcome;
use crate::plan::SECOND;
use crate::registrations::{named, worker_name};
use crate::world::{Event, World};

impl World {
    pub(crate) fn heartbeat_due(&mut self, worker: usize, boot: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        self.give_orphans_up(worker);
        let now = self.now;
        let changes_connection = !self.is_calm && self.rng.random_bool(0.02);
        let this = &mut self.workers[worker];
        this.connection += u64::from(changes_connection);
        let (held, is_draining, connection) = (this.lists(now), this.is_draining, this.connection);
        let is_cut = this.is_cut;
        let run = self.run_number();
        if run > 0 {
            self.post(is_cut, Event::HeartbeatArrives { run, worker, boot, connection, held, is_draining });
        }
        self.deliver_unasked(worker, run);
        let pause = if is_draining {
            SECOND / 5
        } else if run == 0 {
            self.rng.random_range(SECOND / 2..SECOND)
        } else {
            SECOND
        };
        self.after(pause, Event::HeartbeatDue { worker, boot });
        if is_draining && self.workers[worker].held.is_empty() {
            self.kill_worker(worker, "has drained");
        }
    }

    fn give_orphans_up(&mut self, worker: usize) {
        let (now, timeout) = (self.now, self.plan.orphan_timeout);
        let this = &self.workers[worker];
        if now - this.last_taken_at < timeout {
            return;
        }
        let old = this.held.values().filter(|held| held.order.outlives_connection && now - held.taken_at >= timeout);
        for attempt in old.map(|held| held.order.attempt).collect::<Vec<_>>() {
            self.note(format_args!("worker {worker}"), format_args!("gives {} up as an orphan", short(attempt)));
            self.audit.is_lossy = true;
            self.forget(worker, attempt, false);
        }
    }

    pub(crate) fn heartbeat_answered(&mut self, worker: usize, boot: u64, run: u64, reconciled: Reconciled) {
        let now = self.now;
        if !self.is_here(worker, boot) {
            return;
        }
        let this = &mut self.workers[worker];
        this.last_taken_at = now;
        if run < this.epoch {
            return;
        }
        this.epoch = run;
        for attempt in reconciled.settled {
            self.forget(worker, attempt, false);
        }
        for attempt in reconciled.deliver {
            self.deliver(worker, run, attempt);
        }
    }

    /// Reports a kept outcome to the coordinator of an epoch. A failure that was reported to an earlier coordinator may
    /// count already: its lease is given back instead.
    fn deliver(&mut self, worker: usize, run: u64, attempt: AttemptId) {
        let (now, is_late) = (self.now, !self.is_calm && self.rng.random_bool(0.1));
        let this = &mut self.workers[worker];
        let (boot, is_cut) = (this.boot, this.is_cut);
        let Some(held) = this.held.get_mut(&attempt) else { return };
        let Some(outcome) = held.outcome.clone() else { return };
        let was_told_before = held.told_in.is_some_and(|told_in| told_in < run);
        let is_given_back = matches!(outcome, SimOutcome::Failed) && was_told_before;
        if !is_given_back {
            held.told_in = held.told_in.max(Some(run));
        }
        let (lease, report) = (held.listed(now), (!is_given_back).then_some(outcome));
        let what = if is_given_back { "gives back" } else { "delivers" };
        self.note(format_args!("worker {worker}"), format_args!("{what} {}", short(attempt)));
        let report = Event::ReportArrives { run, worker, boot, lease, report };
        if is_late && !is_cut {
            let late = self.rng.random_range(0..8 * SECOND);
            self.after(late, report.clone());
        }
        self.post(is_cut, report);
    }

    /// Reports kept outcomes without being asked, the latest first, to a coordinator that may not know their leases.
    fn deliver_unasked(&mut self, worker: usize, run: u64) {
        let (seen, kept) = (self.workers[worker].epoch, self.workers[worker].lists(self.now));
        if run == 0 || run < seen || self.is_calm || !self.rng.random_bool(0.05) {
            return;
        }
        self.workers[worker].epoch = run;
        for lease in kept.into_iter().rev().filter(|lease| lease.state == HeldState::Finished) {
            self.deliver(worker, run, lease.attempt);
        }
    }

    /// A report to the coordinator on a lease whose connection is gone: an outcome, or that it is given back.
    pub(crate) fn report_arrives(
        &mut self,
        run: u64,
        worker: usize,
        boot: u64,
        lease: &HeldLease,
        report: Option<SimOutcome>,
    ) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run) else { return };
        // The worker is found by its name, as in the real coordinator; an unknown worker counts as a pulling one.
        let key = coordinator.registrations.get(&worker).map(|known| known.key);
        let Some(key) = key else { return };
        let (attempt, named) = (lease.attempt, named(worker_name(worker), lease));
        if !self.hold(key, &named, lease) || !self.count(attempt, report, true) {
            let is_cut = self.workers[worker].is_cut;
            self.post(is_cut, Event::ReportRefused { worker, boot, attempt });
        }
    }

    pub(crate) fn report_refused(&mut self, worker: usize, boot: u64, attempt: AttemptId) {
        if self.is_here(worker, boot) {
            let was_pending = self.audit.is_pending(attempt);
            self.forget(worker, attempt, false);
            if was_pending {
                self.violate(format!("{} is void for its worker while its outcome is not durable", short(attempt)));
            }
        }
    }
}
