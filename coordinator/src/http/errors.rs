//! Maps the errors of the store, the jobs and the engine to the API's errors.

use service::ApiError;
use store::{ReadError, SubmitError, WriteError};

use crate::accepting::AcceptError;
use crate::jobs::ChangeError;
use crate::pull_workers::ClaimError;

pub(super) fn from_read(error: ReadError) -> ApiError {
    match error {
        ReadError::TooManyTags { .. } => {
            ApiError::InvalidField { field: "tag", message: format!("is given too often: {error}") }
        }
        ReadError::Unavailable(_) => ApiError::Unavailable(error.to_string()),
        ReadError::Corrupt { .. } | ReadError::Unreadable { .. } | ReadError::NoSuchTasks { .. } => {
            ApiError::Internal(error.to_string())
        }
    }
}

pub(super) fn from_write(error: WriteError) -> ApiError {
    match error {
        WriteError::Closed => ApiError::Unavailable("the coordinator is stopping".to_owned()),
        WriteError::Following | WriteError::Superseded { .. } => ApiError::NotLeading,
        WriteError::InDoubt | WriteError::Unavailable(_) => ApiError::Unavailable(error.to_string()),
        WriteError::Refused(_) => ApiError::Conflict(error.to_string()),
        WriteError::Full(_)
        | WriteError::ReadOnly(_)
        | WriteError::Replaced(_)
        | WriteError::Corrupt(_)
        | WriteError::Results(_) => ApiError::Storage(error.to_string()),
    }
}

pub(super) fn from_accept(error: AcceptError) -> ApiError {
    match error {
        AcceptError::Invalid(invalid) => from_invalid(invalid),
        AcceptError::Store(SubmitError::Mismatch { .. }) => ApiError::Mismatch(error.to_string()),
        AcceptError::Store(SubmitError::Write(error)) => from_write(error),
        AcceptError::Read(error) => from_read(error),
    }
}

pub(super) fn from_change(error: ChangeError) -> ApiError {
    match error {
        ChangeError::Unknown(_) | ChangeError::NoSuchTask { .. } => ApiError::Unknown(error.to_string()),
        ChangeError::Over { .. }
        | ChangeError::SimulationOver
        | ChangeError::ProgramGone(_)
        | ChangeError::NotSkippable(_) => ApiError::Conflict(error.to_string()),
        ChangeError::Write(error) => from_write(error),
        ChangeError::Read(error) => from_read(error),
    }
}

pub(super) fn from_claim(error: ClaimError) -> ApiError {
    match error {
        ClaimError::TooManyWorkers => ApiError::Unavailable(error.to_string()),
        ClaimError::NameTaken(_) => ApiError::Conflict(error.to_string()),
    }
}

pub(crate) fn from_invalid(error: model::InvalidJob) -> ApiError {
    ApiError::InvalidField { field: error.field, message: error.message }
}
