//! Long outputs, which workers upload as objects before the outcomes that refer to them.

use futures_util::{StreamExt, TryStreamExt, stream};
use model::{AttemptId, JobId, JobKind, OutputObject};
use serde_json::value::RawValue;
use store::{ReadError, Store};

use crate::clock::now;
use crate::programs::is_program;
use crate::term::Term;

/// Objects of one outcome that are checked at the same time.
const CONCURRENT_LOOKS: usize = 16;

/// The reason why a well-formed outcome does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UncountedError {
    /// The worker has not uploaded an object that the outcome refers to.
    #[error("{0}")]
    Absent(String),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An outcome before it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported<'a> {
    pub(crate) job: JobId,
    pub(crate) kind: JobKind,
    pub(crate) attempt: AttemptId,
    /// The first task of the outcome.
    pub(crate) first: u64,
    pub(crate) results: &'a [Box<RawValue>],
}

impl Reported<'_> {
    /// Checks that the objects exist which the results refer to: an outcome without them must not count.
    pub(crate) async fn demand_objects(self, store: &Store) -> Result<(), UncountedError> {
        if !is_program(self.kind) {
            return Ok(());
        }
        let referred = (self.first..).zip(self.results);
        let objects: Vec<_> =
            referred.filter_map(|(task, result)| Some((task, OutputObject::of(result.get())?))).collect();
        let look = async |(task, object): (u64, OutputObject)| {
            if object.attempt != self.attempt {
                return Err(UncountedError::Absent(format!("the output of task {task} is of another attempt")));
            }
            if store.has_output(self.job, task, &object).await? {
                return Ok(());
            }
            Err(UncountedError::Absent(format!("the output of task {task} was not handed in")))
        };
        stream::iter(objects).map(look).buffer_unordered(CONCURRENT_LOOKS).try_collect().await
    }
}

/// Whether an attempt holds the lease of a task.
pub(crate) fn is_leased(term: &Term, job: JobId, attempt: AttemptId, task: u64) -> bool {
    let lease = term.driver.view(|engine| engine.lease(attempt, now()));
    lease.is_some_and(|(of, tasks, _)| of == job && tasks.contains(&task)) && term.trust.holds()
}
