//! Takes jobs in: each record of a topic of jobs becomes one job, or a dead letter.
//!
//! The leader alone reads, without a group. The offset of the next record is the store's position of the partition, which
//! moves in the job's own transaction, so a record that is read again changes nothing. A position keeps a mark of its last
//! record, and [`crate::marks`] those of earlier ones: by them a partition that was made anew, or lost its end, is recognized.

mod acceptor;
mod backlog;
mod marking;
mod shares;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{EventSource, JobId};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use store::{Advance, Advanced, NewJob, Position, ReadError, Store, Submission, SubmitError, WriteError};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::client::{Context, MadeAnew};
use crate::dead_letters::{DeadLetters, Unburied};
use crate::figures::{Figures, Part};
use crate::incoming::{Batch, idempotency_key, partition_of, poll};
use crate::partitions::{self, Begin, Partition, Place, mark, stream};
use crate::settings::Settings;
use crate::spans::{EndedRecord, RecordSpan};
use crate::thread::Stop;
use crate::topics::Topics;
use acceptor::Fingerprints;
use shares::take_in_shares;
use waiting::{Waiting, plainly};

pub use acceptor::{Acceptor, IncomingJob};

/// Time for which an idle intake waits before it checks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The group that a broker's log shows. It has no members.
const GROUP: &str = "divvy-intake";

/// Turns records of the topics of jobs into jobs.
#[derive(Debug)]
pub struct Intake<A> {
    /// The brokers that the records are read from.
    pub settings: Settings,
    /// The positions.
    pub store: Arc<Store>,
    /// Acceptor of the jobs.
    pub acceptor: A,
    /// Counts of the intake's work.
    pub figures: Arc<Figures>,
    /// Runtime of the store's futures.
    pub runtime: Handle,
}

/// The reason why records are not taken.
#[derive(Debug, thiserror::Error)]
enum IntakeError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] SubmitError),
    #[error(transparent)]
    Unburied(#[from] Unburied),
    #[error("another reader has moved {stream} to offset {}", .position.next)]
    Overtaken { stream: String, position: Position },
}

/// A consumer and its positions.
struct Session {
    consumer: BaseConsumer<Context>,
    dead_letters: DeadLetters,
    topics: Topics,
    places: BTreeMap<Partition, Place>,
    /// Topics that were made anew: records that were read since are void.
    made_anew: MadeAnew,
    waiting: Waiting,
    looked_at: Instant,
}

/// A record that is to be taken in.
struct Pending {
    record: OwnedMessage,
    partition: Partition,
    offset: u64,
    /// The reason why the record is no job.
    cause: Option<String>,
    is_buried: bool,
    span: Option<RecordSpan>,
    /// The job that the record becomes, unless another record or request has the same key.
    job: Option<JobId>,
    fingerprints: Fingerprints,
}

/// Continuation of a session.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// Look for the partitions again.
    Look,
}

impl<A: Acceptor> Intake<A> {
    /// Takes records in until `stop` is set.
    pub fn run(self, stop: &Stop) {
        while stop.wait_to_act() {
            match self.session(stop) {
                Ok(()) | Err(IntakeError::Unburied(Unburied::MayNotAct)) => (),
                Err(error) => {
                    self.figures.failed(Part::Intake, &error.to_string());
                    stop.sleep(RETRY_PAUSE);
                }
            }
        }
        self.figures.ended(Part::Intake);
    }

