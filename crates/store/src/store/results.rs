//! Results and outputs.

use std::sync::Arc;
use std::time::Duration;

use model::{Composition, JobId, OutputObject, ProgramOutput};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::Store;
use crate::backend::{Reading, ResultRow};
use crate::batch::Epoch;
use crate::change::ResultBody;
use crate::error::{ComposeError, OutputError, PlaceError, ReadError, WriteError};
use crate::objects::{OutputUpload, ResultStream};
use crate::outputs::{OutputBytes, OutputLines};
use crate::programs::ProgramRecord;
use crate::record::StoredResult;

impl Store {
    /// A job's result, as a whole. See [`Store::result_stream`] for large ones.
    ///
    /// # Errors
    /// The result could not be read, or has another hash.
    pub async fn result(&self, job: JobId) -> Result<Option<StoredResult>, ReadError> {
        let row = self.reads.result(job).await?;
        match self.objects.fetch(row.clone()).await {
            Err(error) => self.objects.fetch(row_now(error, row, self.reads.result(job)).await?).await,
            fetched => fetched,
        }
    }

    /// The newest result under an output's name, as a whole.
    ///
    /// # Errors
    /// The result could not be read, or has another hash.
    pub async fn result_by_name(&self, output: &str) -> Result<Option<StoredResult>, ReadError> {
        let row = self.reads.result_by_name(output).await?;
        match self.objects.fetch(row.clone()).await {
            Err(error) => self.objects.fetch(row_now(error, row, self.reads.result_by_name(output)).await?).await,
            fetched => fetched,
        }
    }

    /// A job's result in pieces.
    ///
    /// # Errors
    /// The result could not be found.
    pub async fn result_stream(&self, job: JobId) -> Result<Option<ResultStream>, ReadError> {
        let row = self.reads.result(job).await?;
        match self.objects.stream(row.clone()).await {
            Err(error) => self.objects.stream(row_now(error, row, self.reads.result(job)).await?).await,
            begun => begun,
        }
    }

    /// The newest result under an output's name in pieces.
    ///
    /// # Errors
    /// The result could not be found.
    pub async fn result_stream_by_name(&self, output: &str) -> Result<Option<ResultStream>, ReadError> {
        let row = self.reads.result_by_name(output).await?;
        match self.objects.stream(row.clone()).await {
            Err(error) => self.objects.stream(row_now(error, row, self.reads.result_by_name(output)).await?).await,
            begun => begun,
        }
    }

    /// Stores a result for [`crate::ChangeKind::Ended`], which gives it to the job.
    ///
    /// # Errors
    /// The result could not be stored.
    pub async fn put_result(&self, job: JobId, json: Box<RawValue>) -> Result<ResultBody, WriteError> {
        self.refuse_to_follow()?;
        self.objects.put(job, json).await
    }

    /// Composes `{"tasks":[…]}` of the answers to individual tasks, with null for a task without an answer, and stores it for
    /// [`crate::ChangeKind::Ended`]. Memory is bounded for any number of tasks.
    ///
    /// # Errors
    /// There is no such job, the answers could not be read, or the result could not be stored.
    pub async fn compose_result(&self, job: JobId) -> Result<ResultBody, ComposeError> {
        self.combine_results(job, Composition::TaskResults).await
    }

    /// Like [`Self::compose_result`], for any composition.
    ///
    /// # Errors
    /// The errors of [`Self::compose_result`]; also if the answers do not combine, such as text that is no number.
    pub async fn combine_results(&self, job: JobId, composition: Composition) -> Result<ResultBody, ComposeError> {
        self.refuse_to_follow()?;
        self.flush().await?;
        crate::compose::compose(&self.objects, &*self.reads, job, composition).await
    }

    /// The outputs of a job's tasks as lines, in the order of the tasks.
    #[must_use]
    pub fn output_lines(&self, job: JobId) -> OutputLines {
        OutputLines::new(Arc::clone(&self.reads), self.objects.clone(), job)
    }

    /// The bytes of a task's output.
    ///
    /// # Errors
    /// The bytes could not be found, or are not encoded correctly.
    pub async fn output_bytes(
        &self,
        job: JobId,
        task: u64,
        output: ProgramOutput,
    ) -> Result<OutputBytes, ComposeError> {
        OutputBytes::open(&self.objects, job, task, output).await
    }

    /// Begins to store an output of a task that is not done. It counts by the outcome that refers to it. An existing output is
    /// written anew with the same content.
    ///
    /// # Errors
    /// This coordinator follows.
    pub fn upload_output(&self, job: JobId, task: u64, object: OutputObject) -> Result<OutputUpload, OutputError> {
        self.refuse_to_follow()?;
        Ok(self.objects.upload_output(job, task, object))
    }

