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
use tokio::time::Instant;

use crate::arguments::ResultOf;
use crate::failure::{Failure, INTERRUPTED};
use crate::print::unwritable;

/// Symbolic links that are followed: as many as Linux follows.
const MAX_LINKS: u32 = 40;

/// Longest wait of one request; a longer wait takes several requests.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

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
        return grid.task_result(arguments.id, task).await.map_err(Failure::from);
    }
    let deadline = Instant::now() + arguments.wait.unwrap_or_default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match grid.result(arguments.id, left.min(LONGEST_WAIT)).await.map_err(Failure::from) {
            Err(Failure::NotYet(_)) if left > LONGEST_WAIT => (),
            answer => return answer,
        }
    }
}

/// Copies an answer's body; answers its last byte.
async fn copy(
    grid: &Client,
    mut response: Response,
    target: &mut impl Write,
    unwritable: impl Fn(io::Error) -> Failure,
) -> Result<Option<u8>, Failure> {
    let mut last = None;
    while let Some(part) = response.chunk().await.map_err(|error| grid.unreachable(error))? {
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
        // A new file gets what the umask leaves.
        let file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
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
