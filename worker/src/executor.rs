//! Compute threads, one per slot. The executors of a thread live as long as the thread.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use model::{AttemptId, JobId, JobKind, TraceContext};
use serde_json::value::RawValue;
use service::trace::{Ended, Kind, Value};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use workloads::{ExecuteError, Executors, Report};

/// Interval between checks whether threads still compute.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The least age of a started computation: a waiting one has age zero, also in whole milliseconds.
const LEAST_AGE: Duration = Duration::from_millis(1);

/// Tasks of one kind, in the form that [`workloads::Workload::lease`] gives them.
#[derive(Debug)]
pub(crate) struct Work {
    /// The job and the attempt; none for a request without a coordinator.
    pub(crate) lease: Option<(JobId, AttemptId)>,
    pub(crate) kind: JobKind,
    pub(crate) work: Box<RawValue>,
    pub(crate) tasks: Range<u64>,
    /// The span that the computation is part of, where it is traced.
    pub(crate) trace: Option<TraceContext>,
}

/// The compute function of one thread; it stops early when the flag turns true.
pub(crate) type Compute = Box<dyn FnMut(&Work, &AtomicBool) -> Result<Report, ExecuteError>>;

/// A finished computation.
#[derive(Debug)]
pub(crate) struct Computed {
    pub(crate) report: Report,
    pub(crate) busy: Duration,
}

/// The reason for a computation without a result.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ComputeError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error("it panicked: {0}")]
    Panicked(String),
}

pub(crate) type Answer = Result<Computed, ComputeError>;

/// Ends a computation. All clones end the same one.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Submission>);

/// A queued computation. Its content is taken when it begins or is stopped, so that a stopped computation behind a long one
/// takes next to no memory.
#[derive(Default)]
struct Submission {
    stop: AtomicBool,
    began_at: OnceLock<Instant>,
    content: Mutex<Option<Content>>,
}

struct Content {
    work: Work,
    /// Called on the compute thread; not called for a computation that was stopped before it began.
    when_done: Box<dyn FnOnce(Answer) + Send>,
}

impl Stop {
    pub(crate) fn set(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        drop(self.0.take());
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Time since the computation began, at least [`LEAST_AGE`]; zero while it waits for its slot.
    pub(crate) fn age(&self) -> Duration {
        self.0.began_at.get().map_or(Duration::ZERO, |began_at| began_at.elapsed().max(LEAST_AGE))
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}

impl Submission {
    fn put(&self, content: Content) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Some(content);
    }

    fn take(&self) -> Option<Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The compute threads and their queues. The callers that let requests in bound the queues.
#[derive(Debug)]
pub(crate) struct Executor {
    slots: Vec<Sender<Stop>>,
    any_slot: Sender<Stop>,
    running: Arc<AtomicU32>,
}

/// A computation that stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Computation {
    stop: Stop,
    answer: oneshot::Receiver<Answer>,
}

/// A compute function for every kind that a worker runs except programs.
pub(crate) fn every_kind() -> Compute {
    let mut executors = Executors::default();
    Box::new(move |work, stop| executors.run(work.kind, &work.work, &work.tasks, stop))
}

impl Executor {
    /// Starts `slots` threads. Each takes its compute function from `make_compute`, and a new one after a panic.
    pub(crate) fn start(
        slots: u32,
        make_compute: impl Fn() -> Compute + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (any_slot, shared) = unbounded();
        let running = Arc::new(AtomicU32::new(0));
        let start = |slot| {
            let (sender, own) = unbounded();
            let (shared, running) = (shared.clone(), Arc::clone(&running));
            let make_compute = make_compute.clone();
            let run = move || run_slot(&own, &shared, &running, &make_compute);
            thread::Builder::new().name(format!("slot-{slot}")).spawn(run)?;
            Ok(sender)
        };
        let slots = (0..slots).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { slots, any_slot, running })
    }

