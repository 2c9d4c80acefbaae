//! Publishes the event table by number, each record keyed by its job.
//!
//! The store has the number of the first event that is not published. It moves behind what the brokers have acknowledged
//! without a gap, so an event is published at least once, and in each partition in the order of the numbers: after a failure
//! everything from the gap on is sent again, and the numbers tell a reader what it has seen. A producer that is made anew for
//! an event that waits sends again only what is not acknowledged. After a failure one event goes alone, so that an event which
//! the brokers never take does not bring those behind it again and again. Nothing is sent without the trust to lead: what a
//! coordinator held that was paused is thrown away when it wakes up.

mod deliveries;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::JobEvent;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use store::{Advance, Advanced, OUTBOX, OUTBOX_LOST_TOLD, Position, ReadError, Store, SubmitError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::figures::{Figures, Part, StoredOutbox};
use crate::patience::Patience;
use crate::record;
use crate::settings::Settings;
use crate::thread::Stop;
use crate::window::Window;
use deliveries::{Deliveries, lock};

/// Events read at a time.
const PAGE: usize = 2_000;
/// Events that may be sent and not acknowledged.
const MAX_OUTSTANDING: usize = 40_000;
/// Interval at which the store gets the position of the events: later events may be sent again after a crash.
const STORE_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which the store is asked how many events were lost: it answers with all positions, with those of the partitions
/// of jobs.
const LOST_INTERVAL: Duration = Duration::from_secs(10);
/// Time for which the first event after a failure goes alone. Brokers refuse an event sooner; without a leader of its partition
/// they answer nothing, and the events of other partitions go on.
const ALONE: Duration = Duration::from_secs(10);
/// Time without an acknowledgement after which an event is reported.
const LATE: Duration = Duration::from_secs(5);
/// Bound on the time in which the brokers name the leaders: no event is sent meanwhile.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which an idle relay waits before it checks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Publishes the event table.
#[derive(Debug)]
pub struct Outbox {
    /// The brokers that the events are published to.
    pub settings: Settings,
    /// Store of the events.
    pub store: Arc<Store>,
    /// Counts of the relay's work.
    pub figures: Arc<Figures>,
    /// Runtime of the store's futures.
    pub runtime: Handle,
}

/// The reason why events are not published.
#[derive(Debug, thiserror::Error)]
enum OutboxError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("an event was not delivered: {0}")]
    Delivery(String),
    #[error("event {0} is not acknowledged, though each partition has a leader")]
    Stuck(u64),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] SubmitError),
    #[error("another relay publishes, from event {} on", .0.next)]
    Overtaken(Position),
}

/// A producer and its unacknowledged events.
struct Session {
    producer: BaseProducer<Deliveries>,
    window: Arc<Mutex<Window>>,
    /// The position in the store.
    stored: u64,
    stored_at: Instant,
    /// Instant at which the store was last asked how many events were lost.
    lost_at: Instant,
    /// The last event that was sent.
    sent: u64,
    /// End of the time in which the first event goes alone, if the session before has failed.
    alone_until: Option<Instant>,
    /// The first event that is not acknowledged, and the instant since which it is the first.
    waits: (u64, Instant),
    /// Reports of this event as late, and the instant of the last one.
    late: (u32, Instant),
    patience: Patience,
    topic: Arc<str>,
    latest: watch::Receiver<u64>,
}

impl Session {
    /// Whether each partition has a leader, as the brokers say.
    fn is_led(&self) -> bool {
        let asked = self.producer.client().fetch_metadata(Some(&*self.topic), ASK_TIMEOUT);
        asked.is_ok_and(|metadata| {
            metadata.topics().iter().all(|topic| {
                topic.error().is_none() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
            })
        })
    }
}

impl Outbox {
    /// Publishes events until `stop` is set. The figures are told of the start before, and here of the end.
    pub fn run(self, stop: &Stop) {
        let (mut is_careful, mut patience, mut before) = (false, Patience::default(), None);
        while stop.wait_to_act() {
            let ended = self.session(stop, is_careful, patience, &mut before);
            is_careful = ended.is_err();
            if let Err(error) = ended {
                if let OutboxError::Stuck(event) = error {
                    warn!(event, "an event is not acknowledged, though there are leaders: making the producer anew");
                    patience = patience.after(event);
                }
                self.figures.failed(Part::Outbox, &error.to_string());
                stop.sleep(RETRY_PAUSE);
            }
        }
        self.figures.ended(Part::Outbox);
    }

