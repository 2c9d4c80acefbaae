//! `divvy program check`.

use model::ProgramKind;
use sandbox::{Kind, inspect};

use super::put::{hash_of, read};
use crate::arguments::CheckProgram;
use crate::failure::Failure;
use crate::print::print_line;

pub(super) fn run(arguments: &CheckProgram) -> Result<(), Failure> {
    let bytes = read(&arguments.file)?;
    print_line(&format!("sha256  {}", hash_of(&bytes)))?;
    match ProgramKind::of(&bytes) {
        Some(ProgramKind::Wasm) => check_module(&bytes),
        Some(ProgramKind::Native) => print_line("kind    an executable: only workers with DIVVY_ALLOW_NATIVE=1 run it"),
        None => {
            Err(Failure::Failed("it is neither WebAssembly nor an executable (ELF, or a script with #!)".to_owned()))
        }
    }
}

fn check_module(bytes: &[u8]) -> Result<(), Failure> {
    let inspection = inspect(bytes).map_err(|error| Failure::Failed(error.to_string()))?;
    print_line(match inspection.kind {
        Kind::Module => "kind    a WebAssembly module (WASI preview 1)",
        Kind::Component => "kind    a WebAssembly component (WASI preview 2)",
    })?;
    for import in &inspection.imports {
        let missing = if import.provided { "" } else { "  (no worker has it)" };
        let name = [import.module.as_str(), import.name.as_str()].join(" ");
        print_line(&format!("import  {}{missing}", name.trim_end()))?;
    }
    if inspection.runs() {
        return print_line("ok      a worker would run it");
    }
    Err(Failure::Failed(format!("no worker would run it: {}", inspection.problems.join("; "))))
}