    /// Takes records in from the store's positions on, until the partitions have to be looked for again.
    fn session(&self, stop: &Stop) -> Result<(), IntakeError> {
        let mut session = self.begin()?;
        while stop.may_act() {
            if backlog::is_long(&self.store) {
                stop.sleep(IDLE);
                continue;
            }
            let Batch { records, is_refused } = poll(&session.consumer, IDLE)?;
            session.waiting.is_refused |= is_refused;
            if !session.made_anew.take().is_empty() {
                return Ok(());
            }
            if self.take(&mut session, records, stop)? == Next::Look {
                return Ok(());
            }
            let is_due = session.looked_at.elapsed() > self.settings.look_interval();
            if is_due && self.look(&mut session)? == Next::Look {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The name of a partition's position.
    fn stream(&self, partition: Partition) -> String {
        stream(self.settings.topics(), partition)
    }

    fn begin(&self) -> Result<Session, IntakeError> {
        let made_anew = MadeAnew::default();
        let context = Context::of(&self.figures, Part::Intake).watching(&made_anew);
        let consumer = self.settings.consumer(GROUP, context)?;
        let topics = self.settings.topics().clone();
        let found = partitions::find(consumer.client(), &topics).map_err(|error| plainly(error, &consumer))?;
        let positions = self.runtime.block_on(self.store.positions())?;
        let mut assignment = TopicPartitionList::new();
        let mut places = partitions::places(&topics, &found.leaders, &positions);
        let (mut waiting, mut last_error) = (Waiting::new(), None);
        for (&partition, place) in &mut places {
            let leader = found.leaders.get(&partition).copied().flatten();
            if !waiting.can_ask(partition, leader) {
                continue;
            }
            match self.place(consumer.client(), partition, place) {
                Ok(offset) => {
                    let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
                    assignment.add_partition_offset(&topics.submit(partition.0), partition.1, offset)?;
                }
                // The other partitions do not wait for this one.
                Err(IntakeError::Kafka(error)) if partitions::is_of_leader(&error) => {
                    waiting.refused(partition, leader, &error);
                    last_error = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = last_error.filter(|_| assignment.count() == 0) {
            return Err(error.into());
        }
        consumer.assign(&assignment)?;
        let dead_letters = DeadLetters::new(&self.settings)?;
        self.tell(&waiting, &topics, &found);
        Ok(Session { consumer, dead_letters, topics, places, made_anew, waiting, looked_at: Instant::now() })
    }

    /// The offset to read from. Moves the store's position where it cannot stay.
    fn place(&self, client: &Client<Context>, partition: Partition, place: &mut Place) -> Result<u64, IntakeError> {
        let offsets = partitions::offsets(client, self.settings.topics(), partition)?;
        match partitions::begin(place.stored, offsets.start, offsets.end) {
            Begin::At(offset) => return Ok(offset),
            Begin::Proving(offset) => {
                place.is_unproved = true;
                return Ok(offset);
            }
            Begin::Missed(offset, records) => {
                let stream = self.stream(partition);
                warn!(stream, records, offset, "records were deleted before they were read: going on after them");
                self.figures.add_missed(records);
                self.set_back(partition, place, Position { next: offset, mark: 0 })?;
            }
            Begin::Beyond => self.resume(partition, place, &offsets)?,
        }
        Ok(place.stored.next.max(offsets.start))
    }

    /// Moves the position of a partition that has lost its last read record behind the last read record that still exists, or to
    /// the start.
    fn resume(&self, partition: Partition, place: &mut Place, offsets: &Range<u64>) -> Result<(), IntakeError> {
        let consumer = self.settings.ending_consumer(GROUP)?;
        let marked = place.marks.before(place.stored.next);
        let (stream, next) = (self.stream(partition), place.stored.next);
        let to = partitions::last_common(&consumer, self.settings.topics(), partition, &marked, offsets)?;
        if let Some(Position { next: offset, .. }) = to {
            warn!(
                stream,
                next, offset, "the partition has lost records that were read: reading what is there from here on"
            );
            self.figures.add_truncated();
        } else {
            let offset = offsets.start;
            info!(stream, offset, "the partition is not the one that was read: reading it from its start");
            self.figures.add_anew();
        }
        self.set_back(partition, place, to.unwrap_or_default())
    }

    fn set_back(&self, partition: Partition, place: &mut Place, to: Position) -> Result<(), IntakeError> {
        let advance = Advance { stream: self.stream(partition), from: place.stored.next, to, job: None };
        let answers = self.runtime.block_on(self.acceptor.accept(vec![advance]));
        for answer in answers {
            if let Advanced::Elsewhere(position) = answer? {
                return Err(IntakeError::Overtaken { stream: self.stream(partition), position });
            }
        }
        place.stored = to;
        Ok(())
    }

    fn take(&self, session: &mut Session, batch: Vec<OwnedMessage>, stop: &Stop) -> Result<Next, IntakeError> {
        let mut pending = Vec::with_capacity(batch.len());
        for record in batch {
            let Some(partition) = partition_of(&record, &session.topics) else { continue };
            let Some(place) = session.places.get_mut(&partition) else { continue };
            let offset = u64::try_from(record.offset()).unwrap_or(0);
            if std::mem::take(&mut place.is_unproved) && offset + 1 == place.stored.next {
                if mark(&record) != place.stored.mark {
                    let offsets = partitions::offsets(session.consumer.client(), &session.topics, partition)?;
                    self.resume(partition, place, &offsets)?;
                    return Ok(Next::Look);
                }
                continue;
            }
            if offset >= place.stored.next {
                let span = RecordSpan::of(&record, partition, offset);
                pending.push(Pending {
                    record,
                    partition,
                    offset,
                    cause: None,
                    is_buried: false,
                    span,
                    job: None,
                    fingerprints: Fingerprints::default(),
                });
            }
        }
        take_in_shares(pending, |share| self.take_some(session, share, stop))?;
        Ok(Next::GoOn)
    }

    /// Takes in records up to the first of each partition whose job the store does not accept. Returns the remaining records.
    fn take_some(
        &self,
        session: &mut Session,
        mut pending: Vec<Pending>,
        stop: &Stop,
    ) -> Result<Vec<Pending>, IntakeError> {
        let mut ends: BTreeMap<_, _> =
            session.places.iter().map(|(&partition, place)| (partition, place.stored)).collect();
        let mut moves = Vec::with_capacity(pending.len());
        for one in &mut pending {
            let job = match one.cause {
                Some(_) => None,
                None => self.read(one).map_err(|cause| one.cause = Some(cause)).ok(),
            };
            one.job = job.as_ref().map(|job| job.id);
            let to = Position { next: one.offset + 1, mark: mark(&one.record) };
            let from = ends.insert(one.partition, to).unwrap_or_default().next;
            let topic = one.record.topic().to_owned();
            let source = EventSource { topic, partition: one.partition.1, offset: one.offset };
            let job = job.map(|job| (Box::new(job), source));
            moves.push((self.stream(one.partition), from, to, job));
        }
        self.bury(session, &mut pending, stop)?;
        let positions: Vec<_> = moves.iter().map(|(_, _, to, _)| *to).collect();
        let read = pending.iter().map(|one| one.partition).zip(positions.iter().copied());
        let marks = session.marks_left_by(read);
        let moves = moves.into_iter().map(|(stream, from, to, job)| Advance { stream, from, to, job });
        // Marks move behind the records that they mark.
        let moves = moves.chain(marks.iter().map(|&(partition, key, to)| session.mark_move(partition, key, to)));
        let mut answers = self.runtime.block_on(self.acceptor.accept(moves.collect()));
        session.put_marks(marks, answers.split_off(pending.len()))?;
        self.settle(session, pending, &positions, answers)
    }

    fn read(&self, one: &mut Pending) -> Result<NewJob, String> {
        let value = one.record.payload().ok_or("the record has no value")?;
        let key = idempotency_key(&one.record)?;
        let incoming = self.acceptor.read(value, one.partition.0, key, one.span.as_ref().map(RecordSpan::context))?;
        Ok(one.fingerprints.try_next(incoming))
    }

    /// Publishes the dead letters: the brokers have them before any position moves behind them.
    fn bury(&self, session: &mut Session, pending: &mut [Pending], stop: &Stop) -> Result<(), IntakeError> {
        let dead = pending.iter().filter(|one| !one.is_buried);
        let dead: Vec<_> = dead.filter_map(|one| Some((&one.record, one.cause.as_deref()?))).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let refused = session.dead_letters.bury(&dead, stop)?;
        self.figures.add_refused(refused);
        self.figures.add_dead(dead.len() as u64);
        for one in pending.iter_mut().filter(|one| one.cause.is_some()) {
            one.is_buried = true;
        }
        Ok(())
    }

    fn end_span(&self, one: &Pending) {
        let outcome = match (&one.cause, one.job) {
            (Some(cause), _) => Err(cause.as_str()),
            (None, Some(job)) => Ok(job),
            (None, None) => return,
        };
        if let Some(span) = &one.span {
            let (topic, partition, offset) = (one.record.topic(), one.partition.1, one.offset);
            self.acceptor.ended(EndedRecord { span, topic, partition, offset, outcome });
        }
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
                    if let Ok(Advanced::Submitted(Submission::Existing(job))) = answer {
                        one.job = Some(job);
                    }
                    self.end_span(&one);
                    taken += u64::from(one.cause.is_none());
                    if let Some(place) = session.places.get_mut(&one.partition) {
                        place.stored = to;
                    }
                }
                Ok(Advanced::Elsewhere(position)) => {
                    return Err(IntakeError::Overtaken { stream: self.stream(one.partition), position });
                }
                Err(SubmitError::Mismatch { .. }) if one.fingerprints.refuse() => {
                    blocked.insert(one.partition);
                    again.push(one);
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
