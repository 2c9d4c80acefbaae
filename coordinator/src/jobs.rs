//! Stored jobs: accepts and changes them. A change is on the disk before the engine acts on it, so that an answer to a client
//! survives a crash.

mod changing;
mod skipping;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use api::{Explanation, Job};
use dashmap::DashSet;
use futures_util::future::join_all;
use model::{InvalidJob, JobId, JobState};
use store::{Change, ChangeKind, JobRecord, ReadError, Store, Submission, SubmitError, UnfinishedJob, WriteError};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::accepting::{AcceptError, Accepting, Proposal, Ready, submit_to};
use crate::clock::now;
use crate::driver::Driver;
use crate::job_locks::JobLocks;
use crate::job_view;
use crate::supervisor::Supervisor;

pub(crate) use changing::{Action, ChangeError};

/// Jobs that the engine gets in one step.
const TAKEN_UP_AT_ONCE: usize = 64;

/// Jobs that are read in one step. Changes of other coordinators' jobs wait meanwhile.
const READ_AT_ONCE: usize = 256;

/// Pause before the store is read again for a reopened job that the engine does not know yet.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Time for which a list of jobs waits for the store to know their states.
const VIEWS_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    store: Arc<Store>,
    driver: Arc<Driver>,
    locks: JobLocks,
    supervisor: Supervisor,
    /// Jobs that were submitted here and whose events are yet to be read; `None` where no other coordinator submits.
    own: Option<Arc<DashSet<JobId>>>,
}

impl Jobs {
    /// With `is_shared`, other coordinators submit to the same store: see [`Self::note_submitted`].
    pub(crate) fn new(store: Arc<Store>, driver: Arc<Driver>, supervisor: Supervisor, is_shared: bool) -> Self {
        Self { store, driver, locks: JobLocks::default(), supervisor, own: is_shared.then(Arc::default) }
    }

    /// Takes up the jobs that were not over when the last coordinator ended. Simulated workers ended with it, and so do their
    /// jobs. Returns the number of jobs that go on.
    pub(crate) async fn recover(&self) -> Result<usize, ReadError> {
        let set_aside = self.store.set_aside_workers().await?;
        self.driver.input(|engine, now| engine.keep_set_aside(set_aside, now));
        let jobs = self.store.open_jobs().await?;
        // Read in steps, since rows are larger than the engine's copies; the next step is read meanwhile.
        let mut parts = jobs.chunks(READ_AT_ONCE).map(<[JobId]>::to_vec);
        let Some(first) = parts.next() else { return Ok(0) };
        let (mut count, mut read) = (0, self.store.unfinished_jobs(first).await?);
        for part in parts {
            let (next, taken) = tokio::join!(self.store.unfinished_jobs(part), self.recover_some(read));
            count += taken;
            read = next?;
        }
        Ok(count + self.recover_some(read).await)
    }