    /// Queues a computation behind those of the same slot, so that a computation which continues an earlier one finds its
    /// sieve. Calls `when_done` on the slot's thread. `stop` must be new.
    pub(crate) fn submit_to(&self, slot: u32, work: Work, stop: Stop, when_done: impl FnOnce(Answer) + Send + 'static) {
        submit(&self.slots[slot as usize % self.slots.len()], work, stop, when_done);
    }

    /// As [`Self::submit_to`], for a caller that waits.
    pub(crate) fn compute_on(&self, slot: u32, work: Work) -> Computation {
        let (stop, (sender, answer)) = (Stop::default(), oneshot::channel());
        self.submit_to(slot, work, stop.clone(), answer_to(sender));
        Computation { stop, answer }
    }

    /// Queues a computation for the first slot that is free.
    pub(crate) fn compute(&self, work: Work) -> Computation {
        let (stop, (sender, answer)) = (Stop::default(), oneshot::channel());
        submit(&self.any_slot, work, stop.clone(), answer_to(sender));
        Computation { stop, answer }
    }

    /// Waits until no thread computes, at most for `patience`.
    pub(crate) async fn finish(&self, patience: Duration) {
        let idle = async {
            while self.running() > 0 {
                sleep(LOOK_INTERVAL).await;
            }
        };
        let _ = timeout(patience, idle).await;
    }

    /// Threads that compute now.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }
}

impl Computation {
    /// Waits for the result.
    pub(crate) async fn finish(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(ComputeError::Execute(ExecuteError::Stopped)))
    }
}

impl Drop for Computation {
    fn drop(&mut self) {
        self.stop.set();
    }
}

fn submit(queue: &Sender<Stop>, work: Work, stop: Stop, when_done: impl FnOnce(Answer) + Send + 'static) {
    stop.0.put(Content { work, when_done: Box::new(when_done) });
    // The threads hold the other end as long as the executor lives.
    let _ = queue.send(stop);
}

fn answer_to(sender: oneshot::Sender<Answer>) -> impl FnOnce(Answer) + Send + 'static {
    // Nobody waits for a computation that was stopped.
    move |answer| drop(sender.send(answer))
}

fn run_slot(own: &Receiver<Stop>, shared: &Receiver<Stop>, running: &AtomicU32, make_compute: &impl Fn() -> Compute) {
    let mut compute = make_compute();
    loop {
        let next = select! {
            recv(own) -> submission => submission,
            recv(shared) -> submission => submission,
        };
        // Both queues end with the executor.
        let Ok(Stop(submission)) = next else { return };
        // The computation was stopped while it waited.
        let Some(Content { work, when_done }) = submission.take() else { continue };
        // This thread may have preempted the thread that woke it, such as a coordinator's on the same machine with more leases
        // to send. That thread goes on first.
        thread::yield_now();
        running.fetch_add(1, Ordering::Relaxed);
        let started_at = *submission.began_at.get_or_init(Instant::now);
        let result = catch_unwind(AssertUnwindSafe(|| compute(&work, &submission.stop)));
        let busy = started_at.elapsed();
        running.fetch_sub(1, Ordering::Relaxed);
        let is_stopped = submission.stop.load(Ordering::Relaxed);
        let answer = match result {
            Ok(Ok(report)) => Ok(Computed { report, busy }),
            Ok(Err(error)) => Err(error.into()),
            Err(panic) => {
                compute = make_compute();
                Err(ComputeError::Panicked(message_of(panic.as_ref())))
            }
        };
        if let Some(parent) = &work.trace {
            send_span(&work, parent, busy, is_stopped, answer.as_ref().err());
        }
        when_done(answer);
    }
}

