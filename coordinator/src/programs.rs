//! Programs: whether a job may run one, and the workers that can.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{BroughtProgram, ParsedJob, ProgramNames};
use model::{ABLE, InvalidJob, JobKind, ProgramKind, ProgramName, uploaded_programs};
use store::{ReadError, Store, missing};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::task_logs::TaskLogs;
use crate::workers::Workers;

/// The most uploads at the same time: each holds up to 8 MiB.
const MAX_UPLOADS: usize = 4;

/// The reason why a job may not run its program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    /// A program of the job is not stored.
    #[error(transparent)]
    Missing(InvalidJob),
    #[error(transparent)]
    Read(#[from] ReadError),
}

#[derive(Debug)]
pub(crate) struct Programs {
    /// The store, for reading.
    store: Arc<Store>,
    workers: Arc<Workers>,
    /// The longest program, in bytes.
    pub(crate) max_bytes: u64,
    /// The longest output of a task, in bytes.
    pub(crate) max_output_bytes: u64,
    /// One permit for each upload.
    pub(crate) uploads: Semaphore,
    pub(crate) logs: Arc<TaskLogs>,
}

impl Programs {
    pub(crate) fn new(store: Arc<Store>, workers: Arc<Workers>, config: &Config) -> Self {
        let (max_bytes, max_output_bytes) = (config.max_program_bytes, config.max_output_bytes);
        Self { store, workers, max_bytes, max_output_bytes, uploads: Semaphore::new(MAX_UPLOADS), logs: Arc::default() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes a job require workers that can run its uploaded programs.
    pub(crate) async fn admit(&self, job: &mut ParsedJob) -> Result<(), AdmitError> {
        if is_program(job.kind) && workloads::program_output_bytes(&job.work.stored)? > self.max_output_bytes {
            let most = self.max_output_bytes;
            let message = format!("limits.output_bytes must be at most {most} here (DIVVY_MAX_OUTPUT_BYTES)");
            return Err(InvalidJob::new("params", message).into());
        }
        let is_reproducible = is_program(job.kind) && workloads::program_is_reproducible(&job.work.stored)?;
        for hash in uploaded_programs(job.kind, job.work.stored.get()) {
            let program = self.store.program(hash).await?;
            let gone = || InvalidJob::new("params", format!("name a program: {}", missing(hash)));
            let program = program.ok_or_else(|| AdmitError::Missing(gone()))?;
            if is_reproducible && program.kind == ProgramKind::Native {
                let message = format!("reproducible is for WASI programs, and {hash} is a native executable");
                return Err(InvalidJob::new("params", message).into());
            }
            job.options.requires.labels.insert(program.kind.label().to_owned(), ABLE.to_owned());
        }
        job.options.is_admitted = true;
        Ok(())
    }

    /// Admits a job whose program is missing: the store refuses the job unless it has accepted the same job before. If the
    /// program comes back meanwhile, the job requires workers that can run programs of any kind.
    pub(crate) fn admit_repeated(job: &mut ParsedJob) {
        for kind in [ProgramKind::Wasm, ProgramKind::Native] {
            job.options.requires.labels.insert(kind.label().to_owned(), ABLE.to_owned());
        }
        job.options.is_admitted = true;
    }

    /// The programs that the present workers can run.
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
}

/// Whether jobs of this kind need the right to run programs.
pub(crate) fn is_program(kind: JobKind) -> bool {
    kind == JobKind::PROGRAM
}
