//! Jobs in: each record of a topic of jobs becomes one job, or a dead letter.
//!
//! The leader alone reads, without a group. The offset of the next record is the store's position of the partition, which
//! moves in the job's own transaction, so a record that is read again changes nothing. A position keeps a mark of its last
//! record, by which a topic that was made anew is recognized.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::{EventSource, Priority};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use store::{Advance, Advanced, NewJob, Position, ReadError, Store, SubmitError, WriteError};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::client::Context;
use crate::dead_letters::DeadLetters;
use crate::figures::{Figures, Part};
use crate::partitions::{self, Begin, Partition, Place, mark, stream};
use crate::settings::Settings;
use crate::thread::Stop;
use crate::{SUBMIT_PREFIX, submit_topic};

/// Records that are taken at a time,
const MAX_BATCH: usize = 4_000;
/// and their bytes, about.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Nothing is read while so many changes wait for the store.
const MAX_BACKLOG: u64 = 20_000;
/// How long an idle intake waits before it looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// How often it looks for partitions that were added.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The group that a broker's log shows. It has no members.
const GROUP: &str = "divvy-intake";
/// The client's own name for a request.
const KEY_HEADER: &str = "idempotency-key";

/// Turns records into jobs.
pub trait Acceptor: Send + Sync + 'static {
    /// The job of a value, as `POST /v1/jobs` takes it.
    ///
    /// # Errors
    /// Why it is none.
    fn read(&self, value: &[u8], priority: Priority, idempotency_key: Option<&str>) -> Result<NewJob, String>;

    /// Makes moves in this order, and the jobs that are new known. An answer for each.
    fn accept(&self, moves: Vec<Advance>) -> impl Future<Output = Vec<Result<Advanced, SubmitError>>> + Send;
}

/// See the module.
#[derive(Debug)]
pub struct Intake<A> {
    /// Where from.
    pub settings: Settings,
    /// The positions.
    pub store: Arc<Store>,
    /// Where to.
    pub acceptor: A,
    /// What it has done.
    pub figures: Arc<Figures>,
    /// Where the store's futures run.
    pub runtime: Handle,
}

/// Why records are not taken.
#[derive(Debug, thiserror::Error)]
enum IntakeError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] SubmitError),
    #[error("another reader has moved {stream} to offset {}", .position.next)]
    Overtaken { stream: String, position: Position },
}

/// One consumer and where it reads.
struct Session {
    consumer: BaseConsumer<Context>,
    dead_letters: DeadLetters,
    places: BTreeMap<Partition, Place>,
    /// Whether a topic was made anew: what was read since is void.
    made_anew: Arc<AtomicBool>,
    looked_at: Instant,
}

/// A record that is to be taken.
struct Pending {
    record: OwnedMessage,
    partition: Partition,
    offset: u64,
    /// Why it is no job.
    cause: Option<String>,
    is_buried: bool,
}

/// Whether a session goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// The partitions are to be looked at.
    Look,
}

impl<A: Acceptor> Intake<A> {
    /// Takes records until it is told to stop.
    pub fn run(self, stop: &Stop) {
        while !stop.is_set() {
            if let Err(error) = self.session(stop) {
                self.figures.failed(Part::Intake, &error.to_string());
                stop.sleep(RETRY_PAUSE);
            }
        }
        self.figures.ended(Part::Intake);
    }

