//! The worker's dealings with one coordinator: heartbeats once a second, the orders in their answers, and the farewell.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::client::{AnswerError, read_bounded, read_bounded_json};
use api::{Deregistration, HeartbeatAnswer, MAX_HEARTBEAT_ANSWER_BYTES, Problem};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::coordinators::{Endpoint, Listed};
use crate::delivery;
use crate::heartbeat::{Announcer, INTERVAL, Phase};
use crate::held::Returned;
use crate::presence::Taker;

/// How long the coordinator may take to answer a farewell.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between heartbeats of a draining worker, which exits as soon as its outcomes are settled.
const DRAINING_INTERVAL: Duration = Duration::from_millis(200);

/// The longest problem document that is read, in bytes.
const MAX_PROBLEM_BYTES: usize = 4096;

/// Pause after the first failure in a row; it doubles up to [`INTERVAL`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Contact {
    announcer: Arc<Announcer>,
    endpoint: Endpoint,
    listed: Listed,
    state: HeartbeatState,
    failures: u32,
    taker: Option<Taker>,
    /// Whether the last answer was of the highest epoch.
    is_current: bool,
    /// The running delivery: one task at most.
    deliveries: JoinSet<()>,
    deliveries_fail: Arc<AtomicBool>,
}

/// The result of the last heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HeartbeatState {
    None,
    Registered,
    /// Refusals with the same status are the same state, whatever their details.
    Refused(StatusCode),
    Failing(String),
}

/// The reason why a heartbeat was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("it answered {status}{detail}")]
    Refused { status: StatusCode, detail: String },
}

impl Contact {
    pub(crate) fn new(announcer: Arc<Announcer>, endpoint: Endpoint, listed: Listed) -> Self {
        Self {
            announcer,
            endpoint,
            listed,
            state: HeartbeatState::None,
            failures: 0,
            taker: None,
            is_current: false,
            deliveries: JoinSet::new(),
            deliveries_fail: Arc::default(),
        }
    }

    /// Sends heartbeats until the worker ends, or until the address fails and is no longer listed. Drops `leaving` when
    /// the coordinator knows that the worker leaves.
    pub(crate) async fn run(mut self, mut phase: watch::Receiver<Phase>, leaving: Option<mpsc::Sender<Infallible>>) {
        if *phase.borrow() == Phase::Serving {
            tokio::select! {
                () = self.announce(INTERVAL, false) => return,
                _ = phase.wait_for(|phase| *phase != Phase::Serving) => (),
            }
            self.deregister().await;
        }
        drop(leaving);
        tokio::select! {
            () = self.announce(DRAINING_INTERVAL, true) => return,
            _ = phase.wait_for(|phase| matches!(phase, Phase::Over(_))) => (),
        }
        let Phase::Over(returned) = phase.borrow().clone() else { return };
        self.release(&returned).await;
    }

    async fn announce(&mut self, interval: Duration, is_draining: bool) {
        let mut asked = self.announcer.asked.subscribe();
        loop {
            let next = Instant::now() + interval;
            match self.send_heartbeat(is_draining).await {
                Ok(answer) => {
                    self.note_taken();
                    self.act_on(answer);
                    tokio::select! {
                        () = sleep_until(next) => (),
                        // The sender is a field of the announcer.
                        _ = asked.changed() => (),
                    }
                }
                Err(error) => {
                    self.note_failure(&error);
                    if self.failures > 1 && !self.listed.is_listed() {
                        return;
                    }
                    sleep(pause_after(self.failures, &error)).await;
                }
            }
        }
    }

    async fn send_heartbeat(&self, is_draining: bool) -> Result<HeartbeatAnswer, NotTaken> {
        let Announcer { worker_id, heartbeat_timeout, .. } = &*self.announcer;
        let request = self.announcer.request(Method::PUT, &self.endpoint, &["worker", "register", worker_id.as_str()]);
        let heartbeat = self.announcer.heartbeat(is_draining);
        let response = check(request.timeout(*heartbeat_timeout).json(&heartbeat).send().await?).await?;
        let answer = read_bounded(response, MAX_HEARTBEAT_ANSWER_BYTES).await?;
        // A coordinator without orders answers 204.
        if answer.is_empty() {
            return Ok(HeartbeatAnswer::default());
        }
        Ok(serde_json::from_slice(&answer).map_err(AnswerError::Invalid)?)
    }

    fn note_taken(&mut self) {
        self.failures = 0;
        self.announcer.presence.taken();
        if self.taker.is_none() {
            self.taker = Some(self.announcer.presence.add());
        }
        self.note_state(HeartbeatState::Registered, "");
    }

