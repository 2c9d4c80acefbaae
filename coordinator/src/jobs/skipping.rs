//! Tasks that a client no longer wants while their job goes on.

use engine::SkipError;
use model::{JobId, JobKind};
use store::{JobRecord, WriteError};

use super::{ChangeError, Jobs};

impl Jobs {
    /// Ends tasks of a job that have not begun; the change is on the disk when this resolves. Returns the tasks that it has
    /// ended.
    pub(crate) async fn skip(&self, id: JobId, tasks: Vec<u64>) -> Result<Vec<u64>, ChangeError> {
        let this = self.clone();
        let skipping = self.supervisor.spawn_whole(async move {
            let _lock = this.locks.lock(id).await;
            let skipped = this.driver.input(|engine, now| engine.skip(id, &tasks, now));
            this.store.flush().await?;
            match skipped {
                Ok(skipped) => Ok(skipped),
                Err(SkipError::Kind(kind)) => Err(ChangeError::NotSkippable(kind)),
                Err(SkipError::Unknown(_)) => {
                    let JobRecord { state, kind, .. } = this.store.job(id).await?.ok_or(ChangeError::Unknown(id))?;
                    if state.is_over() {
                        Err(ChangeError::Over { state })
                    } else if kind != JobKind::TASKS {
                        Err(ChangeError::NotSkippable(kind))
                    } else {
                        // The event of the job's submission is yet to be read here.
                        Ok(Vec::new())
                    }
                }
            }
        });
        skipping.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }
}