    async fn recover_some(&self, jobs: Vec<UnfinishedJob>) -> usize {
        let (simulated, jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.record.options.requires.are_of_simulation());
        // Committed without the engine, which numbers only the changes that it records.
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

    /// Accepts a job: it is on the disk when this resolves. Goes on to its end even if the caller is dropped.
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

    /// Moves positions in streams in this order, and makes new jobs known to the engine. Returns a result for each. The caller
    /// must run it to its end: a stored job must not stay unknown.
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
                self.disown(job.record.id);
            }
        }
        self.take_up(new);
        answers
    }

    /// Gives jobs to the engine, in steps, so that other callers do not wait long for the engine.
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
        let Accepting { new, earlier, .. } = accepting;
        let id = new.id;
        let _lock = self.locks.lock(id).await;
        self.note_own(id);
        let submitted = submit_to(&self.store, new, earlier).await;
        if matches!(submitted, Ok((_, Submission::New))) {
            if let Some(caller) = &new.options.submitted_by {
                info!(job_id = %id, %caller, "accepted a job");
            }
            self.driver.input(|engine, now| engine.take_up(new.accepted(), now))?;
        } else {
            self.disown(id);
        }
        let (record, submission) = submitted?;
        Ok((self.view(record), submission))
    }

    /// Remembers a job until its event is read, where the events of other coordinators' jobs are read too.
    fn note_own(&self, id: JobId) {
        if let Some(own) = &self.own {
            own.insert(id);
        }
    }

    fn forget_own(&self, id: JobId) -> bool {
        self.own.as_ref().is_some_and(|own| own.remove(&id).is_some())
    }

    /// Forgets a job that no submission here has stored, as far as is known: if it is in the store, its event tells. If the
    /// event was read meanwhile, as that of an own job, the engine gets the job apart.
    fn disown(&self, id: JobId) {
        if self.own.is_some() && !self.forget_own(id) {
            let this = self.clone();
            self.supervisor.spawn(async move { this.note_submitted(vec![id]).await });
        }
    }

    /// Notes that this coordinator or another one has stored jobs: the engine gets those that it does not know and did not
    /// have.
    pub(crate) async fn note_submitted(&self, mut ids: Vec<JobId>) {
        ids.retain(|id| !self.forget_own(*id));
        for some in ids.chunks(READ_AT_ONCE) {
            let _locks = self.locks.lock_all(some).await;
            self.take_up_stored(some).await;
        }
    }

    /// Gives the engine the jobs that it does not know, under their locks, as soon as they can be read.
    async fn take_up_stored(&self, ids: &[JobId]) {
        loop {
            let unknown: Vec<_> =
                self.driver.view(|engine| ids.iter().copied().filter(|id| !engine.knows(*id)).collect());
            if unknown.is_empty() {
                return;
            }
            match self.unfinished(unknown).await {
                Ok(Ok(jobs)) => return self.take_up(jobs),
                Ok(Err(error)) => debug!(%error, "jobs of other coordinators cannot be read yet"),
                Err(error) => debug!(%error, "jobs of other coordinators cannot be read yet"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn unfinished(&self, ids: Vec<JobId>) -> Result<Result<Vec<UnfinishedJob>, ReadError>, WriteError> {
        // The ends of the jobs may be on their way to the store.
        self.store.flush().await?;
        Ok(self.store.unfinished_jobs(ids).await)
    }

    /// The reason why a job's tasks wait.
    pub(crate) async fn explain(&self, id: JobId) -> Result<Option<Explanation>, ReadError> {
        let Some(mut record) = self.store.job(id).await? else { return Ok(None) };
        let mut reasons = Vec::new();
        let explain = |record: &mut JobRecord| {
            self.driver.view(|engine| {
                job_view::note_start(record, engine);
                engine.explain(id)
            })
        };
        let mut live = explain(&mut record);
        // While nothing can be stored, a submission may hold the lock.
        if live.is_none() && !record.state.is_over() && self.store.is_failing().is_none() {
            // A submission holds the lock until the engine has the job that it has stored.
            let _lock = self.locks.lock(id).await;
            let Some(again) = self.store.job(id).await? else { return Ok(None) };
            record = again;
            live = explain(&mut record);
        }
        match (record.state.is_over(), live) {
            (true, _) => reasons.push(match &record.error {
                Some(error) => format!("it is over: {} ({error})", record.state),
                None => format!("it is over: {}", record.state),
            }),
            (false, Some(reason)) => reasons.push(reason),
            (false, None) => reasons.push(match self.store.unreadable().why(id) {
                Some(error) => format!("this version cannot read it, and it waits for one that can: {error}"),
                None => "its end is being stored, or another coordinator has just stored its submission".to_owned(),
            }),
        }
        if let Some(failing) = self.store.is_failing() {
            reasons.push(format!("nothing can be stored at the moment: {failing}"));
        }
        Ok(Some(Explanation { state: record.state, reasons }))
    }

    /// Stores the work that a job has done before it is canceled, where the number of its tasks does not tell.
    async fn keep_work_done(&self, id: JobId) {
        let Some(billionths) = self.driver.view(|engine| engine.work_done(id)) else { return };
        let change = Change { job: id, at: now().at, kind: ChangeKind::WorkDone { billionths } };
        if let Err(error) = self.store.commit(change).await {
            // The cancellation fails too, or shows the share of the tasks.
            debug!(job_id = %id, %error, "cannot store the work that a job has done");
        }
    }

    /// Waits until the store knows of the jobs that views have shown as running, where `states` distinguish these from queued
    /// jobs. Not for long: while nothing can be stored, lists are as old as the store.
    pub(crate) async fn catch_up_with_views(&self, states: &[JobState]) {
        let distinguish = states.contains(&JobState::Queued) != states.contains(&JobState::Running);
        if distinguish && self.store.backlog() > 0 && self.store.is_failing().is_none() {
            let _ = timeout(VIEWS_PATIENCE, self.store.flush()).await;
        }
    }

    /// A stored job as clients see it, with the present figures of the engine.
    pub(crate) fn view(&self, record: JobRecord) -> Job {
        self.driver.view(|engine| job_view::live(record, engine))
    }
}

#[cfg(test)]
mod tests {
    use engine::Engine;
    use futures_util::FutureExt;
    use model::DEFAULT_CHUNK_SIZE;
    use store::Retention;
    use store::memory::Memory;
    use uuid::Uuid;

    use super::*;
    use crate::config::Config;
    use crate::driver::Queues;
    use crate::submission;

    /// Jobs in memory, and a job that is about to be stored.
    fn prepared(memory: &Memory, is_shared: bool) -> (Jobs, Accepting, Queues) {
        let store = Arc::new(memory.store(Retention::KEEP_ALL).expect("a thread"));
        let engine = Engine::new(Config::default().engine_settings(1), now());
        let (driver, queues) = Driver::new(engine, Arc::clone(&store));
        let jobs = Jobs::new(store, driver, Supervisor::default(), is_shared);
        let body = br#"{"kind":"sleep","params":{"seconds":0.0}}"#;
        let (job, fingerprints) = submission::read(body, DEFAULT_CHUNK_SIZE, None).expect("a job");
        let id = Some(JobId(Uuid::from_u128(1)));
        let proposal = Proposal { id, idempotency_key: None, job, fingerprints, reservation: None };
        let accepting = jobs.prepare(proposal).expect("valid");
        (jobs, accepting, queues)
    }

    #[tokio::test]
    async fn an_explanation_waits_for_the_second_half_of_a_submission() {
        let (jobs, accepting, _queues) = prepared(&Memory::new(), false);
        let id = accepting.new.id;
        let lock = jobs.locks.lock(id).await;
        submit_to(&jobs.store, &accepting.new, &accepting.earlier).await.expect("it is stored");
        let explained = jobs.explain(id);
        tokio::pin!(explained);
        let asked = timeout(Duration::from_millis(50), &mut explained).await;
        assert!(asked.is_err(), "the engine does not know the job yet: {asked:?}");
        jobs.driver.input(|engine, now| engine.take_up(accepting.new.accepted(), now)).expect("it can be read");
        drop(lock);
        let explanation = explained.await.expect("it can be read").expect("it is there");
        assert_eq!(explanation.reasons, jobs.driver.view(|engine| engine.explain(id)).as_slice());
    }

    #[tokio::test]
    async fn a_list_of_running_jobs_waits_until_their_starts_are_stored_and_a_list_of_others_does_not() {
        let memory = Memory::new();
        let (jobs, accepting, _queues) = prepared(&memory, false);
        submit_to(&jobs.store, &accepting.new, &accepting.earlier).await.expect("it is stored");
        memory.hold_commits(true);
        jobs.store.record(Change { job: accepting.new.id, at: now().at, kind: ChangeKind::Started });
        let open = [JobState::Queued, JobState::Running];
        let waits = |states: &[JobState]| jobs.catch_up_with_views(states).now_or_never().is_none();
        let found = [waits(&[]), waits(&open), waits(&open[..1]), waits(&open[1..]), waits(&[JobState::Failed])];
        memory.hold_commits(false);
        assert_eq!(found, [false, false, true, true, false]);
    }

    #[tokio::test]
    async fn an_explanation_waits_for_no_lock_while_nothing_can_be_stored() {
        let memory = Memory::new();
        let (jobs, accepting, _queues) = prepared(&memory, false);
        let id = accepting.new.id;
        submit_to(&jobs.store, &accepting.new, &accepting.earlier).await.expect("it is stored");
        memory.set_failing(Some(WriteError::Unavailable("no route".to_owned())));
        let explained = async {
            while jobs.store.is_failing().is_none() {
                tokio::task::yield_now().await;
            }
            let _lock = jobs.locks.lock(id).await;
            jobs.explain(id).await
        };
        let explained = timeout(Duration::from_secs(60), explained).await.expect("it waits for no lock");
        let reasons = explained.expect("it can be read").expect("it is there").reasons;
        assert!(reasons.iter().any(|reason| reason.contains("no route")), "{reasons:?}");
    }

    #[tokio::test]
    async fn a_job_whose_event_is_read_while_it_is_submitted_once_more_is_worked_on() {
        let (jobs, accepting, _queues) = prepared(&Memory::new(), true);
        let id = accepting.new.id;
        // Another coordinator stores the job.
        submit_to(&jobs.store, &accepting.new, &accepting.earlier).await.expect("it is stored");
        // The event comes between the two halves of the submission here.
        jobs.note_own(id);
        jobs.note_submitted(vec![id]).await;
        assert!(!jobs.driver.view(|engine| engine.knows(id)), "its event is read as that of an own job");
        jobs.disown(id);
        let taken_up = async {
            while !jobs.driver.view(|engine| engine.knows(id)) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), taken_up).await.expect("the engine gets it");
    }
}