    /// Publishes events from the store's position on, until an error. `before` is the window that the producer before has left
    /// to this one, and then the window that this one leaves.
    fn session(
        &self,
        stop: &Stop,
        is_careful: bool,
        patience: Patience,
        before: &mut Option<Window>,
    ) -> Result<(), OutboxError> {
        let mut session = self.begin(is_careful, patience, before.take())?;
        let mut ended = Ok(());
        while ended.is_ok() && stop.may_act() {
            ended = self.step(&mut session, stop);
        }
        session.producer.poll(Duration::ZERO);
        // Another coordinator publishes from the position on: a later event of this one would come after that coordinator's.
        session.producer.purge(PurgeConfig::default().queue().inflight());
        // Acknowledged events are not sent again. The store refuses the position if another coordinator leads.
        if let Err(error) = self.store_position(&mut session, true) {
            debug!(%error, "events that are acknowledged are published again");
        }
        // Behind an event that waits, events of other partitions are acknowledged.
        *before = matches!(ended, Err(OutboxError::Stuck(_))).then(|| lock(&session.window).handed_on());
        ended
    }

    fn begin(&self, is_careful: bool, patience: Patience, before: Option<Window>) -> Result<Session, OutboxError> {
        let outbox = self.positions()?;
        // Events count from 1.
        let (stored, next) = (outbox.next, outbox.next.max(1));
        self.store.keep_events_from(next);
        self.figures.set_published(next);
        self.tell_of_lost(&outbox);
        // From another position on, another coordinator may have published.
        let window = before.filter(|before| before.next() == next).unwrap_or_else(|| Window::new(next));
        let window = Arc::new(Mutex::new(window));
        let deliveries = Deliveries { window: Arc::clone(&window) };
        let producer = self.settings.ordered_producer(deliveries)?;
        let (latest, stored_at) = (self.store.latest_event(), Instant::now());
        let (sent, topic, lost_at) = (next - 1, self.settings.topics().events().into(), stored_at);
        let (alone_until, waits) = (is_careful.then(|| stored_at + ALONE), (next, stored_at));
        Ok(Session {
            producer,
            window,
            stored,
            stored_at,
            lost_at,
            sent,
            alone_until,
            waits,
            late: (0, stored_at),
            patience,
            topic,
            latest,
        })
    }

    fn step(&self, session: &mut Session, stop: &Stop) -> Result<(), OutboxError> {
        let target = *session.latest.borrow_and_update();
        let (outstanding, is_proved) = {
            let window = lock(&session.window);
            (window.len(), window.is_proved())
        };
        let is_alone = !is_proved && session.alone_until.is_some_and(|until| Instant::now() < until);
        let (most, page) = if is_alone { (1, 1) } else { (MAX_OUTSTANDING, PAGE) };
        let mut is_waiting = true;
        if session.sent < target && outstanding < most {
            is_waiting = false;
            let page = self.runtime.block_on(self.store.events(session.sent, None, page))?;
            if page.is_empty() {
                // They are forgotten. The store's position stays: a database that has lost them gives their numbers again.
                session.sent = target;
                lock(&session.window).passed(target);
                self.figures.set_published(lock(&session.window).settled());
                self.note_lost(session);
            }
            for event in &page {
                if !self.send(session, event, stop)? {
                    return Ok(());
                }
            }
        } else if outstanding == 0 {
            let _ = self.runtime.block_on(async { tokio::time::timeout(IDLE, session.latest.changed()).await });
            is_waiting = false;
        }
        session.producer.poll(if is_waiting { Duration::from_millis(10) } else { Duration::ZERO });
        self.check(session)?;
        self.tell(session);
        if session.lost_at.elapsed() >= LOST_INTERVAL {
            self.note_lost(session);
        }
        self.store_position(session, false)
    }

