//! `divvy program check`.

use std::sync::atomic::AtomicBool;

use model::ProgramKind;
use sandbox::{Config, Kind, Program, Sandbox, Source, check_executable, inspect};
use workloads::ProgramLimits;

use super::put::hash_of;
use crate::arguments::CheckProgram;
use crate::failure::Failure;
use crate::print::print_line;
use crate::printable::printable;

pub(super) fn run(arguments: &CheckProgram, bytes: Vec<u8>, stop: &AtomicBool) -> Result<(), Failure> {
    print_line(&format!("sha256  {}", hash_of(&bytes)))?;
    match ProgramKind::of(&bytes) {
        Some(ProgramKind::Wasm) => {
            let memory_bytes = arguments.memory.unwrap_or(ProgramLimits::default().memory_bytes);
            check_module(bytes, memory_bytes, stop)
        }
        Some(ProgramKind::Native) => {
            print_line("kind    an executable: only workers with DIVVY_ALLOW_NATIVE=1 run it")?;
            check_executable(&bytes).map_err(|reason| would_not_run(&reason.to_string()))
        }
        None => {
            Err(Failure::Failed("it is neither WebAssembly nor an executable (ELF, or a script with #!)".to_owned()))
        }
    }
}

fn check_module(bytes: Vec<u8>, memory_bytes: u64, stop: &AtomicBool) -> Result<(), Failure> {
    let inspection = inspect(&bytes).map_err(|reason| would_not_run(&reason.to_string()))?;
    print_line(match inspection.kind {
        Kind::Module => "kind    a WebAssembly module (WASI preview 1)",
        Kind::Component => "kind    a WebAssembly component (WASI preview 2)",
    })?;
    for import in &inspection.imports {
        let missing = if import.provided { "" } else { "  (no worker has it)" };
        let name = [import.module.as_str(), import.name.as_str()].join(" ");
        print_line(&format!("import  {}{missing}", printable(name.trim_end())))?;
    }
    if !inspection.runs() {
        return Err(would_not_run(&inspection.problems.join("; ")));
    }
    prepare(bytes, stop)?;
    let start_bytes = inspection.start_memory_bytes;
    if start_bytes > memory_bytes {
        return Err(would_not_run(&format!(
            "it starts with {start_bytes} bytes of memory, and its job gives it {memory_bytes} (--memory)"
        )));
    }
    print_line("ok      a worker would run it")
}

/// Compiles and links it as a worker does: the types of its imports and of its entry show only then.
fn prepare(bytes: Vec<u8>, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(|error| Failure::Failed(format!("make a directory: {error}")))?;
    let sandbox = Sandbox::open(Config::new(directory.path().join("sandbox"), 1))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let sha256 = sandbox::ProgramHash::from(hash_of(&bytes).0);
    let program = Program::Wasm { sha256, source: Source::Bytes(bytes.into()) };
    let prepared = sandbox.prepare(&program, stop);
    prepared.map_err(|failure| would_not_run(&failure.reason.to_string()))
}

fn would_not_run(why: &str) -> Failure {
    Failure::Failed(format!("no worker would run it: {why}"))
}
