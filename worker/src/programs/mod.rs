//! The programs that this worker runs: uploaded ones that it fetches once by their hash, and those that its operator has
//! named.

mod cache;
mod log;
mod names;
mod outputs;
mod run;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use api::{NamedAbility, ProgramAbilities};
use sandbox::Sandbox;
use tracing::{info, warn};

use crate::config::Config;
use crate::courier::Courier;

use cache::ProgramCache;
use names::NamedPrograms;

pub(crate) use run::Owner;

/// Runs programs, each on the thread of its slot.
#[derive(Debug)]
pub(crate) struct Programs {
    sandbox: Sandbox,
    cache: ProgramCache,
    named: NamedPrograms,
    courier: Arc<Courier>,
    abilities: ProgramAbilities,
    max_memory_bytes: u64,
}

impl Programs {
    /// Prepares the directory and checks how the kernel can contain programs. `None` where this worker runs no program.
    ///
    /// # Errors
    /// Programs that the operator asks for cannot be run here: the file of names is wrong, the directory cannot be used, or the
    /// kernel cannot contain them.
    pub(crate) fn open(config: &Config, courier: Arc<Courier>) -> anyhow::Result<Option<Arc<Self>>> {
        let named = match &config.programs {
            Some(file) => names::read(file).with_context(|| format!("read {} (DIVVY_PROGRAMS)", file.display()))?,
            None => NamedPrograms::default(),
        };
        let is_wanted = config.allow_native || !named.is_empty();
        let directory = config.program_directory();
        let settings = settings(config, &directory);
        let opened = Sandbox::open(settings).context("prepare to run programs").and_then(|sandbox| {
            let cache = ProgramCache::open(&directory.join("programs"), config.program_cache_bytes);
            Ok((sandbox, cache.with_context(|| format!("keep programs in {}", directory.display()))?))
        });
        let (sandbox, cache) = match opened {
            Ok(opened) => opened,
            Err(error) if is_wanted => return Err(error.context("set DIVVY_PROGRAM_DIR to a directory of this user")),
            Err(error) => {
                let error = format!("{error:#}");
                if config.program_dir.is_some() {
                    warn!(error, "this worker runs no programs: the directory of DIVVY_PROGRAM_DIR cannot be used");
                } else {
                    info!(error, "this worker runs no programs: it needs a directory of its own (DIVVY_PROGRAM_DIR)");
                }
                return Ok(None);
            }
        };
        let abilities = abilities(config, &sandbox, &named);
        if abilities == ProgramAbilities::default() {
            return Ok(None);
        }
        let max_memory_bytes = config.program_memory_bytes;
        Ok(Some(Arc::new(Self { sandbox, cache, named, courier, abilities, max_memory_bytes })))
    }

    /// The abilities that heartbeats announce.
    pub(crate) fn abilities(&self) -> &ProgramAbilities {
        &self.abilities
    }
}

fn settings(config: &Config, directory: &Path) -> sandbox::Config {
    let settings = sandbox::Config::new(directory, config.slots as usize);
    // A compiler counts as a program: both have to fit into the memory of a pod.
    let memory_bytes = settings.compile.memory_bytes.min(config.program_memory_bytes);
    let compiled_bytes = settings.compile.compiled_bytes.min(config.program_cache_bytes);
    sandbox::Config {
        allow_native: config.allow_native,
        compile: sandbox::CompileLimits { memory_bytes, compiled_bytes, ..settings.compile },
        cache_bytes: config.program_cache_bytes,
        ..settings
    }
}

fn abilities(config: &Config, sandbox: &Sandbox, named: &NamedPrograms) -> ProgramAbilities {
    let capabilities = sandbox.capabilities();
    let list = |missing: &[sandbox::Missing]| missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missing = capabilities.missing_for_native();
    if config.allow_native && !missing.is_empty() {
        let missing = list(&missing);
        warn!(missing, "this worker refuses native executables: it cannot run or contain them");
    }
    let native = config.allow_native && missing.is_empty();
    if native && rustix::process::geteuid().is_root() {
        warn!(
            "this worker is root, so its native executables cannot change modes and times of files, as gzip, tar and \
             cp -p do: run it as another user"
        );
    }
    let missing = capabilities.missing_for_named();
    if !named.is_empty() && !missing.is_empty() {
        let missing = list(&missing);
        warn!(missing, "this worker refuses its named programs: the kernel cannot watch them");
    }
    let brought = named
        .iter()
        .filter(|_| missing.is_empty())
        .map(|(name, program)| NamedAbility { name: name.clone(), description: program.description.clone() });
    ProgramAbilities { wasm: cfg!(feature = "wasm"), native, names: brought.collect() }
}
