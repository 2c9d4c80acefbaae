//! How a command fails: one line on stderr and an exit code that scripts can rely on.

use std::process::ExitCode;

use api::{Job, client};
use model::{JobId, JobState};

use crate::printable::printable;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("cannot reach the grid at {url}: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Canceled(String),
    #[error("{0}")]
    NotYet(String),
}

impl Failure {
    /// Prints the failure; answers the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", printable(&self.to_string()));
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Canceled(_) => 4,
            Self::NotYet(_) => 5,
        })
    }

    /// What the states of jobs that are over mean for who waited: a failure outweighs a cancellation.
    pub(crate) fn from_jobs(jobs: &[Job]) -> Option<Self> {
        let bad: Vec<&Job> = jobs.iter().filter(|job| job.state != JobState::Succeeded).collect();
        let message = match bad.as_slice() {
            [] => return None,
            [job] => ending(job),
            [first, ..] => format!("{} of {} jobs did not succeed; {}", bad.len(), jobs.len(), ending(first)),
        };
        let failed = bad.iter().any(|job| job.state == JobState::Failed);
        Some(if failed { Self::Failed(message) } else { Self::Canceled(message) })
    }

    /// One failure of many: the exit code is the first one's, unless the grid went away.
    pub(crate) fn first_of(mut failures: Vec<(JobId, Self)>) -> Option<Self> {
        if let Some((_, unreachable)) = failures.pop_if(|(_, last)| matches!(last, Self::Unreachable { .. })) {
            return Some(unreachable);
        }
        let count = failures.len();
        let (id, first) = (count > 0).then(|| failures.swap_remove(0))?;
        let tell = |message: String| match count {
            1 => message,
            _ => format!("{count} jobs could not be changed; {id}: {message}"),
        };
        Some(match first {
            Self::Usage(message) => Self::Usage(tell(message)),
            Self::Failed(message) => Self::Failed(tell(message)),
            Self::Canceled(message) => Self::Canceled(tell(message)),
            Self::NotYet(message) => Self::NotYet(tell(message)),
            unreachable @ Self::Unreachable { .. } => unreachable,
        })
    }
}

fn ending(job: &Job) -> String {
    let ended = if job.state == JobState::Canceled { "was canceled" } else { job.state.as_str() };
    match &job.error {
        Some(error) => format!("job {} {ended}: {error}", job.id),
        None => format!("job {} {ended}", job.id),
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Unreachable { url, source } => {
                Self::Unreachable { url: url.to_string(), cause: root_cause(&source) }
            }
            client::Error::Refused { status, detail } if status.is_client_error() => Self::Usage(detail),
            client::Error::Refused { detail, .. } => Self::Failed(detail),
            client::Error::NoResult { state, detail } => match state {
                JobState::Canceled => Self::Canceled(detail),
                JobState::Succeeded | JobState::Failed => Self::Failed(detail),
                JobState::Queued | JobState::Running | JobState::Paused => Self::NotYet(detail),
            },
            error @ (client::Error::Start(_) | client::Error::Answer { .. }) => anyhow::Error::from(error).into(),
        }
    }
}

/// The error's innermost source says what happened; the outer ones repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<&clap::Error> for Failure {
    /// In one line: clap writes the error first, over some lines, then a blank line and its hints.
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        Self::Usage(format!("{} (see --help)", message.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}
