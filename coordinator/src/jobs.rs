//! Stored jobs: accepted and changed. A change is on the disk before the engine acts on it, so that what a client was told
//! survives a crash.

mod skipping;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use api::{Changed, Explanation, Job};
use dashmap::DashSet;
use futures_util::future::join_all;
use model::{InvalidJob, JobId, JobKind, JobState, ProgramHash, uploaded_programs};
use store::{
    Change, ChangeKind, JobFilter, JobRecord, ReadError, Store, Submission, SubmitError, UnfinishedJob, WriteError,
};
use tracing::{debug, info, warn};

use crate::accepting::{AcceptError, Accepting, Proposal, Ready, submit_to};
use crate::clock::now;
use crate::driver::Driver;
use crate::job_locks::JobLocks;
use crate::job_view;
use crate::simulated_workers::is_simulated;
use crate::supervisor::Supervisor;

/// Jobs that one page of a change by filter covers.
const CHANGED_AT_ONCE: usize = 1_000;

/// Jobs of such a page that are changed side by side: they share commits.
const CHANGED_TOGETHER: usize = 128;

/// Jobs that the engine gets at a time.
const TAKEN_UP_AT_ONCE: usize = 64;

/// Jobs that are read at a time. Changes of jobs of other coordinators wait meanwhile.
const READ_AT_ONCE: usize = 256;

/// Pause before the store is read again for a job that it has opened and the engine does not know yet.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why a job is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("there is no job {0}")]
    Unknown(JobId),
    #[error("the job is over: it has {}", past(*state))]
    Over { state: JobState },
    #[error("the simulated workers of this job are gone: start another simulation")]
    SimulationOver,
    #[error("the job cannot run again: its program {0} has been deleted; upload it again first")]
    ProgramGone(ProgramHash),
    #[error("only tasks of a job of the kind tasks can be skipped, not those of the kind {0}")]
    NotSkippable(JobKind),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn past(state: JobState) -> &'static str {
    match state {
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Canceled => "been canceled",
        JobState::Queued | JobState::Running | JobState::Paused => "not ended",
    }
}

/// A change that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
    Retry,
}

#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    store: Arc<Store>,
    driver: Arc<Driver>,
    locks: JobLocks,
    supervisor: Supervisor,
    /// Jobs that were submitted here and whose events are yet to be read; none where no other coordinator submits.
    own: Option<Arc<DashSet<JobId>>>,
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

    fn change(self) -> ChangeKind {
        match self {
            Self::Cancel => ChangeKind::Canceled,
            Self::Pause => ChangeKind::Paused,
            Self::Resume => ChangeKind::Resumed,
            Self::Retry => ChangeKind::Retried,
        }
    }
}

impl Jobs {
    /// Where `is_shared`, other coordinators submit to the same store: see [`Self::note_submitted`].
    pub(crate) fn new(store: Arc<Store>, driver: Arc<Driver>, supervisor: Supervisor, is_shared: bool) -> Self {
        Self { store, driver, locks: JobLocks::default(), supervisor, own: is_shared.then(Arc::default) }
    }

    /// Takes up the jobs that were not over when the last coordinator ended. Simulated workers ended with it, and so do
    /// their jobs. Returns how many go on.
    pub(crate) async fn recover(&self) -> Result<usize, ReadError> {
        let set_aside = self.store.set_aside_workers().await?;
        self.driver.input(|engine, now| engine.keep_set_aside(set_aside, now));
        let mut count = 0;
        let jobs = self.store.open_jobs().await?;
        // Some at a time: rows are larger than what the engine keeps of them.
        for some in jobs.chunks(READ_AT_ONCE) {
            count += self.recover_some(self.store.unfinished_jobs(some.to_vec()).await?).await;
        }
        Ok(count)
    }

