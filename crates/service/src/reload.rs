//! Reads files again when they change. Each file is checked once a second rather than watched, which also notices a Kubernetes
//! volume, whose link is moved to another directory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::thread;
use std::time::Duration;

/// Interval at which files are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Properties that change with a file: its device and inode, its length and the times of its last write and rename.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Files and their stamps at the last reading.
#[derive(Debug)]
pub(crate) struct Stamps {
    paths: Vec<PathBuf>,
    /// Stamps; `None` for a file that did not exist.
    last: Vec<Option<Stamp>>,
}

impl Stamps {
    /// Takes the files' stamps; to be called before the files are read, so that a change in between is noticed.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        let last = paths.iter().map(|path| stamp(path)).collect();
        Self { paths, last }
    }

    /// Whether a file changed since the last call.
    pub(crate) fn have_changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let changed = now != self.last;
        self.last = now;
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let of = |file: Metadata| {
        (file.dev(), file.ino(), file.len(), (file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()))
    };
    fs::metadata(path).ok().map(of)
}

/// Calls `reload` when a file changed, on a thread of its own, until `owner` is gone. A reload that failed is repeated at each
/// check, since reading may fail for a while without any change of the file, such as while too many files are open. `complain`
/// gets each error that differs from the one before.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn watch<T: Send + Sync + 'static>(
    mut stamps: Stamps,
    owner: Weak<T>,
    reload: impl Fn(&T) -> anyhow::Result<()> + Send + 'static,
    complain: impl Fn(&T, &str) + Send + 'static,
) -> io::Result<()> {
    let looking = move || {
        let mut failure: Option<String> = None;
        loop {
            thread::sleep(LOOK_INTERVAL);
            let Some(owner) = owner.upgrade() else { return };
            failure = look(&mut stamps, failure.as_deref(), || reload(&owner), |error| complain(&owner, error));
        }
    };
    thread::Builder::new().name("reload".to_owned()).spawn(looking).map(drop)
}

/// Checks once, after a check that ended with `failure`. Returns the reason why the files cannot be used, if there is one.
fn look(
    stamps: &mut Stamps,
    failure: Option<&str>,
    reload: impl FnOnce() -> anyhow::Result<()>,
    complain: impl FnOnce(&str),
) -> Option<String> {
    let have_changed = stamps.have_changed();
    if !have_changed && failure.is_none() {
        return None;
    }
    let error = format!("{:#}", reload().err()?);
    if have_changed || failure != Some(error.as_str()) {
        complain(&error);
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_read_again_although_it_does_not_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, "first").expect("written");
        let mut stamps = Stamps::of([path.clone()]);
        let (reads, complaints, is_broken) = (Cell::new(0), Cell::new(0), Cell::new(true));
        let reload = || {
            reads.set(reads.get() + 1);
            if is_broken.get() {
                bail!("too many open files");
            }
            Ok(())
        };
        let complain = |_: &str| complaints.set(complaints.get() + 1);

        assert_eq!(look(&mut stamps, None, reload, complain), None);
        assert_eq!((reads.get(), complaints.get()), (0, 0), "nothing has changed");
        fs::write(&path, "second, which is longer").expect("written");
        let failure = look(&mut stamps, None, reload, complain);
        assert_eq!(failure.as_deref(), Some("too many open files"));
        let failure = look(&mut stamps, failure.as_deref(), reload, complain);
        assert_eq!((reads.get(), complaints.get()), (2, 1), "it is read at each look, and told once");
        is_broken.set(false);
        let failure = look(&mut stamps, failure.as_deref(), reload, complain);
        assert_eq!((failure, reads.get()), (None, 3));
        assert_eq!(look(&mut stamps, None, reload, complain), None);
        assert_eq!((reads.get(), complaints.get()), (3, 1));
    }
}
