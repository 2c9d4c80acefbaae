//! Stored jobs: accepted, changed, seen. A change is on the disk before the grid acts on it, so that what a client was
//! told survives a crash.

use std::sync::Arc;

use api::{Changed, Explanation, Job, JobProgress, JobRequest, ParsedJob};
use futures_util::future::join_all;
use jiff::Timestamp;
use model::{InvalidJob, JobId, JobKind, JobState, JobWork, MAX_TASKS, TaskCounts};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use store::{
    Change, ComposeError, JobFilter, JobRecord, NewJob, ReadError, Store, Submission, SubmitError, WriteError,
};
use tokio::sync::{RwLock, mpsc};
use tracing::{error, warn};
use uuid::Uuid;

use crate::grid::{Composing, Grid};

/// Jobs that one page of a change by filter covers.
const CHANGED_AT_ONCE: usize = 1_000;

/// Longest client's name for a request.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;

/// Why a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    #[error(transparent)]
    Store(#[from] SubmitError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a job is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("there is no job {0}")]
    Unknown(JobId),
    #[error("the job is over: it {state}")]
    Over { state: JobState },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a client asks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// A request to accept a job.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The client's own id, if it chose one.
    pub(crate) id: Option<JobId>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) wanted: Wanted,
}

/// The job that a request asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    job: ParsedJob,
    /// As they are shown.
    params: Box<RawValue>,
    /// Of the whole body: tells a request that comes again from another one.
    fingerprint: [u8; 32],
}

impl Wanted {
    /// Checks a request. Takes its time where it has many payloads.
    pub(crate) fn new(request: JobRequest, body: &[u8]) -> Result<Self, InvalidJob> {
        let fingerprint = Sha256::digest(body).into();
        if request.kind == JobKind::Tasks {
            let job = request.parse()?;
            return Ok(Self { params: counted(&job), job, fingerprint });
        }
        let params = request.params.clone();
        Ok(Self { job: request.parse()?, params, fingerprint })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    store: Arc<Store>,
    grid: Arc<Grid>,
    /// Held over both halves of a change, so that two changes of one job end in the same order on disk and in memory; and
    /// shared by those who accept jobs, of which each has its own.
    order: Arc<RwLock<()>>,
}

impl Action {
    pub(crate) const ALL: [Self; 4] = [Self::Cancel, Self::Pause, Self::Resume, Self::Retry];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }

    /// Whether a job in this state changes by it; an error if it cannot any more.
    fn changes(self, state: JobState, has_failed_tasks: bool) -> Result<bool, ChangeError> {
        use JobState::{Canceled, Failed, Paused, Queued, Running, Succeeded};
        match (self, state) {
            (Self::Cancel, Queued | Running | Paused) | (Self::Pause, Queued | Running) | (Self::Resume, Paused) => {
                Ok(true)
            }
            (Self::Cancel, Canceled) | (Self::Pause, Paused) | (Self::Resume, Queued | Running) => Ok(false),
            (Self::Retry, Failed | Canceled) => Ok(true),
            (Self::Retry, Queued | Running | Paused) => Ok(has_failed_tasks),
            (Self::Cancel, Succeeded | Failed)
            | (Self::Pause | Self::Resume, Succeeded | Failed | Canceled)
            | (Self::Retry, Succeeded) => Err(ChangeError::Over { state }),
        }
    }

    fn change(self, job: JobId) -> Change {
        let at = Timestamp::now();
        match self {
            Self::Cancel => Change::Canceled { job, at },
            Self::Pause => Change::Paused { job, at },
            Self::Resume => Change::Resumed { job, at },
            Self::Retry => Change::Retried { job, at },
        }
    }
}

