//! Failures of commands: one line on stderr and a stable exit code.

use std::process::ExitCode;

use api::{Job, client};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use model::{JobId, JobState};

use crate::print::tell;
use crate::printable::printable;

/// The status of a request without a valid token.
const UNAUTHORIZED: u16 = 401;

/// The status of a request for something that is not there.
const NOT_FOUND: u16 = 404;

/// The beginning of a detail that names a path which the port does not have.
const NO_SUCH_PATH: &str = "there is nothing at ";

/// The exit code of a program that SIGINT has ended, as a shell reports it.
pub(crate) const INTERRUPTED: u8 = 128 + 2;

/// The reason why a command failed.
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
    /// Ends with this exit code and no message: the reader of stdout or the terminal is gone.
    #[error("the output has been closed")]
    Quiet(u8),
}

impl Failure {
    /// Prints the failure; answers the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self, Self::Quiet(_)) {
            tell(&format!("error: {}", printable(&self.to_string())));
        }
        ExitCode::from(match self {
            Self::Quiet(code) => *code,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Canceled(_) => 4,
            Self::NotYet(_) => 5,
        })
    }

    /// The failure of a wait for jobs that are over, by their states: a failure outweighs a cancellation.
    pub(crate) fn from_jobs(jobs: &[Job]) -> Option<Self> {
        let bad: Vec<&Job> = jobs.iter().filter(|job| job.state != JobState::Succeeded).collect();
        let failed = bad.iter().find(|job| job.state == JobState::Failed);
        let told = failed.or(bad.first())?;
        let message = match bad.len() {
            1 => ending(told),
            count => format!("{count} of {} jobs did not succeed; {}", jobs.len(), ending(told)),
        };
        Some(if failed.is_some() { Self::Failed(message) } else { Self::Canceled(message) })
    }

    /// The failure that stands for several: the first one's exit code applies, unless the grid became unreachable.
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
            other @ (Self::Unreachable { .. } | Self::Quiet(_)) => other,
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
                Self::Unreachable { url: url.to_string(), cause: with_scheme(root_cause(&source)) }
            }
            client::Error::Refused { status, detail } if status.as_u16() == UNAUTHORIZED => {
                Self::Usage(format!("{detail}: give one in DIVVY_TOKEN"))
            }
            client::Error::Refused { status, detail }
                if status.as_u16() == NOT_FOUND && detail.starts_with(NO_SUCH_PATH) =>
            {
                Self::Usage(format!("{detail}: give the URL of a grid's public port"))
            }
            client::Error::Refused { status, detail } if is_callers_fault(status.as_u16()) => Self::Usage(detail),
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

/// Whether the same request would be refused again.
fn is_callers_fault(status: u16) -> bool {
    const REQUEST_TIMEOUT: u16 = 408;
    const TOO_MANY_REQUESTS: u16 = 429;
    (400..500).contains(&status) && !matches!(status, REQUEST_TIMEOUT | TOO_MANY_REQUESTS)
}

