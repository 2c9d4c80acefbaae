//! Results and outputs.

use std::sync::Arc;
use std::time::Duration;

use model::{Composition, JobId, OutputObject, ProgramOutput};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::Store;
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
        self.objects.fetch(self.reads.result(job).await?).await
    }

    /// The newest result under an output's name, as a whole.
    ///
    /// # Errors
    /// The result could not be read, or has another hash.
    pub async fn result_by_name(&self, output: &str) -> Result<Option<StoredResult>, ReadError> {
        self.objects.fetch(self.reads.result_by_name(output).await?).await
    }

    /// A job's result in pieces.
    ///
    /// # Errors
    /// The result could not be found.
    pub async fn result_stream(&self, job: JobId) -> Result<Option<ResultStream>, ReadError> {
        self.objects.stream(self.reads.result(job).await?).await
    }

    /// The newest result under an output's name in pieces.
    ///
    /// # Errors
    /// The result could not be found.
    pub async fn result_stream_by_name(&self, output: &str) -> Result<Option<ResultStream>, ReadError> {
        self.objects.stream(self.reads.result_by_name(output).await?).await
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
