//! Changes of jobs at the request of clients: each is on the disk before the engine acts on it.

use api::{Changed, Job};
use futures_util::future::join_all;
use jiff::Timestamp;
use model::{JobId, JobKind, JobState, ProgramHash, uploaded_programs};
use store::{Change, ChangeKind, JobFilter, JobRecord, ReadError, WriteError};
use tracing::warn;

use super::{Jobs, RETRY_PAUSE};
use crate::clock::now;

/// Jobs that one page of a change by filter covers.
const CHANGED_AT_ONCE: usize = 1_000;

/// Jobs of such a page that are changed side by side: they share commits.
const CHANGED_TOGETHER: usize = 128;

/// The reason why a job is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("there is no job {0}")]
    Unknown(JobId),
    #[error("job {job} has no task {task}: its tasks are numbered from 0 to {}", tasks.saturating_sub(1))]
    NoSuchTask { job: JobId, task: u64, tasks: u64 },
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

/// A change at the request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
    Retry,
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

    /// Whether the action changes a job in this state; an error if the job cannot change any more.
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
    /// Changes a job; the change is on the disk when this resolves. A job that already is in the wanted state does not change.
    pub(crate) async fn act(&self, id: JobId, action: Action) -> Result<Job, ChangeError> {
        self.act_once(id, action, None).await
    }

    /// Changes a job like [`Self::act`]. `asked_at` is the first sending of a repeated request: a job that was retried since
    /// then is not retried once more, even if it has failed again.
    pub(crate) async fn act_once(
        &self,
        id: JobId,
        action: Action,
        asked_at: Option<Timestamp>,
    ) -> Result<Job, ChangeError> {
        let this = self.clone();
        let acting = self.supervisor.spawn_whole(async move {
            this.change(id, action, asked_at).await?;
            let record = match this.store.job(id).await {
                Err(why @ ReadError::Unreadable { .. }) if action == Action::Cancel => {
                    this.unread_record(id, why).await?
                }
                read => read?.ok_or(ChangeError::Unknown(id))?,
            };
            // The job may have ended before the change; a retried job may have ended again since.
            if action != Action::Retry {
                this.is_changed(&record, action)?;
            }
            Ok(this.view(record))
        });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    /// Changes every job that matches a filter and can change; a retry without states leaves canceled jobs out, since somebody
    /// wanted their end. `asked_at` is as in [`Self::act_once`].
    pub(crate) async fn act_on_all(
        &self,
        mut filter: JobFilter,
        action: Action,
        asked_at: Option<Timestamp>,
    ) -> Result<Changed, ChangeError> {
        if action == Action::Retry && filter.states.is_empty() {
            filter.states = JobState::ALL.into_iter().filter(|state| *state != JobState::Canceled).collect();
        }
        let this = self.clone();
        let acting = self.supervisor.spawn_whole(async move {
            this.catch_up_with_views(&filter.states).await;
            let (mut before, mut total) = (None, Changed { matched: 0, changed: 0 });
            loop {
                let page = this.store.jobs(filter.clone(), before, CHANGED_AT_ONCE).await?;
                let Some(last) = page.last() else { return Ok(total) };
                before = Some(last.into());
                let ids: Vec<_> = page.iter().map(|job| job.id).collect();
                let Changed { matched, changed } = this.change_some(&ids, action, asked_at).await?;
                (total.matched, total.changed) = (total.matched + matched, total.changed + changed);
            }
        });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    /// Changes the jobs of a list that can change. `asked_at` is as in [`Self::act_once`].
    pub(crate) async fn act_on_some(
        &self,
        ids: &[JobId],
        action: Action,
        asked_at: Option<Timestamp>,
    ) -> Result<Changed, ChangeError> {
        let (this, ids) = (self.clone(), ids.to_vec());
        let acting = self.supervisor.spawn_whole(async move { this.change_some(&ids, action, asked_at).await });
        acting.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    async fn change_some(
        &self,
        ids: &[JobId],
        action: Action,
        asked_at: Option<Timestamp>,
    ) -> Result<Changed, ChangeError> {
        let mut total = Changed { matched: ids.len() as u64, changed: 0 };
        for some in ids.chunks(CHANGED_TOGETHER) {
            // The term ends. With several coordinators the next leader is asked to change the remaining jobs.
            if self.supervisor.is_stopping() {
                let error = if self.own.is_some() { WriteError::Following } else { WriteError::Closed };
                return Err(error.into());
            }
            for changed in join_all(some.iter().map(|id| self.change(*id, action, asked_at))).await {
                match changed {
                    Ok(changed) => total.changed += u64::from(changed),
                    // The job has ended, or was deleted, since it was found.
                    Err(
                        ChangeError::Over { .. }
                        | ChangeError::Unknown(_)
                        | ChangeError::SimulationOver
                        | ChangeError::ProgramGone(_)
                        | ChangeError::NotSkippable(_)
                        | ChangeError::NoSuchTask { .. }
                        | ChangeError::Read(ReadError::Unreadable { .. }),
                    ) => (),
                    Err(error @ (ChangeError::Write(_) | ChangeError::Read(_))) => return Err(error),
                }
            }
        }
        Ok(total)
    }

    /// Changes one job under its lock. Returns whether it changed.
    async fn change(&self, id: JobId, action: Action, asked_at: Option<Timestamp>) -> Result<bool, ChangeError> {
        let _lock = self.locks.lock(id).await;
        if !self.driver.view(|engine| engine.knows(id)) {
            // The end of the job may be on its way to the store.
            self.store.flush().await?;
        }
        let record = match self.store.job(id).await {
            Err(ReadError::Unreadable { detail, .. }) if action == Action::Cancel => {
                return self.cancel_unread(id, detail).await;
            }
            read => read?.ok_or(ChangeError::Unknown(id))?,
        };
        let is_retried = asked_at.is_some_and(|asked_at| record.retried_at.is_some_and(|at| at >= asked_at));
        if (action == Action::Retry && is_retried) || !self.is_changed(&record, action)? {
            // The engine may not know the change if its commit was in doubt.
            self.catch_up(id, action).await?;
            return Ok(false);
        }
        if action == Action::Retry {
            return self.retry(id, &record).await.map(|()| true);
        }
        if action == Action::Cancel {
            self.keep_work_done(id).await;
        }
        match self.store.commit(Change { job: id, at: now().at, kind: action.change() }).await {
            Err(WriteError::Corrupt(why)) if action == Action::Cancel => return self.cancel_unread(id, why).await,
            written => written?,
        }
        self.tell_engine(id, action);
        Ok(true)
    }

    /// Makes a stored change in the engine. Without effect where the engine has it already.
    fn tell_engine(&self, id: JobId, action: Action) {
        self.driver.input(|engine, now| match action {
            Action::Cancel => engine.cancel(id, now),
            // A job that has ended meanwhile is no longer in the engine.
            Action::Pause => drop(engine.pause(id, now)),
            Action::Resume => drop(engine.resume(id, now)),
            Action::Retry => (),
        });
    }

    /// Makes a stored change in the engine, also that of a reopened job.
    async fn catch_up(&self, id: JobId, action: Action) -> Result<(), ChangeError> {
        self.tell_engine(id, action);
        let is_unknown = action == Action::Retry && !self.driver.view(|engine| engine.knows(id));
        if is_unknown && self.store.unreadable().why(id).is_none() {
            self.take_up_opened(id).await?;
        }
        Ok(())
    }

    async fn retry(&self, id: JobId, record: &JobRecord) -> Result<(), ChangeError> {
        if record.options.requires.are_of_simulation() && !self.driver.view(|engine| engine.knows(id)) {
            return Err(ChangeError::SimulationOver);
        }
        if self.driver.input(|engine, now| engine.retry(id, now)).is_ok() {
            return Ok(self.store.flush().await?);
        }
        // A job that is over keeps no program; from the commit on, an open one does.
        let kept = self.store.keep_programs().await;
        for program in uploaded_programs(record.kind, record.params.get()) {
            if self.store.program(program).await?.is_none() {
                return Err(ChangeError::ProgramGone(program));
            }
        }
        self.store.commit(Change { job: id, at: now().at, kind: ChangeKind::Retried }).await?;
        drop(kept);
        self.take_up_opened(id).await
    }

    /// Gives the engine a reopened job. Repeats failed reads until the term ends.
    async fn take_up_opened(&self, id: JobId) -> Result<(), ChangeError> {
        loop {
            match self.store.unfinished_job(id).await {
                Ok(Some(job)) => {
                    if let Err(error) = self.driver.input(|engine, now| engine.take_up(job, now)) {
                        self.store.unreadable().note_job(id, &error);
                    }
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) if self.supervisor.is_stopping() => return Err(error.into()),
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::Engine;
    use model::DEFAULT_CHUNK_SIZE;
    use store::memory::Memory;
    use store::{Retention, Store};
    use uuid::Uuid;

    use super::*;
    use crate::accepting::Proposal;
    use crate::config::Config;
    use crate::driver::{Driver, Queues};
    use crate::submission;
    use crate::supervisor::Supervisor;

    struct Grid {
        memory: Memory,
        store: Arc<Store>,
        driver: Arc<Driver>,
        jobs: Jobs,
        id: JobId,
        _queues: Queues,
    }

    impl Grid {
        /// A fixture with one job and without workers.
        async fn new() -> Self {
            let memory = Memory::new();
            let store = Arc::new(memory.store(Retention::KEEP_ALL).expect("a thread"));
            let engine = Engine::new(Config::default().engine_settings(1), now());
            let (driver, _queues) = Driver::new(engine, Arc::clone(&store));
            let jobs = Jobs::new(Arc::clone(&store), Arc::clone(&driver), Supervisor::default(), false);
            let grid = Self { memory, store, driver, jobs, id: JobId(Uuid::from_u128(1)), _queues };
            grid.accept(grid.id).await;
            grid
        }

        async fn accept(&self, id: JobId) {
            let body = br#"{"kind":"sleep","params":{"seconds":0.0}}"#;
            let (job, fingerprints) = submission::read(body, DEFAULT_CHUNK_SIZE, None).expect("a job");
            let proposal = Proposal { id: Some(id), idempotency_key: None, job, fingerprints, reservation: None };
            self.jobs.accept(proposal).await.expect("it is accepted");
        }

        /// Changes the store alone, as where a commit succeeds without an answer.
        async fn change_the_store_alone(&self, action: Action) {
            let change = Change { job: self.id, at: now().at, kind: action.change() };
            self.store.commit(change).await.expect("it is committed");
        }

        async fn act(&self, action: Action) {
            self.jobs.act(self.id, action).await.expect("it is as it should be");
        }

        fn is_known(&self) -> bool {
            self.driver.view(|engine| engine.knows(self.id))
        }

        fn is_paused(&self) -> bool {
            self.driver.view(|engine| engine.job_counts().paused) == 1
        }
    }

    #[tokio::test]
    async fn a_change_that_was_in_doubt_is_made_by_its_repetition() {
        let grid = Grid::new().await;
        grid.change_the_store_alone(Action::Pause).await;
        assert!(!grid.is_paused());
        grid.act(Action::Pause).await;
        assert!(grid.is_paused());
        grid.change_the_store_alone(Action::Resume).await;
        grid.act(Action::Resume).await;
        assert!(!grid.is_paused());
        grid.change_the_store_alone(Action::Cancel).await;
        assert!(grid.is_known());
        grid.act(Action::Cancel).await;
        assert!(!grid.is_known());
        grid.change_the_store_alone(Action::Retry).await;
        grid.act(Action::Retry).await;
        assert!(grid.is_known());
    }

    #[tokio::test]
    async fn each_job_that_a_retry_of_many_opens_is_known_though_a_read_fails_half_way() {
        let grid = Grid::new().await;
        let ids = [1, 2, 3].map(|number| JobId(Uuid::from_u128(number)));
        for id in &ids[1..] {
            grid.accept(*id).await;
        }
        let all = Changed { matched: 3, changed: 3 };
        assert_eq!(grid.jobs.act_on_some(&ids, Action::Cancel, None).await.expect("it is committed"), all);
        assert!(!grid.is_known());
        grid.memory.fail_reads_of_open_jobs(1);
        assert_eq!(grid.jobs.act_on_some(&ids, Action::Retry, None).await.expect("it is committed"), all);
        assert!(ids.iter().all(|id| grid.driver.view(|engine| engine.knows(*id))));
    }
}
