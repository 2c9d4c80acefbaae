//! Faults of pushed workers: they drain, die and are cut off.

use rand::RngExt;

use super::SimLease;
use crate::outcome::Answer;
use crate::plan::{MS, SECOND};
use crate::world::{Event, World};

impl World {
    /// Drains as on SIGTERM.
    pub(crate) fn drain_worker(&mut self, worker: usize) {
        let this = &mut self.workers[worker];
        if !this.is_up || std::mem::replace(&mut this.is_draining, true) {
            return;
        }
        let (boot, is_cut, run) = (this.boot, this.is_cut, self.run_number());
        self.note(format_args!("worker {worker}"), "drains");
        self.post(is_cut, Event::DeregisterArrives { run, worker, boot });
        let patience = self.rng.random_range(SECOND..8 * SECOND);
        self.after(patience, Event::DrainOver { worker, boot });
    }

    /// Gives back all leases that the worker still holds.
    pub(crate) fn drain_over(&mut self, worker: usize, boot: u64) {
        if !self.is_here(worker, boot) {
            return;
        }
        let (now, run) = (self.now, self.run_number());
        let is_cut = self.workers[worker].is_cut;
        for (attempt, held) in std::mem::take(&mut self.workers[worker].held) {
            let lease = held.listed(now);
            if held.waiting.is_empty() && held.order.outlives_connection && run > 0 {
                self.post(is_cut, Event::ReportArrives { run, worker, boot, lease, report: None });
            }
            for run in held.waiting {
                self.answer_after_delay(run, worker, attempt, Some(Answer::HandedBack));
            }
        }
        self.audit.is_lossy = true;
        self.kill_worker(worker, "ends");
    }

    pub(crate) fn kill_worker(&mut self, worker: usize, what: &str) {
        let this = &mut self.workers[worker];
        if !this.is_up {
            return;
        }
        this.is_up = false;
        let (connection, is_cut, held) = (this.connection, this.is_cut, std::mem::take(&mut this.held));
        self.note(format_args!("worker {worker}"), what);
        let run = self.run_number();
        self.post(is_cut, Event::HeartbeatClosed { run, worker, connection });
        for (attempt, held) in held {
            for run in held.waiting {
                self.answer_after_delay(run, worker, attempt, None);
            }
        }
        let pause = self.rng.random_range(100 * MS..8 * SECOND);
        self.after(pause, Event::WorkerStarts { worker });
    }

    /// The network does not reach a worker any more; its connections break at one end, at both or at none.
    pub(crate) fn cut(&mut self, worker: usize) {
        self.note("network", format_args!("worker {worker} is cut off"));
        self.workers[worker].is_cut = true;
        let (boot, run) = (self.workers[worker].boot, self.run_number());
        let waiting = |held: &SimLease| held.waiting.iter().map(|run| (held.order.attempt, *run)).collect::<Vec<_>>();
        let connections: Vec<_> = self.workers[worker].held.values().flat_map(waiting).collect();
        for (attempt, of) in connections {
            let delay = self.rng.random_range(0..2 * SECOND);
            if self.rng.random_bool(0.5) {
                self.after(delay, Event::ConnectionClosed { worker, boot, attempt, run: of });
            }
            if self.rng.random_bool(0.5) {
                self.after(delay, Event::LeaseBroken { run: of, attempt });
            }
        }
        if self.rng.random_bool(0.5) {
            let connection = self.workers[worker].connection;
            self.after(SECOND, Event::HeartbeatClosed { run, worker, connection });
            self.workers[worker].connection += 1;
        }
        let pause = self.rng.random_range(100 * MS..20 * SECOND);
        self.after(pause, Event::Heal { worker });
    }

    pub(crate) fn heal(&mut self, worker: usize) {
        if std::mem::take(&mut self.workers[worker].is_cut) {
            self.note("network", format_args!("worker {worker} is reachable again"));
        }
    }
}
