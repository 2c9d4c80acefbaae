//! Inspects a module without compiling it.

use std::collections::BTreeSet;
use std::fmt;

use wasmparser::{Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

/// The contents and the needs of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Module or component.
    pub kind: Kind,
    /// The imports from the host.
    pub imports: Vec<Import>,
    /// The obstacles that show without compiling; [`crate::Sandbox::prepare`] finds the others.
    pub problems: Vec<String>,
    /// Size of its linear memories at the start, in bytes. A task with less memory fails before it begins.
    pub start_memory_bytes: u64,
}

/// The format of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A core module, with WASI preview 1.
    Module,
    /// A component, with WASI preview 2.
    Component,
}

/// An import of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The module's name; of a component the interface's.
    pub module: String,
    /// The function's name; of a component empty.
    pub name: String,
    /// Whether a worker has it.
    pub provided: bool,
}

impl Inspection {
    /// Whether nothing shows that keeps it from running.
    pub fn runs(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The functions of preview 1 (the witx definition of `wasi_snapshot_preview1`).
#[rustfmt::skip]
const PREVIEW_1: &[&str] = &[
    "args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get", "fd_advise",
    "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_fdstat_set_rights",
    "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_dir_name",
    "fd_prestat_get", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell", "fd_write",
    "path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open", "path_readlink",
    "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file", "poll_oneoff", "proc_exit",
    "proc_raise", "random_get", "sched_yield", "sock_accept", "sock_recv", "sock_send", "sock_shutdown",
];
const PREVIEW_1_MODULE: &str = "wasi_snapshot_preview1";
/// Packages of preview 2 that a worker has, sockets without any address to reach.
const PREVIEW_2: &[&str] =
    &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
const PREVIEW_2_VERSION: &str = "@0.2.";
/// A page of memory has 64 KiB unless the module says otherwise.
const DEFAULT_PAGE_SIZE_LOG2: u32 = 16;
const RUN: &str = "wasi:cli/run@0.2.";

/// Tells the needs of a module or component, and the obstacles that keep it from running on a worker.
///
/// # Errors
/// The bytes are no valid module or component.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, crate::Reason> {
    let bad = |error: wasmparser::BinaryReaderError| crate::Reason::BadModule { message: error.to_string() };
    Validator::new_with_features(features()).validate_all(bytes).map_err(bad)?;
    read(bytes).map_err(bad)
}

/// The features that the engine accepts; threads and garbage collection are not among them.
fn features() -> WasmFeatures {
    let without = WasmFeatures::THREADS | WasmFeatures::GC | WasmFeatures::EXCEPTIONS | WasmFeatures::STACK_SWITCHING;
    WasmFeatures::default() - without
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all sections only imports and exports matter")]
fn read(bytes: &[u8]) -> Result<Inspection, wasmparser::BinaryReaderError> {
    let mut found = Inspection { kind: Kind::Module, imports: Vec::new(), problems: Vec::new(), start_memory_bytes: 0 };
    let (mut depth, mut has_entry) = (0, false);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && encoding == Encoding::Component {
                    found.kind = Kind::Component;
                }
            }
            Payload::End(_) => depth -= 1,
            // Modules within a component import from it, not from the host.
            Payload::ImportSection(section) if depth == 1 => {
                for import in section.into_imports() {
                    let import = import?;
                    let provided = import.module == PREVIEW_1_MODULE && PREVIEW_1.contains(&import.name);
                    found.add(import.module, import.name, provided);
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let name = import?.name.name;
                    let known = PREVIEW_2.iter().any(|package| name.starts_with(package));
                    found.add(name, "", known && name.contains(PREVIEW_2_VERSION));
                }
            }
            // Of every module in a component: what it is made of takes its memory at the start.
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page_bytes = 1_u64 << memory.page_size_log2.unwrap_or(DEFAULT_PAGE_SIZE_LOG2);
                    let bytes = memory.initial.saturating_mul(page_bytes);
                    found.start_memory_bytes = found.start_memory_bytes.saturating_add(bytes);
                }
            }
            Payload::ExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export?;
                    has_entry |= export.name == "_start" && export.kind == ExternalKind::Func;
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    has_entry |= export?.name.name.starts_with(RUN);
                }
            }
            _ => {}
        }
    }
    found.conclude(has_entry);
    Ok(found)
}

impl Inspection {
    fn add(&mut self, module: &str, name: &str, provided: bool) {
        self.imports.push(Import { module: module.to_owned(), name: name.to_owned(), provided });
    }

    fn conclude(&mut self, has_entry: bool) {
        let missing: BTreeSet<_> =
            self.imports.iter().filter(|import| !import.provided).map(Import::to_string).collect();
        self.problems.extend(missing.into_iter().map(|import| format!("no worker has its import {import}")));
        if !has_entry {
            self.problems.push(match self.kind {
                Kind::Module => "it exports no function _start: it is a library, not a command".to_owned(),
                Kind::Component => format!("it does not export {RUN}x: it is no command"),
            });
        }
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.module)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", self.name) }
    }
}