/// The error's innermost source says what happened; the outer ones repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A cause, with a hint where the URL has the wrong scheme: hyper names the version where a port answers with a TLS alert, and
/// rustls the content type where it answers in HTTP.
fn with_scheme(cause: String) -> String {
    if cause.contains("invalid HTTP version") {
        format!("{cause}; if the port speaks TLS, its URL begins with https://")
    } else if cause.contains("InvalidContentType") {
        format!("{cause}; if the port speaks no TLS, its URL begins with http://")
    } else {
        cause
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<&clap::Error> for Failure {
    /// An error of clap in one line: clap writes the error first, over some lines, then its tips and a usage, each after a blank
    /// line.
    fn from(error: &clap::Error) -> Self {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = error.to_string();
        let mut paragraphs = text.split("\n\n");
        let mut message = one_line(paragraphs.next().unwrap_or_default().trim_start_matches("error: "));
        if let (Some(ContextValue::String(option)), Some(cause)) =
            (error.get(ContextKind::InvalidArg), std::error::Error::source(error))
            && option.ends_with("<URL>")
        {
            // The value may hold a password.
            message = format!("invalid value for '{option}': {cause}");
        }
        if let (ErrorKind::MissingSubcommand, Some(ContextValue::Strings(commands))) =
            (error.kind(), error.get(ContextKind::ValidSubcommand))
        {
            message = format!("give a command: {}", commands.join(", "));
        }
        let tips = paragraphs.filter_map(|paragraph| paragraph.trim_start().strip_prefix("tip: "));
        tips.for_each(|tip| message.push_str(&format!("; {}", one_line(tip))));
        Self::Usage(format!("{message} (see --help)"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    use api::client::Client;
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    /// A server that answers the first bytes of a client with these, whatever they are.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            assert!(client.read(&mut [0; 4096]).expect("a request") > 0);
            client.write_all(answer).expect("a reader");
            let _ = client.read_to_end(&mut Vec::new());
        });
        address
    }

    #[tokio::test]
    async fn a_url_of_the_wrong_scheme_is_told_from_a_grid_that_is_away() {
        // The alert of a TLS server that has got HTTP, and the answer of an HTTP server that has got TLS.
        let cases: [(&str, &'static [u8], &str); 2] = [
            ("http", &[21, 3, 1, 0, 2, 2, 70], "if the port speaks TLS, its URL begins with https://"),
            ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "if the port speaks no TLS, its URL begins with http://"),
        ];
        for (scheme, answer, way) in cases {
            let url = format!("{scheme}://{}", server(answer)).parse().expect("a URL");
            let grid = Client::new(&url).expect("a client");
            let Err(error) = grid.workers().await else { panic!("{scheme}: there is no grid") };
            let failure = Failure::from(error);
            assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
            assert!(failure.to_string().ends_with(way), "{failure}");
        }
    }

    fn message(line: &str) -> String {
        let error = Arguments::try_parse_from(line.split(' ')).expect_err(line);
        Failure::from(&error).to_string()
    }

    #[tokio::test]
    async fn a_port_that_is_not_the_public_one_is_told_from_something_that_is_not_there() {
        const ANSWER: &[u8] =
            b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: 74\r\n\r\n\
            {\"title\":\"Not Found\",\"status\":404,\"detail\":\"there is nothing at /workers\"}";
        let url = format!("http://{}", server(ANSWER)).parse().expect("a URL");
        let grid = Client::new(&url).expect("a client");
        let Err(error) = grid.workers().await else { panic!("there is no grid") };
        let failure = Failure::from(error);
        assert!(matches!(failure, Failure::Usage(_)), "{failure}");
        assert_eq!(failure.to_string(), "there is nothing at /workers: give the URL of a grid's public port");
    }

    #[test]
    fn missing_commands_are_listed_and_misspelt_ones_are_corrected() {
        for (line, start) in [
            ("divvy", "give a command: sum-of-primes, job, "),
            ("divvy job", "give a command: submit, list, "),
            ("divvy worker", "give a command: list"),
            ("divvy job lst", "unrecognized subcommand 'lst'; a similar subcommand exists: 'list'"),
            ("divvy simulat", "unrecognized subcommand 'simulat'; "),
            (
                "divvy job list --stat paused",
                "unexpected argument '--stat' found; a similar argument exists: '--state'",
            ),
        ] {
            let message = message(line);
            assert!(message.starts_with(start) && !message.contains('\n'), "{line}: {message}");
        }
    }

    #[test]
    fn a_url_that_is_refused_is_not_repeated_since_it_may_hold_a_password() {
        for line in [
            "divvy job list --coordinator http://me:hush@host",
            "divvy sum-of-primes 1 2 --coordinator http://host/?hush",
            "divvy up --store-url mysql://me:hush@host/x",
        ] {
            let message = message(line);
            assert!(message.contains("invalid value for '--") && message.contains("<URL>'"), "{line}: {message}");
            assert!(!message.contains("hush"), "{line}: {message}");
        }
    }

    #[test]
    fn numbers_out_of_their_bounds_are_refused_in_plain_words() {
        for (line, bounds) in [
            ("divvy job list --limit 0", "from 1 to 1000000"),
            ("divvy job tasks 0190a5b0-0000-7000-8000-000000000001 --limit x", "from 1 to 1000000"),
            ("divvy up --workers 0", "from 1 to 256"),
            ("divvy up --workers 100000", "from 1 to 256"),
            ("divvy up --python-workers 0", "from 1 to 256"),
            ("divvy up --python-workers 100000", "from 1 to 256"),
            ("divvy up --port 65536", "from 0 to 65535"),
            ("divvy up --internal-port x", "from 0 to 65535"),
            ("divvy sum-of-primes 1 2 --workers 257", "from 1 to 256"),
            ("divvy simulate --tasks 0 --seconds 1 --workers 1", "from 1 to 1000000"),
            ("divvy simulate --tasks 1 --seconds -1 --workers 1", "from 0 to 3600"),
            ("divvy simulate --tasks 1 --seconds 1 --workers 1001", "from 1 to 1000"),
            ("divvy job submit sleep --seconds 86401", "from 0 to 86400"),
            ("divvy job submit sleep --seconds 1 --fail-rate -0.5", "from 0 to 1"),
            ("divvy job submit sleep --seconds 1 --tasks 1e8", "from 1 to 10000000"),
            ("divvy job submit sleep --seconds 1 --max-attempts 101", "from 1 to 100"),
            ("divvy job submit sleep --seconds 1 --require-cpus many", "from 1 to 65536"),
            ("divvy job submit sleep --seconds 1 --priority -1", "from 1 to 9"),
            ("divvy job submit sleep --seconds 1 --require-memory -1", "give a size in bytes"),
            ("divvy job submit sleep --seconds 1 --verify-share -0.5", "above 0 and up to 1"),
            ("divvy job submit program --tasks-per-lease -1", "from 1 to 1000"),
            ("divvy job submit program --step -1", "from 0 to 18446744073709551615"),
            ("divvy job logs 0190a5b0-0000-7000-8000-000000000001 --task -1", "from 0 to 18446744073709551615"),
            ("divvy program run program.wasm --memory -1", "give a size in bytes"),
            ("divvy simulate --tasks 1 --seconds 1 --workers 1 --priority -1", "from 1 to 9"),
            ("divvy job events --after -1", "from 0 to 18446744073709551615"),
            ("divvy job result 0190a5b0-0000-7000-8000-000000000001 --wait 9223372036854775807s", "136 years"),
            ("divvy job result 0190a5b0-0000-7000-8000-000000000001 --wait -1s", "give a duration such as 30s"),
            ("divvy job result 0190a5b0-0000-7000-8000-000000000001 --task -1", "from 0 to 18446744073709551615"),
            ("divvy job submit sleep --seconds 1 --job-timeout -5s", "give a duration such as 30s"),
            ("divvy up --host nope", "give an IP address such as 127.0.0.1"),
            ("divvy job submit sleep --seconds 1 --id 1234", "give a UUID such as"),
            ("divvy job submit sleep --seconds 1 --idempotency-key ", "1 to 256 printable characters"),
            ("divvy job submit sleep --seconds 1 --idempotency-key two\nlines", "1 to 256 printable characters"),
            ("divvy job submit sleep --seconds 1 --idempotency-key schlüssel", "1 to 256 printable characters"),
        ] {
            let message = message(line);
            assert!(message.contains(bounds), "{line}: {message}");
        }
    }
}
