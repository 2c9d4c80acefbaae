//! The only reader of the event table: it hands each event to the streams and waiters of its job, and to those that follow all
//! jobs. A stream on a quiet job costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use model::{JobEvent, JobId};
use store::Store;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

/// Events read at a time.
const PAGE: usize = 1_000;

/// Events that may wait for one subscriber. A subscriber that is slower reads the table itself.
const MAX_WAITING: usize = 64;

/// Pause after the table could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The subscribers, by number.
type Subscribers = Vec<(u64, mpsc::Sender<Arc<JobEvent>>)>;

/// The only reader of the event table, with its subscribers.
#[derive(Debug)]
pub(crate) struct EventHub {
    store: Arc<Store>,
    of_jobs: DashMap<JobId, Subscribers>,
    of_all: DashMap<(), Subscribers>,
    last_subscriber: AtomicU64,
    /// The number of the newest event that this coordinator knows of.
    newest: watch::Sender<u64>,
}

/// Events of one job or of all, from now on.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<EventHub>,
    job: Option<JobId>,
    number: u64,
    events: mpsc::Receiver<Arc<JobEvent>>,
}

impl EventHub {
    pub(crate) fn new(store: Arc<Store>) -> Arc<Self> {
        let newest = watch::Sender::new(*store.latest_event().borrow());
        let (of_jobs, of_all, last_subscriber) = (DashMap::new(), DashMap::new(), AtomicU64::new(0));
        Arc::new(Self { store, of_jobs, of_all, last_subscriber, newest })
    }

    /// Subscribes to the events of one job, or of all.
    pub(crate) fn subscribe(self: &Arc<Self>, job: Option<JobId>) -> Subscription {
        let number = self.last_subscriber.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, events) = mpsc::channel(MAX_WAITING);
        match job {
            Some(job) => self.of_jobs.entry(job).or_default().push((number, sender)),
            None => self.of_all.entry(()).or_default().push((number, sender)),
        }
        Subscription { hub: Arc::clone(self), job, number, events }
    }

    /// The number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        let of_jobs: usize = self.of_jobs.iter().map(|subscribers| subscribers.len()).sum();
        of_jobs + self.of_all.get(&()).map_or(0, |subscribers| subscribers.len())
    }

    /// Reads events as they are committed. Runs for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut latest = self.newest.subscribe();
        let mut after = *latest.borrow_and_update();
        while latest.changed().await.is_ok() {
            let target = *latest.borrow_and_update();
            if self.of_jobs.is_empty() && self.of_all.is_empty() {
                after = target;
            }
            while after < target {
                match self.store.events(after, None, PAGE).await {
                    Ok(page) => {
                        after = page.last().map_or(target, |event| event.seq);
                        page.into_iter().for_each(|event| self.publish(event));
                    }
                    Err(error) => {
                        warn!(%error, "cannot read events yet");
                        sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
        // The sender is a field of this hub and never closes.
        std::future::pending().await
    }

    /// Follows a store's announcements of its newest event. Runs for ever.
    pub(crate) async fn follow(self: Arc<Self>, mut latest: watch::Receiver<u64>) {
        loop {
            let newest = *latest.borrow_and_update();
            self.newest.send_if_modified(|known| newest > std::mem::replace(known, newest.max(*known)));
            if latest.changed().await.is_err() {
                // The writer has stopped: it stores no more events.
                return std::future::pending().await;
            }
        }
    }

    fn publish(&self, event: JobEvent) {
        let event = Arc::new(event);
        if let Some(mut subscribers) = self.of_jobs.get_mut(&event.job) {
            send(&mut subscribers, &event);
        }
        if let Some(mut subscribers) = self.of_all.get_mut(&()) {
            send(&mut subscribers, &event);
        }
    }
}

/// Sends an event to the subscribers. A slow subscriber loses its channel, which tells it that it has missed events.
fn send(subscribers: &mut Subscribers, event: &Arc<JobEvent>) {
    subscribers.retain(|(_, sender)| match sender.try_send(Arc::clone(event)) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
    });
}

impl Subscription {
    /// The next event; `None` when events were missed: then the table has them, and a new subscription gives the later ones.
    pub(crate) async fn next(&mut self) -> Option<Arc<JobEvent>> {
        self.events.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let without_this = |subscribers: &mut Subscribers| subscribers.retain(|(number, _)| *number != self.number);
        match self.job {
            Some(job) => {
                if let Some(mut subscribers) = self.hub.of_jobs.get_mut(&job) {
                    without_this(&mut subscribers);
                }
                self.hub.of_jobs.remove_if(&job, |_, subscribers| subscribers.is_empty());
            }
            None => {
                if let Some(mut subscribers) = self.hub.of_all.get_mut(&()) {
                    without_this(&mut subscribers);
                }
                self.hub.of_all.remove_if(&(), |(), subscribers| subscribers.is_empty());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use store::Retention;
    use store::memory::Memory;
    use uuid::Uuid;

    use super::*;

    fn event(seq: u64, job: JobId) -> JobEvent {
        let event = serde_json::json!({"seq": seq, "job": job, "type": "submitted", "at": "2026-03-21T10:00:00Z"});
        serde_json::from_value(event).expect("an event")
    }

    #[tokio::test]
    async fn an_event_wakes_those_that_wait_for_its_job_and_no_others() {
        let hub = EventHub::new(Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread")));
        let [one, other] = [1, 2].map(|number| JobId(Uuid::from_u128(number)));
        let (mut of_one, mut of_other) = (hub.subscribe(Some(one)), hub.subscribe(Some(other)));
        let mut of_all = hub.subscribe(None);
        hub.publish(event(1, one));
        assert_eq!(of_one.next().await.map(|event| event.seq), Some(1));
        assert_eq!(of_all.next().await.map(|event| event.seq), Some(1));
        assert!(of_other.next().now_or_never().is_none());
        drop(of_other);
        assert_eq!((hub.len(), hub.of_jobs.len()), (2, 1), "nothing is kept for those that have left");
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_keep_up_learns_that_it_has_missed_events() {
        let hub = EventHub::new(Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread")));
        let mut slow = hub.subscribe(None);
        for seq in 1..=MAX_WAITING as u64 + 1 {
            hub.publish(event(seq, JobId(Uuid::from_u128(1))));
        }
        for seq in 1..=MAX_WAITING as u64 {
            assert_eq!(slow.next().await.map(|event| event.seq), Some(seq));
        }
        assert!(slow.next().await.is_none());
        assert_eq!(hub.len(), 0);
    }
}
