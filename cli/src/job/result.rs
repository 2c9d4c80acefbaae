//! `divvy job result`.

use std::fs::{self, File, Permissions};
use std::io::{self, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use reqwest::Response;
use tempfile::NamedTempFile;
use tokio::time::{Instant, timeout};

use crate::arguments::ResultOf;
use crate::failure::{Failure, INTERRUPTED};
use crate::patience::patiently;
use crate::print::unwritable;

/// Symbolic links that are followed: as many as Linux follows.
const MAX_LINKS: u32 = 40;

/// Longest wait of one request; a longer wait takes several requests.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Silence after which the grid counts as gone, beyond the time that it was asked to wait: a halted coordinator keeps its
/// connections.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(grid: &Client, arguments: &ResultOf) -> Result<(), Failure> {
    let response = ask(grid, arguments).await?;
    let Some(path) = &arguments.file else {
        let last = copy(grid, response, &mut stdout(), |error| unwritable(&error)).await?;
        // A task's output is printed as it is.
        return if last == Some(b'\n') || arguments.task.is_some() {
            Ok(())
        } else {
            stdout().write_all(b"\n").map_err(|error| unwritable(&error))
        };
    };
    let unwritable = |error: io::Error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            crate::print::unwritable(&error)
        } else {
            Failure::Failed(format!("cannot write {}: {error}", path.display()))
        }
    };
    if let Some(mut open) = open_as_it_is(path).map_err(unwritable)? {
        return copy(grid, response, &mut open, unwritable).await.map(drop);
    }
    // Caught before there is a part of a file, which a signal would leave behind.
    let stop = service::shutdown_signal().context("catch signals")?;
    let mut part = Part::create(path).map_err(unwritable)?;
    tokio::select! {
        copied = copy(grid, response, &mut part.file, unwritable) => copied.map(drop)?,
        () = stop => return Err(Failure::Quiet(INTERRUPTED)),
    }
    part.keep().map_err(unwritable)
}

async fn ask(grid: &Client, arguments: &ResultOf) -> Result<Response, Failure> {
    if let Some(task) = arguments.task {
        let asking = patiently(async || grid.task_result(arguments.id, task).await);
        return Ok(within(SILENCE_TIMEOUT, grid, asking).await??);
    }
    let deadline = Instant::now() + arguments.wait.unwrap_or_default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = left.min(LONGEST_WAIT);
        let asking = patiently(async || grid.result(arguments.id, wait).await);
        let answer = within(wait + SILENCE_TIMEOUT, grid, asking).await?;
        match answer.map_err(Failure::from) {
            Err(Failure::NotYet(_)) if left > LONGEST_WAIT => (),
            answer => return answer,
        }
    }
}

/// The output of a future that waits for the grid. Fails if it takes longer than `limit`.
async fn within<T>(limit: Duration, grid: &Client, output: impl Future<Output = T>) -> Result<T, Failure> {
    let silent = |_| Failure::Unreachable { url: grid.url().to_string(), cause: "it does not answer".to_owned() };
    timeout(limit, output).await.map_err(silent)
}

/// Copies an answer's body; answers its last byte.
async fn copy(
    grid: &Client,
    mut response: Response,
    target: &mut impl Write,
    unwritable: impl Fn(io::Error) -> Failure,
) -> Result<Option<u8>, Failure> {
    let mut last = None;
    while let Some(part) =
        within(SILENCE_TIMEOUT, grid, response.chunk()).await?.map_err(|error| grid.unreachable(error))?
    {
        target.write_all(&part).map_err(&unwritable)?;
        last = part.last().copied().or(last);
    }
    target.flush().map_err(&unwritable)?;
    Ok(last)
}

/// A device, a pipe or a descriptor, which cannot be replaced by a file.
fn open_as_it_is(path: &Path) -> io::Result<Option<File>> {
    if let Some(open) = open_descriptor(path)? {
        return Ok(Some(open));
    }
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => File::options().write(true).open(path).map(Some),
        _ => Ok(None),
    }
}

/// A file that replaces another one as a whole, or not at all.
struct Part {
    file: NamedTempFile,
    path: PathBuf,
}

impl Part {
    fn create(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::metadata(folder)?;
        // A new file gets what the umask leaves. The error names the file that is made, which no user knows.
        let made = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        let file = made.map_err(|error| io::Error::from(error.kind()))?;
        if let Ok(there) = fs::metadata(&path) {
            file.as_file().set_permissions(there.permissions())?;
        }
        Ok(Self { file, path })
    }

    fn keep(self) -> io::Result<()> {
        self.file.persist(self.path)?;
        Ok(())
    }
}

/// The open file that `path` names when it leads to a descriptor of a process, such as `/dev/stdout` or `/dev/fd/3`. What
/// such a path resolves to is a file that someone else has opened, perhaps to append: it must not be replaced.
fn open_descriptor(path: &Path) -> io::Result<Option<File>> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let (Some(name), Some(Ok(folder))) = (path.file_name(), path.parent().map(fs::canonicalize)) else {
            return Ok(None);
        };
        let at = folder.join(name);
        if folder.starts_with("/proc") && folder.ends_with("fd") {
            let own = folder == Path::new(&format!("/proc/{}/fd", std::process::id()));
            // A copy of the descriptor keeps its position and its O_APPEND; a socket cannot be opened by its path at all.
            return match name.to_str() {
                Some("1") if own => Ok(Some(stdout().as_fd().try_clone_to_owned()?.into())),
                Some("2") if own => Ok(Some(stderr().as_fd().try_clone_to_owned()?.into())),
                _ => File::options().append(true).open(at).map(Some),
            };
        }
        match fs::read_link(&at) {
            Ok(link) => path = folder.join(link),
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grid_that_stays_silent_is_unreachable() {
        let grid = Client::new(&"http://127.0.0.1:1".parse().expect("a URL")).expect("a client");
        let silent = within(Duration::ZERO, &grid, std::future::pending::<()>()).await;
        assert!(matches!(silent, Err(Failure::Unreachable { cause, .. }) if cause == "it does not answer"));
        assert!(matches!(within(Duration::ZERO, &grid, std::future::ready(7)).await, Ok(7)));
    }
}
