//! The cage around a native program: Landlock's rules for files and signals, a filter of system calls, no capabilities and
//! resource limits.
//!
//! The watch in `supervisor.rs` relies on the filter: it refuses what would take memory, disk space or a process out of
//! sight. Landlock is built before the fork; all is put on after it, in the new process.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, PathFdError, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{FileType, fstat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use seccompiler::{BpfProgram, apply_filter};

use super::filter::{self, Signals};
use super::wire::{Bounds, Cage};
use crate::failure::is_of_machine;

/// The first version of Landlock that keeps signals inside.
const SCOPED_SIGNALS_ABI: u32 = 6;
/// The first version of Landlock that keeps `truncate` inside.
const TRUNCATE_ABI: u32 = 3;
/// The newest version of Landlock whose file rights are asked for.
const NEWEST_ABI: ABI = ABI::V7;
/// Files that hold no data and that programs expect.
const DEVICES: [(&str, bool); 4] =
    [("/dev/null", true), ("/dev/full", true), ("/dev/random", false), ("/dev/urandom", false)];
const OPEN_FILES: u64 = 512;
const STACK_BYTES: u64 = 8 << 20;
const PENDING_SIGNALS: u64 = 1024;

/// A cage that is ready to be put on.
#[derive(Debug)]
pub(crate) struct Built {
    rules: RulesetCreated,
    landlock_abi: u32,
}

/// The filter of system calls where it does not depend on the process, built once.
#[derive(Debug)]
pub(crate) struct Filters {
    scoped: BpfProgram,
}

impl Filters {
    pub(crate) fn build() -> Result<Self, seccompiler::BackendError> {
        Ok(Self { scoped: filter::build(Signals::Scoped, true)? })
    }
}

impl Built {
    /// Opens the files and directories of the rules. Files that do not exist are left out.
    pub(crate) fn new(cage: &Cage, scratch: &Path) -> Result<Self, String> {
        build_rules(cage, scratch)
            .map(|rules| Self { rules, landlock_abi: cage.landlock_abi })
            .map_err(|error| format!("Landlock: {error}"))
    }

    /// Puts the cage on the calling process. It cannot be taken off.
    pub(crate) fn enter(&self, filters: &Filters) -> io::Result<()> {
        set_no_new_privs(true)?;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        // Of a copy: the calling process may share its memory with the one that has to close the rules.
        let status = self.rules.try_clone()?.restrict_self().map_err(io::Error::other)?;
        if !matches!(
            status,
            RestrictionStatus { ruleset: RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, .. }
        ) {
            return Err(io::Error::other("Landlock is not in force"));
        }
        if self.landlock_abi >= SCOPED_SIGNALS_ABI {
            return apply_filter(&filters.scoped).map_err(io::Error::other);
        }
        let filter = filter::build(Signals::OwnOnly, self.landlock_abi >= TRUNCATE_ABI).map_err(io::Error::other)?;
        apply_filter(&filter).map_err(io::Error::other)
    }
}

/// The error of rules that cannot be built, for people.
type BuildError = Box<dyn std::error::Error>;

fn build_rules(cage: &Cage, scratch: &Path) -> Result<RulesetCreated, BuildError> {
    let abi = ABI::from(i32::try_from(cage.landlock_abi).unwrap_or(i32::MAX)).min(NEWEST_ABI);
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
    if cage.landlock_abi >= SCOPED_SIGNALS_ABI {
        rules = rules.scope(Scope::from_all(abi))?;
    }
    let mut rules = rules.create()?;
    let read = AccessFs::from_read(abi);
    for path in &cage.readable {
        rules = allow(rules, path, read, abi)?;
    }
    for (device, writable) in DEVICES {
        let access = if writable { AccessFs::ReadFile | AccessFs::WriteFile } else { AccessFs::ReadFile.into() };
        rules = allow(rules, Path::new(device), access, abi)?;
    }
    let special = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock;
    allow(rules, scratch, AccessFs::from_all(abi) & !special, abi)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
    abi: ABI,
) -> Result<RulesetCreated, BuildError> {
    let opened = match PathFd::new(path) {
        Ok(opened) => opened,
        // Without its rule the program would be refused what it needs, and fail by itself.
        Err(error) if is_of_shortage(&error) => return Err(error.into()),
        Err(_) => return Ok(rules),
    };
    let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
    let access = if kind == FileType::Directory { access } else { access & AccessFs::from_file(abi) };
    Ok(rules.add_rule(PathBeneath::new(opened, access))?)
}

fn is_of_shortage(error: &PathFdError) -> bool {
    matches!(error, PathFdError::OpenCall { source, .. } if is_of_machine(source))
}

/// Resource limits of each process, which bound what happens between two looks of the watch. Those on files are for
/// caged programs: a named one may work on files that its operator gave it.
pub(crate) fn limit_resources(bounds: &Bounds, caged: bool, processors: u64) -> io::Result<()> {
    let processes = u64::from(bounds.processes);
    // The watch ends it earlier; this holds where the watch itself is gone.
    let cpu_seconds = (bounds.wall_ms.div_ceil(1000) + 5).saturating_mul(processors);
    // Address space that is only reserved is not counted, but writable memory that is never touched is.
    let data = bounds.memory_bytes.saturating_mul(2).saturating_add(256 << 20);
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, cpu_seconds)?;
    limit(Resource::Data, data.saturating_add(STACK_BYTES.saturating_mul(processes)))?;
    if !caged {
        return Ok(());
    }
    limit(Resource::Fsize, bounds.scratch_bytes)?;
    limit(Resource::Memlock, 0)?;
    limit(Resource::Msgqueue, 0)?;
    limit(Resource::Nofile, OPEN_FILES)?;
    limit(Resource::Sigpending, PENDING_SIGNALS)?;
    limit(Resource::Rtprio, 0)?;
    // It would let a program take back the niceness that it is given.
    limit(Resource::Nice, 0)?;
    limit(Resource::Stack, STACK_BYTES)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let maximum = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(most);
    setrlimit(resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })?;
    Ok(())
}
