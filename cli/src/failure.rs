//! How a command fails: one line on stderr and an exit code that scripts can rely on.

use std::process::ExitCode;

use reqwest::StatusCode;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("cannot reach the grid at {url}: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// Prints the failure; answers the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
        })
    }

    /// What a problem that the grid answered means for who asked.
    pub(crate) fn from_problem(status: StatusCode, detail: String) -> Self {
        if status.is_client_error() { Self::Usage(detail) } else { Self::Failed(detail) }
    }
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