    /// From the store's positions on, until the partitions have to be looked at again.
    fn session(&self, stop: &Stop) -> Result<(), IntakeError> {
        let mut session = self.begin()?;
        self.figures.recovered(Part::Intake);
        while !stop.is_set() {
            if self.store.backlog() > MAX_BACKLOG {
                stop.sleep(IDLE);
                continue;
            }
            let batch = poll(&session.consumer)?;
            if session.made_anew.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.take(&mut session, batch)? == Next::Look {
                return Ok(());
            }
            if session.looked_at.elapsed() > LOOK_INTERVAL {
                let found: BTreeSet<_> = partitions::find(session.consumer.client())?.into_iter().collect();
                if !session.places.keys().eq(found.iter()) {
                    return Ok(());
                }
                session.looked_at = Instant::now();
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Session, IntakeError> {
        let made_anew = Arc::default();
        let context = Context::of(&self.figures, Part::Intake).watching(&made_anew);
        let consumer = self.settings.consumer(GROUP, context)?;
        let found = partitions::find(consumer.client())?;
        let positions = self.runtime.block_on(self.store.positions())?;
        let mut assignment = TopicPartitionList::new();
        let mut places = BTreeMap::new();
        for (partition, (stored, begin)) in partitions::places(consumer.client(), &found, &positions)? {
            let (offset, place) = self.place(partition, stored, begin)?;
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            assignment.add_partition_offset(&submit_topic(partition.0), partition.1, offset)?;
            places.insert(partition, place);
        }
        consumer.assign(&assignment)?;
        let dead_letters = DeadLetters::new(&self.settings)?;
        Ok(Session { consumer, dead_letters, places, made_anew, looked_at: Instant::now() })
    }

    /// Where to read, with the store's position moved where it cannot stay.
    fn place(&self, partition: Partition, stored: Position, begin: Begin) -> Result<(u64, Place), IntakeError> {
        let (offset, is_unproved) = match begin {
            Begin::At(offset) => (offset, false),
            Begin::Proving(offset) => (offset, true),
            Begin::Missed(offset, records) => {
                let stream = stream(partition);
                warn!(stream, records, offset, "records were deleted before they were read: going on after them");
                self.figures.add_missed(records);
                return self.set_back(partition, stored, offset);
            }
            Begin::Anew(offset) => {
                self.tell_anew(partition, offset);
                return self.set_back(partition, stored, offset);
            }
        };
        Ok((offset, Place { stored, is_unproved }))
    }

    fn tell_anew(&self, partition: Partition, offset: u64) {
        info!(
            stream = stream(partition),
            offset, "the partition is not the one that was read: reading it from its start"
        );
        self.figures.add_anew();
    }

    fn set_back(&self, partition: Partition, from: Position, next: u64) -> Result<(u64, Place), IntakeError> {
        let to = Position { next, mark: 0 };
        let advance = Advance { stream: stream(partition), from: from.next, to, job: None };
        let answers = self.runtime.block_on(self.acceptor.accept(vec![advance]));
        for answer in answers {
            if let Advanced::Elsewhere(position) = answer? {
                return Err(IntakeError::Overtaken { stream: stream(partition), position });
            }
        }
        Ok((next, Place { stored: to, is_unproved: false }))
    }

    fn take(&self, session: &mut Session, batch: Vec<OwnedMessage>) -> Result<Next, IntakeError> {
        let mut pending = Vec::with_capacity(batch.len());
        for record in batch {
            let Some(partition) = partition_of(&record) else { continue };
            let Some(place) = session.places.get_mut(&partition) else { continue };
            let offset = u64::try_from(record.offset()).unwrap_or(0);
            if std::mem::take(&mut place.is_unproved) && offset + 1 == place.stored.next {
                if mark(&record) != place.stored.mark {
                    self.tell_anew(partition, 0);
                    // From the first record that the partition has.
                    self.set_back(partition, place.stored, 0)?;
                    return Ok(Next::Look);
                }
                continue;
            }
            if offset >= place.stored.next {
                pending.push(Pending { record, partition, offset, cause: None, is_buried: false });
            }
        }
        while !pending.is_empty() {
            pending = self.take_some(session, pending)?;
        }
        Ok(Next::GoOn)
    }

    /// Takes records up to the first of each partition whose job the store does not accept. Returns the others.
    fn take_some(&self, session: &mut Session, mut pending: Vec<Pending>) -> Result<Vec<Pending>, IntakeError> {
        let mut ends: BTreeMap<_, _> =
            session.places.iter().map(|(&partition, place)| (partition, place.stored)).collect();
        let mut moves = Vec::with_capacity(pending.len());
        for one in &mut pending {
            let job = match one.cause {
                Some(_) => None,
                None => self.read(one).map_err(|cause| one.cause = Some(cause)).ok(),
            };
            let to = Position { next: one.offset + 1, mark: mark(&one.record) };
            let from = ends.insert(one.partition, to).unwrap_or_default().next;
            let topic = one.record.topic().to_owned();
            let source = EventSource { topic, partition: one.partition.1, offset: one.offset };
            let job = job.map(|job| (Box::new(job), source));
            moves.push((stream(one.partition), from, to, job));
        }
        self.bury(session, &mut pending)?;
        let positions: Vec<_> = moves.iter().map(|(_, _, to, _)| *to).collect();
        let moves = moves.into_iter().map(|(stream, from, to, job)| Advance { stream, from, to, job }).collect();
        let answers = self.runtime.block_on(self.acceptor.accept(moves));
        self.settle(session, pending, &positions, answers)
    }

    fn read(&self, one: &Pending) -> Result<NewJob, String> {
        let value = one.record.payload().ok_or("the record has no value")?;
        let key = idempotency_key(&one.record)?;
        self.acceptor.read(value, one.partition.0, key)
    }

    /// The brokers have the dead letters before any position moves behind them.
    fn bury(&self, session: &Session, pending: &mut [Pending]) -> Result<(), IntakeError> {
        let dead = pending.iter().filter(|one| !one.is_buried);
        let dead: Vec<_> = dead.filter_map(|one| Some((&one.record, one.cause.as_deref()?))).collect();
        if dead.is_empty() {
            return Ok(());
        }
        session.dead_letters.bury(&dead)?;
        self.figures.add_dead(dead.len() as u64);
        for one in pending.iter_mut().filter(|one| one.cause.is_some()) {
            one.is_buried = true;
        }
        Ok(())
    }

    fn settle(
        &self,
        session: &mut Session,
        pending: Vec<Pending>,
        positions: &[Position],
        answers: Vec<Result<Advanced, SubmitError>>,
    ) -> Result<Vec<Pending>, IntakeError> {
        let (mut blocked, mut again, mut taken) = (BTreeSet::new(), Vec::new(), 0);
        for ((mut one, &to), answer) in pending.into_iter().zip(positions).zip(answers) {
            if blocked.contains(&one.partition) {
                again.push(one);
                continue;
            }
            match answer {
                Ok(Advanced::Moved | Advanced::Submitted(_)) => {
                    taken += u64::from(one.cause.is_none());
                    if let Some(place) = session.places.get_mut(&one.partition) {
                        place.stored = to;
                    }
                }
                Ok(Advanced::Elsewhere(position)) => {
                    return Err(IntakeError::Overtaken { stream: stream(one.partition), position });
                }
                Err(refused @ (SubmitError::Mismatch { .. } | SubmitError::Write(WriteError::Refused(_))))
                    if one.cause.is_none() =>
                {
                    blocked.insert(one.partition);
                    one.cause = Some(refused.to_string());
                    again.push(one);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.figures.add_taken(taken);
        Ok(again)
    }
}

/// The records that are there, or those of the next moment.
fn poll(consumer: &BaseConsumer<Context>) -> Result<Vec<OwnedMessage>, KafkaError> {
    let (mut batch, mut bytes, mut patience) = (Vec::new(), 0, IDLE);
    while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let Some(record) = consumer.poll(patience) else { break };
        let record = record?.detach();
        bytes += record.payload().map_or(0, <[u8]>::len);
        batch.push(record);
        patience = Duration::ZERO;
    }
    Ok(batch)
}

fn partition_of(record: &OwnedMessage) -> Option<Partition> {
    let priority: u8 = record.topic().strip_prefix(SUBMIT_PREFIX)?.parse().ok()?;
    Some((Priority::try_from(priority).ok()?, record.partition()))
}

fn idempotency_key(record: &OwnedMessage) -> Result<Option<&str>, String> {
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let Some(header) = headers.into_iter().find(|header| header.key.eq_ignore_ascii_case(KEY_HEADER)) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(header.value.unwrap_or_default());
    text.map(Some).map_err(|_| format!("the header {KEY_HEADER} must be readable text"))
}