    /// Whether a complete output exists and stays, as after [`OutputUpload::finish`].
    ///
    /// # Errors
    /// The object store could not be read.
    pub async fn keeps_output(&self, job: JobId, task: u64, object: &OutputObject) -> Result<bool, ReadError> {
        self.objects.keeps_output(job, task, object).await
    }

    /// Tries the place of large results with a small object, and looks for the bytes of a program there, if there is one.
    ///
    /// # Errors
    /// The place cannot be used, does not answer within `wait`, or is another one than that of the program.
    pub async fn try_place_of_results(&self, wait: Duration) -> Result<(), PlaceError> {
        let trying = async {
            self.objects.probe().await?;
            let unusable = |error: ReadError| self.objects.unusable(&error.to_string());
            // Rows that cannot be read are told of where they are needed.
            let programs = self.reads.programs(None, 1).await.unwrap_or_default();
            for ProgramRecord { hash, .. } in programs {
                if !self.objects.has_program(hash).await.map_err(unusable)?
                    // It may have been deleted meanwhile.
                    && matches!(self.reads.program(hash).await, Ok(Some(_)))
                {
                    return Err(self.objects.lacks(format!("program {hash}")));
                }
            }
            Ok(())
        };
        match timeout(wait, trying).await {
            Ok(tried) => tried,
            Err(_) => Err(self.objects.unusable(&format!("it does not answer within {wait:?}"))),
        }
    }

    /// Leaves a mark of this leader in its place of large results, by which followers notice that theirs is another one.
    ///
    /// # Errors
    /// The mark could not be written.
    pub async fn mark_place_of_results(&self) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.objects.mark_epoch(self.epoch()).await
    }

    /// Whether the place of large results has the mark of the leader of an epoch.
    ///
    /// # Errors
    /// The place could not be read.
    pub async fn is_place_of_leader(&self, epoch: Epoch) -> Result<bool, ReadError> {
        self.objects.has_mark(epoch).await
    }

    /// Whether a complete output exists.
    ///
    /// # Errors
    /// The object store could not be read.
    pub async fn has_output(&self, job: JobId, task: u64, object: &OutputObject) -> Result<bool, ReadError> {
        self.objects.has_output(job, task, object).await
    }
}

/// The present row of a result whose object could not be read: a row is deleted or replaced before its object is, so that a read
/// may find the one and not the other.
///
/// # Errors
/// The given error, if the row is the same as before, or the object is not the matter.
async fn row_now(
    error: ReadError,
    before: Option<ResultRow>,
    reading: Reading<'_, Option<ResultRow>>,
) -> Result<Option<ResultRow>, ReadError> {
    if !matches!(error, ReadError::Corrupt { .. }) {
        return Err(error);
    }
    match reading.await {
        Ok(now) if now != before => Ok(now),
        Ok(_) | Err(_) => Err(error),
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests {
    use model::JobState;

    use super::*;
    use crate::backend::ResultRowBody;
    use crate::memory::Memory;
    use crate::objects::INLINE_BYTES;
    use crate::retention::Retention;
    use crate::suite::helpers::*;

    #[tokio::test]
    async fn a_result_without_its_object_is_damaged_unless_it_was_forgotten_while_it_was_read() {
        let all_go = Retention { max_age: Duration::MAX, max_bytes: 0 };
        let store = Memory::new().store(all_go).expect("a thread");
        store.submit(range_job(1, 1)).await.expect("room");
        store.record(completed(id(1), 0..1, 1));
        let large = raw(&format!("\"{}\"", "x".repeat(INLINE_BYTES)));
        let result = store.put_result(id(1), large).await.expect("room");
        store.commit(ended_with(id(1), JobState::Succeeded, result, at(1))).await.expect("room");
        let row = store.reads.result(id(1)).await.expect("readable");
        let Some(ResultRow { body: ResultRowBody::Object { name, .. }, .. }) = &row else { panic!("{row:?}") };
        store.objects.delete(name).await.expect("it is there");
        assert!(matches!(store.result(id(1)).await, Err(ReadError::Corrupt { .. })));
        assert!(matches!(store.result_stream(id(1)).await, Err(ReadError::Corrupt { .. })));

        assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
        let error = store.objects.fetch(row.clone()).await.expect_err("the object is gone");
        assert_eq!(row_now(error, row, store.reads.result(id(1))).await, Ok(None));
    }
}