    async fn recover_some(&self, jobs: Vec<UnfinishedJob>) -> usize {
        let (simulated, jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| is_simulated(&job.record.options.requires));
        // Committed, not recorded: the engine numbers the recorded changes.
        let cancel = |id| self.store.commit(Change { job: id, at: now().at, kind: ChangeKind::Canceled });
        for canceled in join_all(simulated.iter().map(|job| cancel(job.record.id))).await {
            if let Err(error) = canceled {
                warn!(%error, "cannot end a simulation of the last coordinator");
            }
        }
        let count = jobs.len();
        let is_takeover = self.own.is_some();
        let unreadable = self.driver.input(|engine, now| match is_takeover {
            true => engine.take_over(jobs, now),
            false => engine.recover(jobs, now),
        });
        for (job_id, error) in &unreadable {
            self.store.unreadable().note_job(*job_id, error);
        }
        count - unreadable.len()
    }

    /// Accepts a job: it is on the disk when this resolves. Goes on to its end when the caller does not wait any more.
    pub(crate) async fn accept(&self, proposal: Proposal) -> Result<(Job, Submission), AcceptError> {
        self.accept_new(self.prepare(proposal)?).await
    }

    /// See [`Proposal::into_new`].
    pub(crate) fn prepare(&self, proposal: Proposal) -> Result<Accepting, InvalidJob> {
        self.driver.view(|engine| proposal.into_new(Ready::Engine(engine)))
    }

    /// As [`Self::accept`].
    pub(crate) async fn accept_new(&self, accepting: Accepting) -> Result<(Job, Submission), AcceptError> {
        let this = self.clone();
        // A client that leaves between the two halves must not leave a stored job that the engine does not know.
        let accepted = self.supervisor.spawn_whole(async move { this.store_and_take_up(&accepting).await });
        accepted.await.unwrap_or(Err(AcceptError::Store(SubmitError::Write(WriteError::Closed))))
    }

    /// Moves positions in streams in this order, and makes the jobs that are new known. An answer for each. To be run to its
    /// end: a stored job must not stay unknown.
    #[cfg(feature = "kafka")]
    pub(crate) async fn take_in(&self, moves: Vec<store::Advance>) -> Vec<Result<store::Advanced, SubmitError>> {
        let jobs = || moves.iter().map(|advance| advance.job.as_ref().map(|(new, _)| new));
        let ids: Vec<_> = jobs().flatten().map(|new| new.id).collect();
        let _locks = self.locks.lock_all(&ids).await;
        ids.into_iter().for_each(|id| self.note_own(id));
        let accepted: Vec<_> = jobs().map(|new| new.map(|new| new.accepted())).collect();
        let answers = self.store.advance_all(moves).await;
        let mut new = Vec::new();
        for (job, answer) in accepted.into_iter().zip(&answers) {
            let Some(job) = job else { continue };
            if matches!(answer, Ok(store::Advanced::Submitted(Submission::New))) {
                new.push(job);
            } else {
                // It may be committed all the same: its event tells.
                self.forget_own(job.record.id);
            }
        }
        self.take_up(new);
        answers
    }

