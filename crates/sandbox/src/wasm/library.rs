//! All modules that are ready to run, by hash. Each is compiled once, whoever asks first; failures are remembered.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Engine;

use super::Compile;
use super::cache::Cache;
use super::compile::compile;
use super::load::{Artifact, Linkers, Loaded};
use crate::failure::Reason;
use crate::hash::ProgramHash;
use crate::program::{Input, Source};
use crate::sandbox::CompileLimits;

/// Modules in memory. Beside modules that run, all of them take no more bytes than one compiled module may.
const MOST_LOADED: usize = 64;
/// Failures remembered, so that a job of a bad module costs one compilation.
const MOST_FAILED: usize = 1024;
/// A machine with less load may compile what met a limit of time.
const LIMIT_REMEMBERED: Duration = Duration::from_secs(600);
/// Longest time until a caller that waits for another one's compilation notices a stop.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Library {
    engine: Engine,
    linkers: Linkers,
    cache: Cache,
    limits: CompileLimits,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<ProgramHash, ModuleEntry>,
    uses: u64,
}

#[derive(Debug)]
enum ModuleEntry {
    /// Another caller is at it.
    Busy,
    Ready {
        loaded: Arc<Loaded>,
        bytes: u64,
        used: u64,
    },
    Failed {
        reason: Reason,
        until: Option<Instant>,
        used: u64,
    },
}

