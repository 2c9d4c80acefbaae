//! Files that are read again when they change. A file is looked at each second rather than watched: that also sees a
//! Kubernetes volume, which is exchanged by a link to another directory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::thread;
use std::time::Duration;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What shows that a file is another: its place and inode, its length and when it was written or renamed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Files and how they were when they were read last.
#[derive(Debug)]
pub(crate) struct Stamps {
    paths: Vec<PathBuf>,
    /// None for a file that was not there.
    last: Vec<Option<Stamp>>,
}

impl Stamps {
    /// Takes the files' stamps; to be called before they are read, so that a change in between is seen.
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

/// Calls `reload` when a file changed, on a thread of its own, until `owner` is gone.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn watch<T: Send + Sync + 'static>(
    mut stamps: Stamps,
    owner: Weak<T>,
    reload: impl Fn(&T) + Send + 'static,
) -> io::Result<()> {
    let look = move || {
        loop {
            thread::sleep(LOOK_INTERVAL);
            let Some(owner) = owner.upgrade() else { return };
            if stamps.have_changed() {
                reload(&owner);
            }
        }
    };
    thread::Builder::new().name("reload".to_owned()).spawn(look).map(drop)
}
