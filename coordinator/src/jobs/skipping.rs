//! Tasks that a client no longer wants while their job goes on.

use std::collections::BTreeSet;

use engine::SkipError;
use model::{JobId, JobKind};
use store::{AttemptEnd, JobRecord, ReadError, WriteError};

use super::{ChangeError, Jobs};
use crate::clock::now;

impl Jobs {
    /// Ends tasks of a job that have not begun; the change is on the disk when this resolves. Returns the tasks that it has
    /// ended and those that earlier requests have ended, since the answer to an earlier request may be lost.
    pub(crate) async fn skip(&self, id: JobId, tasks: Vec<u64>) -> Result<Vec<u64>, ChangeError> {
        let this = self.clone();
        let skipping = self.supervisor.spawn_whole(async move {
            let _lock = this.locks.lock(id).await;
            this.find_tasks(id, &tasks).await?;
            let skipped = this.driver.input(|engine, now| engine.skip(id, &tasks, now));
            this.store.flush().await?;
            let mut skipped: BTreeSet<u64> = match skipped {
                Ok(ended) => {
                    let mut skipped: BTreeSet<u64> = ended.into_iter().collect();
                    let others: Vec<u64> = tasks.iter().copied().filter(|task| !skipped.contains(task)).collect();
                    skipped.extend(this.skipped_before(id, &others).await?);
                    skipped
                }
                Err(SkipError::Kind(kind)) => return Err(ChangeError::NotSkippable(kind)),
                Err(SkipError::Unknown(_)) => {
                    let JobRecord { state, kind, .. } = this.store.job(id).await?.ok_or(ChangeError::Unknown(id))?;
                    if !state.is_over() && kind != JobKind::TASKS {
                        return Err(ChangeError::NotSkippable(kind));
                    }
                    let skipped = this.skipped_before(id, &tasks).await?;
                    if state.is_over() && skipped.is_empty() {
                        return Err(ChangeError::Over { state });
                    }
                    // Empty while the event of the job's submission is yet to be read here.
                    skipped
                }
            };
            Ok(tasks.into_iter().filter(|task| skipped.remove(task)).collect::<Vec<u64>>())
        });
        skipping.await.unwrap_or(Err(ChangeError::Write(WriteError::Closed)))
    }

    /// Refuses the number of a task that a job of skippable tasks does not have: nothing is skipped then.
    async fn find_tasks(&self, id: JobId, tasks: &[u64]) -> Result<(), ChangeError> {
        let record = self.store.job(id).await?.ok_or(ChangeError::Unknown(id))?;
        let absent = tasks.iter().find(|&&task| task >= record.tasks);
        match absent {
            Some(&task) if record.kind == JobKind::TASKS => {
                Err(ChangeError::NoSuchTask { job: id, task, tasks: record.tasks })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Those of `tasks` that are skipped: they are done without a worker.
    async fn skipped_before(&self, id: JobId, tasks: &[u64]) -> Result<BTreeSet<u64>, ReadError> {
        let leased = self.driver.view(|engine| engine.leased_tasks(id, now()));
        let mut asked: BTreeSet<u64> = tasks.iter().copied().collect();
        asked.retain(|task| !leased.iter().any(|lease| lease.tasks.contains(task)));
        let (mut skipped, mut beyond) = (BTreeSet::new(), 0);
        for task in asked {
            // One attempt of a worker has the results of many tasks, which are read once.
            if task < beyond {
                continue;
            }
            for attempt in self.store.outcomes(id, task, 1).await? {
                match attempt.end {
                    AttemptEnd::Completed { .. } if attempt.is_skipped() => {
                        skipped.insert(task);
                    }
                    AttemptEnd::Completed { .. } => beyond = attempt.tasks.end.max(beyond),
                    AttemptEnd::Failed { .. } => (),
                }
            }
        }
        Ok(skipped)
    }
}
