//! The open model: request `i` leaves at `start + i / rate`, whatever became of those before it.
//!
//! A thread of its own keeps the schedule, because the timer of tokio ticks in whole milliseconds. What it cannot send
//! because too many requests are outstanding is a missed send; it never waits for an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{self, JoinSet};

use crate::outcome::{RequestOutcome, Sample};
use crate::plan::Request;
use crate::stop::Stop;
use crate::target::Targets;

/// A run at one rate.
pub(crate) struct Run {
    pub(crate) requests: Vec<Request>,
    pub(crate) rate_qps: f64,
    /// Most requests without an answer at one time.
    pub(crate) outstanding_max: usize,
    pub(crate) targets: Targets,
    /// Counts the requests that are over.
    pub(crate) progress: ProgressBar,
    pub(crate) stop: Stop,
}

impl Run {
    /// Sends every request on schedule, waits for the last outcome and gives the samples in the order of the schedule. Once
    /// the run is to stop, nothing more is sent, and a request that has no answer soon is not counted.
    pub(crate) async fn drive(self) -> Result<Vec<Sample>> {
        let runtime = Handle::current();
        let stop = self.stop.clone();
        let sent = task::spawn_blocking(move || self.send_all(&runtime)).await.context("keep the schedule")?;
        let (mut samples, mut answers) = sent;
        let mut out_of_time = Box::pin(stop.after_grace());
        loop {
            tokio::select! {
                answer = answers.join_next() => match answer {
                    Some(answer) => samples.push(answer.context("send a request")?),
                    None => break,
                },
                () = &mut out_of_time => break,
            }
        }
        samples.sort_unstable_by_key(|sample| sample.intended);
        Ok(samples)
    }

    /// Gives the missed sends and the requests on their way.
    fn send_all(self, runtime: &Handle) -> (Vec<Sample>, JoinSet<Sample>) {
        let outstanding = Arc::new(Semaphore::new(self.outstanding_max));
        let targets = Arc::new(self.targets);
        let mut missed = Vec::new();
        let mut answers = JoinSet::new();
        let start = Instant::now();
        for (turn, request) in self.requests.into_iter().enumerate() {
            let intended = Duration::from_secs_f64(turn as f64 / self.rate_qps);
            if !self.stop.sleep_until(start + intended) {
                break;
            }
            let Ok(permit) = Arc::clone(&outstanding).try_acquire_owned() else {
                self.progress.inc(1);
                let (late, latency) = (Duration::ZERO, Duration::ZERO);
                missed.push(Sample { intended, late, latency, outcome: RequestOutcome::Missed });
                continue;
            };
            let send = Send { start, intended, turn, request, permit };
            let (targets, progress) = (Arc::clone(&targets), self.progress.clone());
            answers.spawn_on(
                async move {
                    let sample = send.send(&targets).await;
                    progress.inc(1);
                    sample
                },
                runtime,
            );
        }
        (missed, answers)
    }
}

/// A request that is sent now.
struct Send {
    start: Instant,
    intended: Duration,
    turn: usize,
    request: Request,
    permit: OwnedSemaphorePermit,
}

impl Send {
    async fn send(self, targets: &Targets) -> Sample {
        let late = self.start.elapsed().saturating_sub(self.intended);
        let answer = targets.ask(self.turn, &self.request).await;
        let latency = self.start.elapsed().saturating_sub(self.intended);
        drop(self.permit);
        let outcome = answer.map_or_else(RequestOutcome::Failed, |()| RequestOutcome::Correct);
        Sample { intended: self.intended, late, latency, outcome }
    }
}