impl Library {
    pub(super) fn new(engine: Engine, cache: Cache, limits: CompileLimits) -> wasmtime::Result<Self> {
        let linkers = Linkers::new(&engine)?;
        Ok(Self { engine, linkers, cache, limits, shelf: Mutex::default(), changed: Condvar::new() })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The module of that hash, compiled by `run` if nobody has yet.
    pub(super) fn get(
        &self,
        program: ProgramHash,
        source: &Source,
        run: &Compile<'_>,
        stop: &AtomicBool,
    ) -> Result<Arc<Loaded>, Reason> {
        if let Some(known) = self.wait_for_known(program, stop) {
            return known;
        }
        let turn = Turn { library: self, program };
        let made = self.make(program, source, run, stop);
        turn.end(made)
    }

    /// The known outcome of compiling a module. `None`: the caller has to compile it.
    fn wait_for_known(&self, program: ProgramHash, stop: &AtomicBool) -> Option<Result<Arc<Loaded>, Reason>> {
        let mut shelf = self.lock();
        loop {
            shelf.uses += 1;
            let now = shelf.uses;
            match shelf.entries.get_mut(&program) {
                Some(ModuleEntry::Ready { loaded, used, .. }) => {
                    *used = now;
                    return Some(Ok(Arc::clone(loaded)));
                }
                Some(ModuleEntry::Failed { reason, until, used })
                    if until.is_none_or(|until| Instant::now() < until) =>
                {
                    *used = now;
                    return Some(Err(reason.clone()));
                }
                Some(ModuleEntry::Busy) => {
                    if stop.load(Ordering::Relaxed) {
                        return Some(Err(Reason::Canceled));
                    }
                    let waited = self.changed.wait_timeout(shelf, STOP_INTERVAL);
                    shelf = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(ModuleEntry::Failed { .. }) | None => {
                    shelf.entries.insert(program, ModuleEntry::Busy);
                    return None;
                }
            }
        }
    }

    fn make(
        &self,
        program: ProgramHash,
        source: &Source,
        run: &Compile<'_>,
        stop: &AtomicBool,
    ) -> Result<Made, Reason> {
        // Only what could be loaded is kept, so a failure here is the file's and not the module's.
        if let Some(artifact) = self.cache.get(program)
            && let Ok(loaded) = self.load(&artifact)
        {
            return Ok(loaded);
        }
        verify(program, source, self.limits.module_bytes)?;
        let module = match source {
            Source::Bytes(bytes) => Input::Bytes(bytes.clone()),
            Source::File(path) => Input::File(path.clone()),
        };
        let artifact = compile(module, &self.limits, run, stop)?;
        let loaded = self.load(&artifact)?;
        // A full disk costs the next start another compilation.
        let _ = self.cache.put(program, &artifact);
        Ok(loaded)
    }

    fn load(&self, artifact: &Artifact) -> Result<Made, Reason> {
        let loaded = self.linkers.load(&self.engine, artifact).map(Arc::new)?;
        Ok(Made { loaded, bytes: artifact.bytes().len() as u64 })
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A module that was just loaded, and the length of its compiled form.
struct Made {
    loaded: Arc<Loaded>,
    bytes: u64,
}

/// The right and the duty to report the outcome of a module's compilation.
struct Turn<'a> {
    library: &'a Library,
    program: ProgramHash,
}

impl Turn<'_> {
    fn end(self, made: Result<Made, Reason>) -> Result<Arc<Loaded>, Reason> {
        let mut shelf = self.library.lock();
        shelf.uses += 1;
        let used = shelf.uses;
        match &made {
            Ok(Made { loaded, bytes }) => {
                let ready = ModuleEntry::Ready { loaded: Arc::clone(loaded), bytes: *bytes, used };
                shelf.entries.insert(self.program, ready);
            }
            Err(reason @ Reason::BadModule { .. }) => {
                shelf.entries.insert(self.program, ModuleEntry::Failed { reason: reason.clone(), until: None, used });
            }
            Err(reason @ Reason::CompileLimit { .. }) => {
                let until = Some(Instant::now() + LIMIT_REMEMBERED);
                shelf.entries.insert(self.program, ModuleEntry::Failed { reason: reason.clone(), until, used });
            }
            // Another source, another moment or another disk may do better.
            Err(_) => {}
        }
        shelf.evict(self.library.limits.compiled_bytes);
        drop(shelf);
        made.map(|made| made.loaded)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut shelf = self.library.lock();
        if matches!(shelf.entries.get(&self.program), Some(ModuleEntry::Busy)) {
            shelf.entries.remove(&self.program);
        }
        drop(shelf);
        self.library.changed.notify_all();
    }
}

impl Shelf {
    /// Forgets the entries that were not used for longest. The entry that was used last stays.
    fn evict(&mut self, most_bytes: u64) {
        self.evict_kind(|entry| matches!(entry, ModuleEntry::Ready { .. }), MOST_LOADED, most_bytes);
        self.evict_kind(|entry| matches!(entry, ModuleEntry::Failed { .. }), MOST_FAILED, most_bytes);
    }

    fn evict_kind(&mut self, is_of_kind: impl Fn(&ModuleEntry) -> bool, most: usize, most_bytes: u64) {
        let of_kind = self.entries.iter().filter(|(_, entry)| is_of_kind(entry));
        let mut of_kind: Vec<_> = of_kind.map(|(program, entry)| (entry.used(), entry.bytes(), *program)).collect();
        of_kind.sort_unstable();
        let mut sum: u64 = of_kind.iter().map(|(_, bytes, _)| bytes).sum();
        let mut left = of_kind.len();
        for (_, bytes, program) in of_kind {
            if left <= 1 || left <= most && sum <= most_bytes {
                return;
            }
            self.entries.remove(&program);
            sum -= bytes;
            left -= 1;
        }
    }
}

impl ModuleEntry {
    fn used(&self) -> Option<u64> {
        match self {
            Self::Busy => None,
            Self::Ready { used, .. } | Self::Failed { used, .. } => Some(*used),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Ready { bytes, .. } => *bytes,
            Self::Busy | Self::Failed { .. } => 0,
        }
    }
}

/// Checks length and hash before anything looks into a module.
fn verify(expected: ProgramHash, source: &Source, limit: u64) -> Result<(), Reason> {
    let too_large = |bytes: u64| Err(Reason::TooLarge { bytes, limit });
    let unreadable = |error: io::Error| Reason::sandbox("read the module", error);
    let found = match source {
        Source::Bytes(bytes) if bytes.len() as u64 > limit => return too_large(bytes.len() as u64),
        Source::Bytes(bytes) => ProgramHash::of(bytes),
        Source::File(path) => {
            let file = File::open(path).map_err(unreadable)?;
            let length = file.metadata().map_err(unreadable)?.len();
            if length > limit {
                return too_large(length);
            }
            ProgramHash::of_reader(file).map_err(unreadable)?
        }
    };
    if found == expected { Ok(()) } else { Err(Reason::HashMismatch { expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailedCall, Finished};
    use crate::program::Call;
    use crate::wasm::engine::engine;

    #[test]
    fn a_failure_of_the_worker_is_not_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = engine().expect("an engine");
        let cache = Cache::open(&directory.path().join("compiled"), &engine, 1 << 20).expect("a cache");
        let module = wat::parse_str(r#"(module (func (export "_start")))"#).expect("WAT");
        let compiled = engine.precompile_module(&module).expect("compiled");
        let library = Library::new(engine, cache, CompileLimits::default()).expect("a library");
        let (program, source) = (ProgramHash::of(&module), Source::Bytes(module.into()));
        let stop = AtomicBool::new(false);
        let fails = |_: &Call| -> Result<Finished, Box<FailedCall>> { Err(Reason::Exit { code: 1 }.into()) };
        let failed = library.get(program, &source, &fails, &stop).expect_err("there is no compiler");
        assert!(matches!(failed, Reason::Sandbox { .. }), "{failed}");
        let compiles = |_: &Call| -> Result<Finished, Box<FailedCall>> {
            Ok(Finished { stdout: compiled.clone(), ..Finished::default() })
        };
        library.get(program, &source, &compiles, &stop).expect("there is one again");
    }
}
