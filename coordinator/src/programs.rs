//! Programs: whether a job may run one, which workers can, and what programs write to stderr while they run.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{BroughtProgram, LogReport, MAX_LOG_BYTES, ParsedJob, ProgramNames};
use model::{ABLE, AttemptId, InvalidJob, JobId, JobKind, ProgramName, uploaded_programs};
use store::{ReadError, Store, TaskLog, WriteError, missing};
use tokio::sync::Semaphore;

use crate::clock::now;
use crate::workers::Workers;

/// Uploads at the same time: each holds up to 8 MiB.
const MAX_UPLOADS: usize = 4;

/// Programs that run and whose stderr is shown meanwhile; what others write is seen when they have ended.
const MAX_LIVE_LOGS: usize = 1_024;

/// A worker reports each second: without a report for so long the program has gone with its worker.
const LIVE_FOR: Duration = Duration::from_secs(30);

/// Logs that are kept of one job, by one coordinator.
const MAX_JOB_LOG_BYTES: u64 = 64 << 20;

/// Jobs whose logs are counted.
const MAX_COUNTED_JOBS: usize = 10_000;

/// Why a job may not run its program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    #[error(transparent)]
    Read(#[from] ReadError),
}

#[derive(Debug)]
pub(crate) struct Programs {
    /// For reading.
    store: Arc<Store>,
    workers: Arc<Workers>,
    /// The longest program.
    pub(crate) max_bytes: u64,
    /// One permit for each upload.
    pub(crate) uploads: Semaphore,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    live: HashMap<(JobId, u64, AttemptId), Live>,
    /// Bytes that are kept of each job.
    kept: HashMap<JobId, u64>,
}

#[derive(Debug)]
struct Live {
    worker: String,
    offset: u64,
    text: String,
    seen_at: Instant,
}

impl Programs {
    pub(crate) fn new(store: Arc<Store>, workers: Arc<Workers>, max_bytes: u64) -> Self {
        Self { store, workers, max_bytes, uploads: Semaphore::new(MAX_UPLOADS), logs: Mutex::default() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Has a job require workers that can run its uploaded programs.
    pub(crate) async fn admit(&self, job: &mut ParsedJob) -> Result<(), AdmitError> {
        for hash in uploaded_programs(job.kind, job.work.stored.get()) {
            let program = self.store.program(hash).await?;
            let program =
                program.ok_or_else(|| InvalidJob::new("params", format!("name a program: {}", missing(hash))))?;
            job.options.requires.labels.insert(program.kind.label().to_owned(), ABLE.to_owned());
        }
        job.is_admitted = true;
        Ok(())
    }

    /// What the workers that are there can run.
    pub(crate) fn names(&self) -> ProgramNames {
        let mut names = ProgramNames::default();
        let mut brought: BTreeMap<ProgramName, BroughtProgram> = BTreeMap::new();
        for (_, registration) in self.workers.snapshot() {
            let abilities = registration.heartbeat.programs;
            names.wasm_workers += u64::from(abilities.wasm);
            names.native_workers += u64::from(abilities.native);
            for ability in abilities.names {
                let program = brought.entry(ability.name.clone()).or_insert_with(|| BroughtProgram {
                    name: ability.name,
                    description: ability.description,
                    workers: 0,
                });
                program.workers += 1;
            }
        }
        names.names = brought.into_values().collect();
        names
    }

    /// Notes what an attempt has written; keeps it where the program has ended.
    pub(crate) async fn report(
        &self,
        job: JobId,
        task: u64,
        attempt: AttemptId,
        report: LogReport,
        store: &Store,
    ) -> Result<(), WriteError> {
        let LogReport { worker, offset, text, is_final } = report;
        let cut = text.len().saturating_sub(MAX_LOG_BYTES);
        let start = (cut..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
        let (offset, text) = (offset + start as u64, text[start..].to_owned());
        let is_kept = self.logs().note(job, task, attempt, worker.as_str(), offset, &text, is_final);
        if !is_kept {
            return Ok(());
        }
        let ended_at = now().at;
        let worker = worker.as_str().to_owned();
        store.put_log(TaskLog { job, task, attempt, worker, ended_at, omitted_bytes: offset, text }).await
    }

    /// What programs that run have written so far, by task.
    pub(crate) fn live(&self, job: JobId, tasks: &Range<u64>) -> Vec<api::TaskLog> {
        let logs = self.logs();
        let of_job = logs.live.iter().filter(|((of, task, _), _)| *of == job && tasks.contains(task));
        let mut live: Vec<_> = of_job
            .map(|(&(_, task, attempt), live)| api::TaskLog {
                task,
                attempt,
                worker: live.worker.clone(),
                omitted_bytes: live.offset,
                text: live.text.clone(),
                ended_at: None,
            })
            .collect();
        live.sort_unstable_by_key(|log| (log.task, log.attempt));
        live
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    /// Returns whether it is to be stored.
    #[expect(clippy::too_many_arguments, reason = "the parts of one report, each of its own type")]
    fn note(
        &mut self,
        job: JobId,
        task: u64,
        attempt: AttemptId,
        worker: &str,
        offset: u64,
        text: &str,
        is_final: bool,
    ) -> bool {
        let key = (job, task, attempt);
        if is_final {
            self.live.remove(&key);
            if self.kept.len() >= MAX_COUNTED_JOBS {
                self.kept.clear();
            }
            let kept = self.kept.entry(job).or_default();
            *kept += text.len() as u64;
            return *kept <= MAX_JOB_LOG_BYTES;
        }
        if self.live.len() >= MAX_LIVE_LOGS && !self.live.contains_key(&key) {
            self.live.retain(|_, live| live.seen_at.elapsed() < LIVE_FOR);
            if self.live.len() >= MAX_LIVE_LOGS {
                return false;
            }
        }
        let (worker, text) = (worker.to_owned(), text.to_owned());
        self.live.insert(key, Live { worker, offset, text, seen_at: Instant::now() });
        false
    }
}

/// Whether jobs of this kind need the right to run programs.
pub(crate) fn is_program(kind: JobKind) -> bool {
    kind == JobKind::PROGRAM
}