    fn note_failure(&mut self, error: &NotTaken) {
        self.failures = self.failures.saturating_add(1);
        match error {
            // The worker's own fault, such as the name of another live worker.
            NotTaken::Refused { status: StatusCode::CONFLICT, .. } => (),
            // A single failure is not logged: a grid that stops ends its coordinator first.
            _ if self.failures == 1 => return,
            NotTaken::Request(_) | NotTaken::Answer(_) | NotTaken::Refused { .. } => (),
        }
        self.taker = None;
        let text = describe(error);
        let state = match error {
            NotTaken::Refused { status, .. } => HeartbeatState::Refused(*status),
            NotTaken::Request(_) | NotTaken::Answer(_) => HeartbeatState::Failing(text.clone()),
        };
        self.note_state(state, &text);
    }

    /// Logs a change.
    fn note_state(&mut self, state: HeartbeatState, error: &str) {
        if self.state == state {
            return;
        }
        let (worker_id, coordinator) = (&self.announcer.worker_id, self.endpoint.url());
        if state == HeartbeatState::Registered {
            info!(%worker_id, %coordinator, "the coordinator takes heartbeats");
        } else {
            warn!(%worker_id, %coordinator, error, "the coordinator takes no heartbeat");
        }
        self.state = state;
    }

    fn act_on(&mut self, answer: HeartbeatAnswer) {
        let HeartbeatAnswer { epoch, settled, deliver, is_standby } = answer;
        if is_standby {
            self.is_current = false;
            return;
        }
        // A coordinator that no longer leads has outdated knowledge of attempts.
        self.is_current = self.announcer.epoch.see(epoch).is_ok();
        if !self.is_current {
            return;
        }
        self.announcer.courier.turn_to(&self.endpoint, epoch);
        self.announcer.held.forget(&settled);
        while self.deliveries.try_join_next().is_some() {}
        // The answer to the next heartbeat asks again for outcomes that are not on their way yet.
        if deliver.is_empty() || !self.deliveries.is_empty() {
            return;
        }
        let (announcer, endpoint) = (Arc::clone(&self.announcer), self.endpoint.clone());
        let fail = Arc::clone(&self.deliveries_fail);
        self.deliveries.spawn(async move {
            let failed = delivery::deliver(&announcer, &endpoint, epoch, deliver).await;
            if let Some(error) = &failed
                && !fail.load(Ordering::Relaxed)
            {
                warn!(coordinator = %endpoint.url(), error, "kept outcomes could not be delivered");
            }
            fail.store(failed.is_some(), Ordering::Relaxed);
        });
    }

    async fn deregister(&self) {
        let Announcer { worker_id, boot_id, .. } = &*self.announcer;
        let path = ["worker", "register", worker_id.as_str()];
        let request = self.announcer.request(Method::DELETE, &self.endpoint, &path);
        let query = Deregistration { boot_id: *boot_id };
        let answer = request.timeout(FAREWELL_TIMEOUT).query(&query).send().await;
        match answer.and_then(Response::error_for_status) {
            Ok(_) => info!(%worker_id, coordinator = %self.endpoint.url(), "deregistered"),
            Err(error) => {
                info!(coordinator = %self.endpoint.url(), %error, "could not deregister; the coordinator will notice the silence");
            }
        }
    }

    async fn release(&self, returned: &[Returned]) {
        if self.taker.is_some() && self.is_current {
            let release = delivery::release(&self.announcer, &self.endpoint, returned.to_vec());
            // Best effort: the coordinator takes back the leases of a lost worker by itself.
            let _ = timeout(FAREWELL_TIMEOUT, release).await;
        }
    }
}

pub(crate) async fn check(response: Response) -> Result<Response, NotTaken> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = read_bounded_json::<Problem>(response, MAX_PROBLEM_BYTES).await;
    let detail = problem.map_or_else(|_| String::new(), |problem| format!(": {}", problem.detail));
    Err(NotTaken::Refused { status, detail })
}

/// An error with its causes, in one line.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A doubling pause up to a second, less a random half so that workers do not come back in step. A coordinator that refuses
/// this worker's name is asked again at the interval of heartbeats.
fn pause_after(failures: u32, error: &NotTaken) -> Duration {
    let pause = match error {
        NotTaken::Refused { status: StatusCode::CONFLICT, .. } => INTERVAL,
        NotTaken::Request(_) | NotTaken::Answer(_) | NotTaken::Refused { .. } => {
            FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(INTERVAL)
        }
    };
    pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode) -> NotTaken {
        NotTaken::Refused { status, detail: String::new() }
    }

    #[test]
    fn pauses_double_up_to_a_second_and_differ() {
        for (failures, most_ms) in [(1, 100), (2, 200), (4, 800), (5, 1000), (1_000_000, 1000)] {
            let most = Duration::from_millis(most_ms);
            let error = refused(StatusCode::SERVICE_UNAVAILABLE);
            let pauses: Vec<_> = (0..50).map(|_| pause_after(failures, &error)).collect();
            assert!(pauses.iter().all(|pause| *pause <= most && *pause >= most / 2), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_asked_for_at_the_pace_of_heartbeats() {
        assert!(pause_after(1, &refused(StatusCode::CONFLICT)) >= INTERVAL / 2);
    }
}