impl Jobs {
    pub(crate) fn new(store: Arc<Store>, grid: Arc<Grid>) -> Self {
        Self { store, grid, order: Arc::new(RwLock::new(())) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Takes up what was not over when the last coordinator ended. Simulated workers ended with it, and so do their
    /// jobs.
    pub(crate) fn take_up_all(&self) -> Result<usize, ReadError> {
        let jobs = self.store.unfinished()?;
        let count = jobs.len();
        for job in jobs {
            if crate::simulation::is_simulated(&job.record.options.requires) {
                let (id, at) = (job.record.id, Timestamp::now());
                self.store.record(Change::Canceled { job: id, at });
            } else {
                let since = job.record.submitted_at;
                self.grid.take_up(job, since);
            }
        }
        Ok(count)
    }

    /// Accepts a job: it is on the disk when this resolves. Goes on to its end when nobody waits any more.
    pub(crate) async fn accept(&self, proposal: Proposal) -> Result<(Job, Submission), AcceptError> {
        let Proposal { id, idempotency_key, wanted: Wanted { job, params, fingerprint } } = proposal;
        let too_long = |key: &String| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES;
        if idempotency_key.as_ref().is_some_and(too_long) {
            let message = format!("has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes");
            return Err(InvalidJob { field: "Idempotency-Key", message }.into());
        }
        let plan = self.grid.plan(job.work);
        if plan.tasks() > MAX_TASKS {
            let message = "is too long a range for this coordinator's DIVVY_CHUNK_SIZE: it has more than 2^53 tasks";
            return Err(InvalidJob { field: "params", message: message.to_owned() }.into());
        }
        let new = NewJob {
            id: id.unwrap_or_else(|| JobId(Uuid::now_v7())),
            tasks: plan.tasks(),
            job,
            params,
            fingerprint,
            idempotency_key,
            submitted_at: Timestamp::now(),
        };
        self.store_new(new).await
    }

    pub(crate) async fn store_new(&self, mut new: NewJob) -> Result<(Job, Submission), AcceptError> {
        new.job.options.chunk_size = Some(self.grid.chunk_size());
        let this = self.clone();
        // A client that leaves between the two halves must not leave a stored job without anybody who works on it.
        let accepting = tokio::spawn(async move {
            let _order = this.order.read().await;
            let accepted = new.accepted();
            let record = match this.store.submit(new).await? {
                Submission::New => {
                    let record = accepted.record.clone();
                    this.grid.take_up(accepted, record.submitted_at);
                    return Ok((this.view(record), Submission::New));
                }
                Submission::Existing(existing) => this.store.job(existing).await?,
            };
            let record = record.ok_or(SubmitError::Write(WriteError::Closed))?;
            Ok((this.view(record.clone()), Submission::Existing(record.id)))
        });
        accepting.await.unwrap_or(Err(AcceptError::Store(SubmitError::Write(WriteError::Closed))))
    }

    pub(crate) async fn job(&self, id: JobId) -> Result<Option<Job>, ReadError> {
        Ok(self.store.job(id).await?.map(|record| self.view(record)))
    }

    /// Changes a job; it is changed on the disk when this resolves. One that is as it should be stays as it is.
    pub(crate) async fn act(&self, id: JobId, action: Action) -> Result<Job, ChangeError> {
        let this = self.clone();
        let acting = tokio::spawn(async move {
            let _order = this.order.write().await;
            let record = this.store.job(id).await?.ok_or(ChangeError::Unknown(id))?;
            if this.is_changed(&record, action)? {
                this.change(&[id], action).await?;
            }
            let record = this.store.job(id).await?.ok_or(ChangeError::Unknown(id))?;
            // It may have come to its end just before; what is retried may have come to another one since.
            if action != Action::Retry {
                this.is_changed(&record, action)?;
            }
            Ok(this.view(record))
        });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    /// Changes every job that a filter finds and that can change.
    pub(crate) async fn act_on_all(&self, filter: JobFilter, action: Action) -> Result<Changed, ChangeError> {
        let this = self.clone();
        let acting = tokio::spawn(async move {
            let (mut before, mut total) = (None, Changed { matched: 0, changed: 0 });
            loop {
                let _order = this.order.write().await;
                let page = this.store.jobs(filter.clone(), before, CHANGED_AT_ONCE).await?;
                let Some(last) = page.last() else { return Ok(total) };
                before = Some(last.into());
                total.matched += page.len() as u64;
                let can_change = |job: &&JobRecord| this.is_changed(job, action).unwrap_or(false);
                let ids: Vec<_> = page.iter().filter(can_change).map(|job| job.id).collect();
                this.change(&ids, action).await?;
                total.changed += ids.len() as u64;
            }
        });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    fn is_changed(&self, job: &JobRecord, action: Action) -> Result<bool, ChangeError> {
        // What the grid knows is on its way to the store.
        let failed = self.grid.live(job.id).map_or(job.tasks_failed, |live| live.counts.failed);
        action.changes(job.state, failed > 0)
    }

    /// Changes jobs in the store, then in the grid. Resolves when it is on the disk.
    async fn change(&self, ids: &[JobId], action: Action) -> Result<(), ChangeError> {
        let is_retry = action == Action::Retry;
        let still: Vec<_> = ids.iter().filter(|id| !is_retry || self.grid.retry(**id).is_err()).collect();
        let commits = join_all(still.iter().map(|id| self.store.commit(action.change(**id)))).await;
        // What is on the disk is done, whatever became of the others.
        let mut outcome = Ok(());
        for (id, committed) in still.iter().zip(commits) {
            match committed {
                Ok(()) => self.follow(**id, action).await?,
                Err(error) => outcome = Err(error),
            }
        }
        if still.len() < ids.len() {
            self.store.flush().await?;
        }
        Ok(outcome?)
    }

    /// Lets the grid do what the store says. A job that came to its end meanwhile is not there any more.
    async fn follow(&self, id: JobId, action: Action) -> Result<(), ReadError> {
        match action {
            Action::Cancel => self.grid.cancel(id),
            Action::Pause => drop(self.grid.pause(id)),
            Action::Resume => drop(self.grid.resume(id)),
            Action::Retry => {
                if let Some(job) = self.store.unfinished_job(id).await? {
                    self.grid.take_up(job, Timestamp::now());
                }
            }
        }
        Ok(())
    }

    /// Why a job's tasks wait.
    pub(crate) async fn explain(&self, id: JobId) -> Result<Option<Explanation>, ReadError> {
        let Some(record) = self.store.job(id).await? else { return Ok(None) };
        let mut reasons = Vec::new();
        if record.state.is_over() {
            reasons.push(match &record.error {
                Some(error) => format!("it is over: {} ({error})", record.state),
                None => format!("it is over: {}", record.state),
            });
        } else if let Some(reason) = self.grid.explain(id) {
            reasons.push(reason.to_string());
        } else {
            reasons.push("its tasks are done, and its result is being stored".to_owned());
        }
        if let Some(failing) = self.store.is_failing() {
            reasons.push(format!("nothing can be stored at the moment: {failing}"));
        }
        Ok(Some(Explanation { state: record.state, reasons }))
    }

    /// A stored job as clients see it, with what the grid knows of it now.
    pub(crate) fn view(&self, record: JobRecord) -> Job {
        let live = self.grid.live(record.id);
        let numbers_done = live.map_or_else(|| self.numbers_done(&record), |live| live.numbers_done);
        let JobRecord { id, kind, params, options, state, tasks: total, .. } = record;
        let stored = TaskCounts {
            total,
            pending: total - record.tasks_done - record.tasks_failed,
            running: 0,
            succeeded: record.tasks_done,
            failed: record.tasks_failed,
        };
        let tasks = live.map_or(stored, |live| live.counts);
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = |part: u64| part as f64 / total.max(1) as f64;
        let tasks_per_second = live.and_then(|live| live.tasks_per_second);
        let left = total - tasks.succeeded - tasks.failed;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let seconds_left = tasks_per_second.filter(|rate| *rate > 0.0).map(|rate| left as f64 / rate);
        let mismatch = || self.grid.mismatch(kind, &options.requires).map(|reason| reason.to_string());
        Job {
            id,
            kind,
            params,
            state,
            priority: options.priority,
            notice: if state.is_over() { None } else { mismatch() },
            tags: options.tags,
            affinity: options.affinity,
            requires: options.requires,
            max_attempts: options.max_attempts,
            timeout: options.timeout,
            output: options.output,
            tasks,
            progress: JobProgress { fraction: share(tasks.succeeded), numbers_done, tasks_per_second, seconds_left },
            attempts: live.map_or(0, |live| live.attempts),
            submitted_at: record.submitted_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            error: record.error,
        }
    }

    /// Numbers searched of a job that the grid does not work on.
    fn numbers_done(&self, job: &JobRecord) -> Option<u128> {
        let range = || serde_json::from_str(job.params.get()).ok();
        let work = match job.kind {
            JobKind::SumOfPrimes => JobWork::SumOfPrimes(range()?),
            JobKind::CountPrimes => JobWork::CountPrimes(range()?),
            JobKind::Sleep | JobKind::Tasks => return None,
        };
        self.grid.stored_plan(work, &job.options).numbers_in(job.tasks_done)
    }

    /// Puts the results of individual tasks together as their jobs come to an end. Runs for ever.
    pub(crate) async fn compose_results(self, mut to_compose: mpsc::UnboundedReceiver<Composing>) {
        while let Some(Composing(job)) = to_compose.recv().await {
            let (state, result, error) = match self.compose(job).await {
                Ok(result) => (JobState::Succeeded, Some(result), None),
                Err(failure) => {
                    error!(job_id = %job, error = %failure, "cannot store a result");
                    (JobState::Failed, None, Some(format!("its result could not be stored: {failure}")))
                }
            };
            self.store.record(Change::Ended { job, state, result, error, at: Timestamp::now() });
        }
    }

    /// While the disk is full or away, a result can wait: nothing of it is lost.
    async fn compose(&self, job: JobId) -> Result<store::ResultBody, ComposeError> {
        const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
        loop {
            match self.store.compose_result(job).await {
                Err(ComposeError::Write(failure)) if !matches!(failure, WriteError::Closed) => {
                    warn!(job_id = %job, error = %failure, "cannot store a result yet");
                    tokio::time::sleep(PAUSE).await;
                }
                end => return end,
            }
        }
    }
}

/// The parameters of individual tasks as they are shown: the payloads are too many.
fn counted(job: &ParsedJob) -> Box<RawValue> {
    let json = format!(r#"{{"count":{}}}"#, job.payloads.len());
    RawValue::from_string(json).expect("a number in braces is JSON")
}