    /// Reports the client's trouble if an event waits, and an event that is late.
    fn tell(&self, session: &mut Session) {
        let mut window = lock(&session.window);
        let (warning, first) = (window.take_warning(), window.next());
        if window.len() == 0 || session.waits.0 != first {
            session.waits = (first, Instant::now());
            session.late = (0, session.waits.1);
        }
        match warning {
            _ if window.len() == 0 => self.figures.recovered(Part::Outbox),
            Some(warning) => self.figures.failed(Part::Outbox, &warning),
            None if session.late.1.elapsed() >= LATE => {
                session.late = (session.late.0.saturating_add(1), Instant::now());
                let broker = window.broker().map_or_else(String::new, |broker| format!(": {broker}"));
                let error = format!("event {first} and those behind it in its partition are not acknowledged{broker}");
                self.figures.failed(Part::Outbox, &error);
            }
            None => (),
        }
    }

    /// Sends an event that is not acknowledged. Returns whether it was sent: no later event may be sent before an unsent one.
    fn send(&self, session: &mut Session, event: &JobEvent, stop: &Stop) -> Result<bool, OutboxError> {
        if !stop.may_act() {
            return Ok(false);
        }
        if lock(&session.window).skips(event.seq) {
            session.sent = event.seq;
            return Ok(true);
        }
        let (job, topic) = (event.job.to_string(), Arc::clone(&session.topic));
        let value = serde_json::to_string(event).expect("an event is JSON");
        let number = usize::try_from(event.seq).expect("64 bits");
        let mut record = BaseRecord::with_opaque_to(&topic, number)
            .key(job.as_str())
            .payload(value.as_str())
            .timestamp(event.at.as_millisecond())
            .headers(record::headers(event, &job));
        lock(&session.window).sent(event.seq);
        while let Err((error, back)) = session.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            session.producer.poll(Duration::from_millis(10));
            self.check(session)?;
            self.tell(session);
            self.store_position(session, false)?;
            if !stop.may_act() {
                return Ok(false);
            }
            record = back;
        }
        session.sent = event.seq;
        Ok(true)
    }

    /// Fails if an event was not delivered, or waits for so long that its producer is to be made anew.
    fn check(&self, session: &mut Session) -> Result<(), OutboxError> {
        if let Some(error) = lock(&session.window).failure() {
            return Err(OutboxError::Delivery(error.to_owned()));
        }
        let event = session.waits.0;
        if session.late.0 < session.patience.reports(event) {
            return Ok(());
        }
        session.late.0 = 0;
        // Without a leader a new producer cannot send the event either.
        if session.is_led() { Err(OutboxError::Stuck(event)) } else { Ok(()) }
    }

    /// Moves the store's position to the first event that is not acknowledged.
    fn store_position(&self, session: &mut Session, at_once: bool) -> Result<(), OutboxError> {
        let (next, is_due) = (lock(&session.window).next(), session.stored_at.elapsed() >= STORE_INTERVAL);
        if next <= session.stored.max(1) || !(is_due || at_once) {
            return Ok(());
        }
        let (from, to) = (session.stored, Position { next, mark: 0 });
        let advance = Advance { stream: OUTBOX.to_owned(), from, to, job: None };
        match self.runtime.block_on(self.store.advance(advance))? {
            Advanced::Moved | Advanced::Submitted(_) => (),
            Advanced::Elsewhere(position) => return Err(OutboxError::Overtaken(position)),
        }
        (session.stored, session.stored_at) = (next, Instant::now());
        self.store.keep_events_from(next);
        self.figures.recovered(Part::Outbox);
        self.figures.set_published(lock(&session.window).settled());
        Ok(())
    }

    /// Counts lost events: retention may delete events while no broker can be reached.
    fn note_lost(&self, session: &mut Session) {
        session.lost_at = Instant::now();
        match self.positions() {
            Ok(outbox) => self.tell_of_lost(&outbox),
            Err(error) => debug!(%error, "the store does not say how many events were lost"),
        }
    }

    /// Tells of events that were lost, and notes in the store that it has.
    fn tell_of_lost(&self, outbox: &StoredOutbox) {
        let StoredOutbox { lost, told, .. } = *outbox;
        self.figures.set_lost(lost, told);
        if lost > told {
            let to = Position { next: lost, mark: 0 };
            let advance = Advance { stream: OUTBOX_LOST_TOLD.to_owned(), from: told, to, job: None };
            if let Err(error) = self.runtime.block_on(self.store.advance(advance)) {
                debug!(%error, "another coordinator may tell of the same lost events again");
            }
        }
    }

    fn positions(&self) -> Result<StoredOutbox, ReadError> {
        Ok(StoredOutbox::of(&self.runtime.block_on(self.store.positions())?))
    }
}
