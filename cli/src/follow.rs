//! Follows events over a connection that may break: it is opened again where it ended, with a growing pause between.

use std::time::Duration;

use api::client::{Client, Events, EventsError, StreamItem};
use api::{Job, StreamReset};
use model::{EventKind, JobEvent, JobId};
use tokio::time::{Instant, sleep, timeout};

use crate::failure::Failure;
use crate::patience::patiently;

/// The pause before the second new connection; it doubles. The first one comes at once: the end of a job's events shows in it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two connections.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Longest absence of a grid, such as a restart, before it counts as unreachable.
const AWAY_TIMEOUT: Duration = Duration::from_secs(60);

/// A coordinator sends something every 15 s: one that has said nothing for so long is gone, or was halted and keeps its
/// connections.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// No event has this number. Asked for what comes after it, a grid first tells the newest event's number: a connection that breaks
/// before the first event is then opened again without a gap.
const BEYOND_ALL: u64 = u64::MAX;

/// A step of an event stream.
#[derive(Debug)]
pub(crate) enum Step {
    /// The connection is open: the stream reports all later events.
    Opened,
    Event(JobEvent),
    /// Events are missing between the last one and the next.
    Reset(StreamReset),
    /// The stream is at its end: the job is over, or only existing events were asked for.
    Over,
}

/// The events of a job or of all.
#[derive(Debug)]
pub(crate) struct EventStream<'a> {
    grid: &'a Client,
    id: Option<JobId>,
    after: Option<u64>,
    /// Whether later events are asked for, too.
    follow: bool,
    connection: Option<Connection>,
    away: Away,
}

#[derive(Debug)]
struct Connection {
    opened_at: Instant,
    events: Events,
}

impl<'a> EventStream<'a> {
    /// Events with numbers above `after`, or those from the first connection on.
    pub(crate) fn new(grid: &'a Client, id: Option<JobId>, after: Option<u64>) -> Self {
        Self { grid, id, after, follow: true, connection: None, away: Away::default() }
    }

    /// The events with numbers above `after` that are there already.
    pub(crate) fn stored(grid: &'a Client, id: Option<JobId>, after: u64) -> Self {
        Self { follow: false, ..Self::new(grid, id, Some(after)) }
    }

    /// The next step, waited for over every break shorter than [`AWAY_TIMEOUT`].
    pub(crate) async fn next(&mut self) -> Result<Step, Failure> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.away.pause().await;
                let after = if self.comes_of_all() { Some(BEYOND_ALL) } else { self.after };
                match timeout(SILENCE_TIMEOUT, self.grid.events(self.id, after, self.follow)).await {
                    Ok(Ok(None)) => return Ok(Step::Over),
                    Ok(Ok(Some(events))) => self.connection = Some(Connection { opened_at: Instant::now(), events }),
                    Ok(Err(error)) => {
                        self.away.bear(error.into())?;
                        continue;
                    }
                    Err(_) => {
                        let (url, cause) = (self.grid.url().to_string(), "it does not answer".to_owned());
                        self.away.bear(Failure::Unreachable { url, cause })?;
                        continue;
                    }
                }
                return Ok(Step::Opened);
            };
            match connection.events.take() {
                Some(StreamItem::Reset(reset)) => {
                    let is_answer = self.comes_of_all();
                    self.after = Some(reset.resumes_after);
                    if is_answer {
                        continue;
                    }
                    return Ok(Step::Reset(reset));
                }
                Some(StreamItem::Event(event)) => {
                    self.away = Away::default();
                    self.after = Some(event.seq);
                    return Ok(Step::Event(event));
                }
                None => (),
            }
            match timeout(SILENCE_TIMEOUT, connection.events.read()).await {
                Ok(Ok(true)) => (),
                Ok(Ok(false)) if !self.follow => return Ok(Step::Over),
                Ok(Ok(false) | Err(EventsError::Connection(_))) | Err(_) => self.lose(),
                Ok(Err(error @ (EventsError::TooLong(_) | EventsError::Invalid(_)))) => {
                    return Err(anyhow::Error::from(error).into());
                }
            }
        }
    }

    /// Whether the events to come of all jobs are asked for, and no event's number is known yet.
    fn comes_of_all(&self) -> bool {
        self.id.is_none() && self.after.is_none()
    }

    /// Gives the connection up: the next step opens another.
    fn lose(&mut self) {
        if self.connection.take().is_some_and(|connection| connection.opened_at.elapsed() > LONGEST_PAUSE) {
            self.away = Away::default();
        }
        self.away.begin();
    }
}

/// Start of the grid's absence.
#[derive(Debug, Default)]
pub(crate) struct Away {
    since: Option<Instant>,
    attempts: u32,
}

impl Away {
    pub(crate) fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    pub(crate) async fn pause(&mut self) {
        if self.since.is_none() {
            return;
        }
        if let Some(doublings) = self.attempts.checked_sub(1) {
            let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE);
            // Half of the pause is random, so that many waiting clients do not come back at once.
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        self.attempts += 1;
    }

    /// Takes a failure in its stride when it may pass and has not lasted too long.
    pub(crate) fn bear(&mut self, failure: Failure) -> Result<(), Failure> {
        let may_pass = matches!(failure, Failure::Unreachable { .. } | Failure::Failed(_));
        match self.since {
            Some(since) if may_pass && since.elapsed() < AWAY_TIMEOUT => Ok(()),
            _ => Err(failure),
        }
    }
}

/// Whether the figures of a job differ after an event.
fn is_news(event: EventKind) -> bool {
    match event {
        EventKind::Submitted | EventKind::Started | EventKind::TaskFailed => false,
        EventKind::Progress
        | EventKind::Paused
        | EventKind::Resumed
        | EventKind::Retried
        | EventKind::Succeeded
        | EventKind::Failed
        | EventKind::Canceled => true,
    }
}

/// Waits until a job is over and answers it. `on_progress` gets the job at the start and after each change.
pub(crate) async fn follow_job(grid: &Client, id: JobId, mut on_progress: impl FnMut(&Job)) -> Result<Job, Failure> {
    let job = patiently(async || grid.job(id).await).await?;
    on_progress(&job);
    if job.state.is_over() {
        return Ok(job);
    }
    let mut stream = EventStream::new(grid, Some(id), None);
    // The grid has answered: it may be away for a while from the first connection on.
    stream.away.begin();
    loop {
        // A job read after a reconnection shows the changes in between.
        let is_news = match stream.next().await? {
            Step::Opened | Step::Reset(_) | Step::Over => true,
            // Events of progress have the number of tasks alone. They come once a second at most.
            Step::Event(event) => is_news(event.kind),
        };
        if is_news {
            match grid.job(id).await {
                Ok(job) if job.state.is_over() => return Ok(job),
                Ok(job) => on_progress(&job),
                Err(error) => {
                    stream.lose();
                    stream.away.bear(error.into())?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_again_when_a_pause_ends_its_rate_and_when_it_is_over() {
        assert!(is_news(EventKind::Paused) && is_news(EventKind::Resumed));
        assert!(EventKind::ALL.into_iter().filter(|kind| kind.is_end()).all(is_news));
        assert!(!is_news(EventKind::TaskFailed), "there may be many of them");
    }
}