/// Sends the span of a computation that has just ended.
fn send_span(work: &Work, parent: &TraceContext, busy: Duration, is_stopped: bool, error: Option<&ComputeError>) {
    let ended_at = SystemTime::now();
    let outcome = match error {
        _ if is_stopped => "stopped",
        None => "completed",
        Some(_) => "failed",
    };
    let mut attributes = vec![
        ("divvy.job.kind", Value::from(work.kind.to_string())),
        ("divvy.tasks.first", Value::from(work.tasks.start)),
        ("divvy.tasks.beyond", Value::from(work.tasks.end)),
        ("divvy.lease.outcome", Value::from(outcome)),
    ];
    if let Some((job, attempt)) = work.lease {
        attributes.push(("divvy.job.id", Value::from(job.to_string())));
        attributes.push(("divvy.attempt.id", Value::from(attempt.to_string())));
    }
    let ended = Ended {
        name: format!("compute {}", work.kind),
        kind: Kind::Internal,
        parent,
        span_id: None,
        started_at: ended_at.checked_sub(busy).unwrap_or(ended_at),
        ended_at,
        attributes,
        error: error.filter(|_| !is_stopped).map(ToString::to_string),
    };
    ended.send();
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: u64, b: u64) -> Work {
        let work = RawValue::from_string(format!(r#"{{"a":{a},"b":{b},"horizon":{b}}}"#)).expect("JSON");
        Work { lease: None, kind: JobKind::SUM_OF_PRIMES, work, tasks: 0..1, trace: None }
    }

    fn value(answer: Answer) -> Option<u128> {
        answer.expect("computed").report.value
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_computation_and_the_slot_goes_on() {
        let executor = Executor::start(1, || {
            Box::new(|work, _| {
                assert_ne!(work.tasks, 0..0, "no task is too few");
                Ok(Report { value: Some(7), results: Vec::new() })
            })
        })
        .expect("threads");
        let empty = Work { tasks: 0..0, ..sum(0, 1) };
        let Err(ComputeError::Panicked(message)) = executor.compute(empty).finish().await else {
            panic!("it panicked")
        };
        assert!(message.contains("no task is too few"), "{message}");
        assert_eq!(value(executor.compute(sum(1, 1)).finish().await), Some(7));
        assert_eq!(executor.running(), 0);
    }

    #[tokio::test]
    async fn a_dropped_computation_frees_its_slot() {
        let executor = Executor::start(1, every_kind).expect("threads");
        let endless = executor.compute(sum(0, u64::MAX));
        let waiting = executor.compute_on(0, sum(0, u64::MAX));
        let next = executor.compute(sum(1, 100));
        drop((endless, waiting));
        assert_eq!(value(next.finish().await), Some(1060));
    }

    #[tokio::test]
    async fn a_computation_that_is_stopped_in_the_queue_leaves_nothing_there() {
        let executor = Executor::start(1, every_kind).expect("threads");
        let endless = executor.compute_on(0, sum(0, u64::MAX));
        let waiting = executor.compute_on(0, sum(1, 100));
        let submission = Arc::clone(&waiting.stop.0);
        drop(waiting);
        assert!(submission.take().is_none());
        drop(endless);
    }

    #[tokio::test]
    async fn what_is_meant_for_one_slot_waits_for_it() {
        let executor = Executor::start(2, every_kind).expect("threads");
        let endless = executor.compute_on(0, sum(0, u64::MAX));
        let mut behind = executor.compute_on(0, sum(1, 100));
        assert_eq!(value(executor.compute_on(1, sum(1, 10)).finish().await), Some(17));
        assert!(behind.answer.try_recv().is_err(), "its slot is busy");
        drop(endless);
        assert_eq!(value(behind.finish().await), Some(1060));
    }

    #[tokio::test]
    async fn a_kind_that_no_worker_runs_is_refused_by_its_name() {
        let executor = Executor::start(1, every_kind).expect("threads");
        let unknown = Work { kind: JobKind::new("paint"), ..sum(1, 10) };
        let Err(error) = executor.compute(unknown).finish().await else { panic!("it was refused") };
        assert_eq!(error.to_string(), "this worker does not run paint");
    }
}
