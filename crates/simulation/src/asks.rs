//! Simulated clients that wait for an answer, some of which leave before it comes.

use engine::JobFailure;
use model::{JobId, JobKind, JobOptions, Priority};
use rand::RngExt;

use crate::client::CHUNK;
use crate::outcome::{json, value};
use crate::plan::{Faults, Micros, SECOND};
use crate::world::{Event, World};

/// A request that waits for an answer.
#[derive(Debug)]
pub(crate) struct Asked {
    id: JobId,
    kind: JobKind,
    a: u64,
    b: u64,
    priority: Priority,
    patience: Option<Micros>,
    began: bool,
    pub(crate) is_over: bool,
}

impl World {
    pub(crate) fn plan_asks(&mut self) {
        for ask in 0..self.plan.asks {
            let (kind, a) = (self.range_kind(), self.rng.random_range(0..1 << 40));
            let asked = Asked {
                id: JobId(self.new_uuid()),
                kind,
                a,
                b: a + self.rng.random_range(0..60_000),
                priority: self.priority(),
                patience: self.rng.random_bool(0.3).then(|| self.rng.random_range(0..2 * SECOND)),
                began: false,
                is_over: false,
            };
            self.asks.push(asked);
            let at = self.rng.random_range(0..self.plan.busy);
            self.after(at, Event::Ask { ask });
        }
    }

    pub(crate) fn ask(&mut self, ask: usize) {
        let this = &self.asks[ask];
        if self.coordinator.as_ref().is_none_or(|found| found.is_stopping) {
            return self.asks[ask].is_over = true;
        }
        let (id, kind, patience) = (this.id, this.kind, this.patience);
        let options = JobOptions { priority: this.priority, ..JobOptions::default() };
        let params = json(format!(r#"{{"a":{},"b":{}}}"#, this.a, this.b));
        let Ok(work) = workloads::kind(kind).and_then(|kind| kind.restore(&params, CHUNK)) else { return };
        self.note("client", format_args!("asks {ask} as job {} for {kind} of {}", self.name(id), params.get()));
        self.asks[ask].began = true;
        if let Some(coordinator) = self.coordinator.as_mut() {
            coordinator.answers.insert(id, ask);
        }
        self.input(|engine, now| engine.ask(id, kind, work, &options, now));
        if let Some(patience) = patience {
            self.after(patience, Event::AskerLeaves { ask });
        }
    }

    pub(crate) fn asker_leaves(&mut self, ask: usize) {
        let id = self.asks[ask].id;
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        if coordinator.answers.remove(&id).is_some() {
            self.note("client", format_args!("of ask {ask} leaves"));
            self.asks[ask].is_over = true;
            self.input(|engine, now| engine.abandon(id, now));
        }
    }

    pub(crate) fn answer_asker(&mut self, ask: usize, answer: Result<u128, JobFailure>) {
        self.note("client", format_args!("of ask {ask} gets {answer:?}"));
        let this = &mut self.asks[ask];
        this.is_over = true;
        let expected = value(this.kind, this.a, this.b);
        match answer {
            Ok(total) if total != expected => {
                self.violate(format!("ask {ask} is answered with {total}, not {expected}"))
            }
            Err(JobFailure::Failed(error)) if self.plan.faults == Faults::None => {
                self.violate(format!("ask {ask} fails without a fault: {error}"));
            }
            Ok(_) | Err(_) => (),
        }
    }

    pub(crate) fn asks_are_over(&self) -> bool {
        self.asks.iter().all(|ask| ask.is_over)
    }
}
