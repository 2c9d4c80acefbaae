//! Compiled modules on disk, of this crate's own making only.
//!
//! Loading compiled code is running it, so a file counts only if this user owns it and nobody else can write it, and if
//! its checksum covers what it is for: the program, the engine's version and settings, the code. All is read into memory
//! first and checked there, so a file that changes meanwhile changes nothing.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use super::engine::compatibility;
use super::load::Artifact;
use crate::failure::is_of_machine;
use crate::hash::ProgramHash;
use crate::scratch::private_directory;

const MAGIC: &[u8; 8] = b"divvycw1";
const CHECKSUM_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES;
const SUFFIX: &str = "compiled";

/// A directory of compiled modules.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    compatibility: [u8; 32],
    limit_bytes: u64,
}

impl Cache {
    pub(super) fn open(directory: &Path, engine: &Engine, limit_bytes: u64) -> io::Result<Self> {
        private_directory(directory)?;
        Ok(Self { directory: directory.to_owned(), compatibility: compatibility(engine), limit_bytes })
    }

    /// The compiled form of a program; a file that differs from its written form is removed and not returned.
    pub(super) fn get(&self, program: ProgramHash) -> Option<Artifact> {
        let path = self.path(program);
        match self.read(&path, program) {
            Ok(Some(found)) => Some(found),
            // The file may be as it was written.
            Err(error) if is_of_machine(&error) => None,
            Ok(None) | Err(_) => {
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps what a program was compiled to, and removes what was not used for longest if it gets too much. A cache that
    /// cannot be written costs time only.
    pub(super) fn put(&self, program: ProgramHash, artifact: &Artifact) -> io::Result<()> {
        // A cleaner of temporary files removes a directory that is not used for long.
        private_directory(&self.directory)?;
        let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(&self.directory)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.checksum(program, artifact.bytes()))?;
        file.write_all(artifact.bytes())?;
        file.persist(self.path(program))?;
        self.evict()
    }

    fn path(&self, program: ProgramHash) -> PathBuf {
        let engine: String = self.compatibility[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{program}-{engine}.{SUFFIX}"))
    }

    fn read(&self, path: &Path, program: ProgramHash) -> io::Result<Option<Artifact>> {
        // Opening a named pipe at this path would wait for a writer, and there may never be one.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags).open(path)?;
        let status = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        if !status.is_file() || status.uid() != own || status.mode() & 0o022 != 0 || status.len() > self.limit_bytes {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(head) = bytes.get(..HEAD_BYTES) else { return Ok(None) };
        let code = &bytes[HEAD_BYTES..];
        if head[..MAGIC.len()] != *MAGIC || head[MAGIC.len()..] != self.checksum(program, code) {
            return Ok(None);
        }
        // The time of last use orders the removals.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Ok(Some(Artifact::checked(bytes.split_off(HEAD_BYTES))))
    }

    fn checksum(&self, program: ProgramHash, code: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.compatibility);
        hasher.update(program.as_bytes());
        hasher.update(code);
        hasher.finalize().into()
    }

    /// Also removes modules of earlier versions of the engine, in their turn.
    fn evict(&self) -> io::Result<()> {
        let entries = fs::read_dir(&self.directory)?.flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let status = entry.metadata().ok()?;
                Some((status.modified().ok()?, status.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if sum <= self.limit_bytes {
                break;
            }
            // Another worker may have removed it.
            if fs::remove_file(path).is_ok() {
                sum -= bytes;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wasm::engine::engine;

    #[test]
    fn the_module_that_was_not_used_for_longest_makes_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let (bytes, engine) = (vec![7; 1000], engine().expect("an engine"));
        let room = 3 * (HEAD_BYTES + bytes.len()) as u64;
        let cache = Cache::open(&directory.path().join("compiled"), &engine, room).expect("a cache");
        let artifact = Artifact::fresh(bytes);
        let keep = |name: &str, age: u64| {
            let program = ProgramHash::of(name.as_bytes());
            cache.put(program, &artifact).expect("written");
            let file = File::options().append(true).open(cache.path(program)).expect("there");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("its owner");
            program
        };
        let [used, oldest, newer] = [("a", 300), ("b", 200), ("c", 100)].map(|(name, age)| keep(name, age));
        assert!(cache.get(used).is_some());
        let last = keep("d", 0);
        let kept = [used, oldest, newer, last].map(|program| cache.get(program).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }
}
