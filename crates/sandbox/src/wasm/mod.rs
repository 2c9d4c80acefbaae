//! WASI programs: compiled in a child, cached, and run on the caller's thread.

mod cache;
mod clock;
mod compile;
mod engine;
mod inspect;
mod library;
mod limiter;
mod load;
mod run;
mod streams;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::io::Errno;
use wasmtime::OutOfMemory;

pub(crate) use compile::compile_on_standard_streams;
pub use inspect::{Import, Inspection, Kind, inspect};

use self::cache::Cache;
use self::engine::Ticker;
use self::library::Library;
use self::load::Loaded;
use crate::failure::{self, FailedCall, Finished, Reason};
use crate::hash::ProgramHash;
use crate::program::{Call, Source};
use crate::sandbox::{Config, OpenError};

/// Runs a call of the host's own binary as a compiler: native, limited and caged.
pub(crate) type Compile<'a> = dyn Fn(&Call) -> Result<Finished, Box<FailedCall>> + 'a;

/// The engine with all modules that are ready to run.
#[derive(Debug)]
pub(crate) struct Runner {
    library: Library,
    ticker: Arc<Ticker>,
}

impl Runner {
    pub(crate) fn open(config: &Config) -> Result<Self, OpenError> {
        let engine = engine::engine().map_err(engine_error)?;
        let directory = config.directory.join("compiled");
        let cache = Cache::open(&directory, &engine, config.cache_bytes)
            .map_err(|source| OpenError::Directory { path: directory, source })?;
        let ticker = Ticker::start(&engine).map_err(|error| OpenError::Engine { message: error.to_string() })?;
        let library = Library::new(engine, cache, config.compile).map_err(engine_error)?;
        Ok(Self { library, ticker })
    }

    /// The module, compiled if it is not yet.
    pub(crate) fn load(
        &self,
        sha256: ProgramHash,
        source: &Source,
        compile: &Compile<'_>,
        stop: &AtomicBool,
    ) -> Result<Arc<Loaded>, Reason> {
        self.library.get(sha256, source, compile, stop)
    }

    pub(crate) fn run(
        &self,
        loaded: &Loaded,
        call: &Call,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Finished, Box<FailedCall>> {
        let _ticking = self.ticker.tick();
        run::run(self.library.engine(), loaded, call, stop, on_stderr)
    }
}

/// The error of a machine that has no memory, address space or descriptors for a program, if that is why the engine failed. No
/// program causes one: its memory and tables have a limit that is looked at before.
fn shortage(error: &wasmtime::Error) -> Option<Reason> {
    let errno = error.downcast_ref::<Errno>().map(|errno| io::Error::from(*errno));
    let is_of_machine = errno.as_ref().is_some_and(failure::is_of_machine)
        || error.downcast_ref::<io::Error>().is_some_and(failure::is_of_machine)
        || error.is::<OutOfMemory>();
    is_of_machine.then(|| Reason::sandbox("get memory from this machine for the program", error.root_cause()))
}

fn engine_error(error: wasmtime::Error) -> OpenError {
    OpenError::Engine { message: format!("{error:#}") }
}