    /// Gives jobs to the engine, in pieces, so that nothing else waits long for it.
    fn take_up(&self, jobs: Vec<UnfinishedJob>) {
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            self.driver.input(|engine, now| {
                for job in jobs.by_ref().take(TAKEN_UP_AT_ONCE) {
                    let job_id = job.record.id;
                    if let Err(error) = engine.take_up(job, now) {
                        self.store.unreadable().note_job(job_id, &error);
                    }
                }
            });
        }
    }

    async fn store_and_take_up(&self, accepting: &Accepting) -> Result<(Job, Submission), AcceptError> {
        let Accepting { new, body, .. } = accepting;
        let id = new.id;
        let _lock = self.locks.lock(id).await;
        self.note_own(id);
        let submitted = submit_to(&self.store, new, *body).await;
        if matches!(submitted, Ok((_, Submission::New))) {
            if let Some(caller) = &new.options.submitted_by {
                info!(job_id = %id, %caller, "accepted a job");
            }
            self.driver.input(|engine, now| engine.take_up(new.accepted(), now))?;
        } else {
            // It may be committed all the same: its event tells.
            self.forget_own(id);
        }
        let (record, submission) = submitted?;
        Ok((self.view(record), submission))
    }

    /// Remembers a job until its event is read, where the events of others' jobs are read too.
    fn note_own(&self, id: JobId) {
        if let Some(own) = &self.own {
            own.insert(id);
        }
    }

    fn forget_own(&self, id: JobId) -> bool {
        self.own.as_ref().is_some_and(|own| own.remove(&id).is_some())
    }

    /// Jobs were stored, by this coordinator or another one: the engine gets those that it has not and had not.
    pub(crate) async fn note_submitted(&self, mut ids: Vec<JobId>) {
        ids.retain(|id| !self.forget_own(*id));
        for some in ids.chunks(READ_AT_ONCE) {
            let _locks = self.locks.lock_all(some).await;
            self.take_up_stored(some).await;
        }
    }

    /// Gives the engine those of some jobs that it does not know, under their locks, as soon as they can be read.
    async fn take_up_stored(&self, ids: &[JobId]) {
        loop {
            let unknown: Vec<_> =
                self.driver.view(|engine| ids.iter().copied().filter(|id| !engine.knows(*id)).collect());
            if unknown.is_empty() {
                return;
            }
            match self.unfinished(unknown).await {
                Ok(Ok(jobs)) => return self.take_up(jobs),
                Ok(Err(error)) => debug!(%error, "jobs that others have stored cannot be read yet"),
                Err(error) => debug!(%error, "jobs that others have stored cannot be read yet"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn unfinished(&self, ids: Vec<JobId>) -> Result<Result<Vec<UnfinishedJob>, ReadError>, WriteError> {
        // Their ends may be on their way to the store.
        self.store.flush().await?;
        Ok(self.store.unfinished_jobs(ids).await)
    }

    /// Changes a job; it is changed on the disk when this resolves. A job that is as it should be stays as it is.
    pub(crate) async fn act(&self, id: JobId, action: Action) -> Result<Job, ChangeError> {
        let this = self.clone();
        let acting = self.supervisor.spawn_whole(async move {
            this.change(id, action).await?;
            let record = match this.store.job(id).await {
                Err(why @ ReadError::Unreadable { .. }) if action == Action::Cancel => this.unread_record(id, why).await?,
                read => read?.ok_or(ChangeError::Unknown(id))?,
            };
            // It may have ended just before; a retried job may have ended again since.
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
        let acting = self.supervisor.spawn_whole(async move {
            let (mut before, mut total) = (None, Changed { matched: 0, changed: 0 });
            loop {
                let page = this.store.jobs(filter.clone(), before, CHANGED_AT_ONCE).await?;
                let Some(last) = page.last() else { return Ok(total) };
                before = Some(last.into());
                let ids: Vec<_> = page.iter().map(|job| job.id).collect();
                let Changed { matched, changed } = this.change_some(&ids, action).await?;
                (total.matched, total.changed) = (total.matched + matched, total.changed + changed);
            }
        });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    /// Changes those of some jobs that can change.
    pub(crate) async fn act_on_some(&self, ids: &[JobId], action: Action) -> Result<Changed, ChangeError> {
        let (this, ids) = (self.clone(), ids.to_vec());
        let acting = self.supervisor.spawn_whole(async move { this.change_some(&ids, action).await });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    async fn change_some(&self, ids: &[JobId], action: Action) -> Result<Changed, ChangeError> {
        let mut total = Changed { matched: ids.len() as u64, changed: 0 };
        for some in ids.chunks(CHANGED_TOGETHER) {
            for changed in join_all(some.iter().map(|id| self.change(*id, action))).await {
                match changed {
                    Ok(changed) => total.changed += u64::from(changed),
                    // It has ended, or was deleted, since it was found.
                    Err(
                        ChangeError::Over { .. }
                        | ChangeError::Unknown(_)
                        | ChangeError::SimulationOver
                        | ChangeError::ProgramGone(_)
                        | ChangeError::NotSkippable(_)
                        | ChangeError::Read(ReadError::Unreadable { .. }),
                    ) => (),
                    Err(error @ (ChangeError::Write(_) | ChangeError::Read(_))) => return Err(error),
                }
            }
        }
        Ok(total)
    }

    /// Changes one job under its lock. Tells whether it changed.
    async fn change(&self, id: JobId, action: Action) -> Result<bool, ChangeError> {
        let _lock = self.locks.lock(id).await;
        if !self.driver.view(|engine| engine.knows(id)) {
            // Its end may be on its way to the store.
            self.store.flush().await?;
        }
        let record = match self.store.job(id).await {
            Err(ReadError::Unreadable { detail, .. }) if action == Action::Cancel => {
                return self.cancel_unread(id, detail).await;
            }
            read => read?.ok_or(ChangeError::Unknown(id))?,
        };
        if !self.is_changed(&record, action)? {
            return Ok(false);
        }
        if action == Action::Retry {
            return self.retry(id, &record).await.map(|()| true);
        }
        match self.store.commit(Change { job: id, at: now().at, kind: action.change() }).await {
            Err(WriteError::Corrupt(why)) if action == Action::Cancel => return self.cancel_unread(id, why).await,
            written => written?,
        }
        self.driver.input(|engine, now| match action {
            Action::Cancel => engine.cancel(id, now),
            // A job that has ended meanwhile is not there any more.
            Action::Pause => drop(engine.pause(id, now)),
            Action::Resume => drop(engine.resume(id, now)),
            Action::Retry => (),
        });
        Ok(true)
    }

    async fn retry(&self, id: JobId, record: &JobRecord) -> Result<(), ChangeError> {
        if is_simulated(&record.options.requires) && !self.driver.view(|engine| engine.knows(id)) {
            return Err(ChangeError::SimulationOver);
        }
        if self.driver.input(|engine, now| engine.retry(id, now)).is_ok() {
            return Ok(self.store.flush().await?);
        }
        // A job that is over keeps no program.
        for program in uploaded_programs(record.kind, record.params.get()) {
            if self.store.program(program).await?.is_none() {
                return Err(ChangeError::ProgramGone(program));
            }
        }
        self.store.commit(Change { job: id, at: now().at, kind: ChangeKind::Retried }).await?;
        // It is open on the disk now: the engine must get it, whatever a single read says.
        loop {
            match self.store.unfinished_job(id).await {
                Ok(Some(job)) => {
                    if let Err(error) = self.driver.input(|engine, now| engine.take_up(job, now)) {
                        self.store.unreadable().note_job(id, &error);
                    }
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    warn!(job_id = %id, %error, "a retried job cannot be read yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn is_changed(&self, job: &JobRecord, action: Action) -> Result<bool, ChangeError> {
        // The engine is ahead of the store.
        let live = self.driver.view(|engine| engine.job(job.id));
        let failed = live.map_or(job.tasks_failed, |live| live.counts.failed);
        action.changes(job.state, failed > 0)
    }

    /// Why a job's tasks wait.
    pub(crate) async fn explain(&self, id: JobId) -> Result<Option<Explanation>, ReadError> {
        let Some(record) = self.store.job(id).await? else { return Ok(None) };
        let mut reasons = Vec::new();
        let live = self.driver.view(|engine| engine.explain(id));
        match (record.state.is_over(), live) {
            (true, _) => reasons.push(match &record.error {
                Some(error) => format!("it is over: {} ({error})", record.state),
                None => format!("it is over: {}", record.state),
            }),
            (false, Some(reason)) => reasons.push(reason),
            (false, None) => reasons.push(match self.store.unreadable().why(id) {
                Some(error) => format!("this version cannot read it, and it waits for one that can: {error}"),
                None => "its end is being stored".to_owned(),
            }),
        }
        if let Some(failing) = self.store.is_failing() {
            reasons.push(format!("nothing can be stored at the moment: {failing}"));
        }
        Ok(Some(Explanation { state: record.state, reasons }))
    }

    /// A stored job as clients see it, with what the engine knows of it now.
    pub(crate) fn view(&self, record: JobRecord) -> Job {
        self.driver.view(|engine| job_view::live(record, engine))
    }
}
