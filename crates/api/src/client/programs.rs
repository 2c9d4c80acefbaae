//! Requests about programs and their stderr.

use std::time::Duration;

use model::{JobId, ProgramHash};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};

use super::{Client, Error, Query};
use crate::{LogPage, Program, ProgramNames, ProgramPage};

/// Bound on the time to send and store a program.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(10);

impl Client {
    /// Stores a program under its hash.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn put_program(&self, hash: ProgramHash, bytes: impl Into<Body>) -> Result<Program, Error> {
        let uploading = self.for_uploads()?;
        let request = uploading.request(Method::PUT, &["v1", "programs", &hash.to_string()]);
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(bytes).timeout(UPLOAD_TIMEOUT);
        uploading.read(uploading.send(request).await?).await
    }

    /// A page of the stored programs.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn program_page(&self, query: &Query) -> Result<ProgramPage, Error> {
        self.get(&["v1", "programs"], query).await
    }

    /// A stored program.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn program(&self, hash: ProgramHash) -> Result<Program, Error> {
        self.get(&["v1", "programs", &hash.to_string()], &Query::new()).await
    }

    /// Deletes a stored program.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses: a job needs the program.
    pub async fn delete_program(&self, hash: ProgramHash) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &["v1", "programs", &hash.to_string()]);
        self.send(request.timeout(super::ANSWER_TIMEOUT)).await.map(|_| ())
    }

    /// Names of the programs that the present workers can run.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn program_names(&self) -> Result<ProgramNames, Error> {
        self.get(&["v1", "programs", "names"], &Query::new()).await
    }

    /// The stderr of a job's programs.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn logs(&self, id: JobId, query: &Query) -> Result<LogPage, Error> {
        self.get(&["v1", "jobs", &id.to_string(), "logs"], query).await
    }
}
